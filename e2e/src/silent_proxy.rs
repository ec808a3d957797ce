//! What a load balancer does that dies without a word: its connections stay open, and nothing comes on them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// No connection.
const NONE: u64 = u64::MAX;

/// A TCP proxy on 127.0.0.1. Dropping it ends it.
#[derive(Debug)]
pub struct SilentProxy {
    port: u16,
    /// The first connection that is not silent; connections are numbered as they come.
    speaks_from: watch::Sender<u64>,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl SilentProxy {
    /// Passes everything on to a port of this machine.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (speaks_from, speaks) = watch::channel(0);
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = accepted.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(client, upstream, number, speaks.clone()));
            }
        });
        Ok(Self {
            port,
            speaks_from,
            accepted,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes: neither on the connections that there are, nor on new ones.
    pub fn fall_silent(&self) {
        self.speaks_from.send_replace(NONE);
    }

    /// Connections that are made from now on work. Those from before stay silent.
    pub fn take_new_connections(&self) {
        self.speaks_from
            .send_replace(self.accepted.load(Ordering::SeqCst));
    }
}

impl Drop for SilentProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: TcpStream, upstream: u16, number: u64, speaks: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
        return;
    };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        pass(from_client, to_server, number, speaks.clone()),
        pass(from_server, to_client, number, speaks)
    );
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, speaks: watch::Receiver<u64>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        if number < *speaks.borrow() {
            // Not even the end of a connection passes.
            std::future::pending::<()>().await;
        }
        let Ok(1..) = read else { return };
        let length = read.unwrap_or_default();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
