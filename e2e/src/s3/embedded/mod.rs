//! An S3 server in this process: in memory, with enforced signatures, counted requests and injected faults.
//!
//! It honours conditional writes and deletes, multipart ETags, `partNumber`, checksums and ordered listings as AWS
//! does. Not there: versions, tags, lifecycle rules, policies. A `Range` that cannot be read answers 400, where AWS
//! sends the whole body.

mod access;
mod copies;
mod faults;
mod line;
mod listing;
mod operations;
mod store;
mod uploads;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::access::{Gate, Keys};
use self::faults::Counters;
pub use self::faults::{Counts, Fault, Faults, Rule};
use self::operations::Operations;
use self::store::Store;
pub use self::store::{StoredHeaders, StoredObject};

/// A running server. Dropping it stops it and forgets everything.
#[derive(Debug)]
pub struct EmbeddedS3 {
    address: SocketAddr,
    access_key: String,
    secret_key: String,
    store: Store,
    counters: Counters,
    faults: Faults,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EmbeddedS3 {
    /// Starts a server on a free port of 127.0.0.1, on a thread of its own.
    ///
    /// # Errors
    /// No port or thread is to be had.
    pub fn start() -> Result<Self> {
        Self::start_on(0, "embedded-key", "embedded-secret")
    }

    /// Starts a server on this port (0 = a free one) with these keys.
    ///
    /// # Errors
    /// The port is in use, or no thread is to be had.
    pub fn start_on(port: u16, access_key: &str, secret_key: &str) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (store, counters, faults) = (Store::default(), Counters::default(), Faults::default());
        let mut service = S3ServiceBuilder::new(Operations { store: store.clone() });
        store.lock().keys = (access_key.to_owned(), secret_key.to_owned());
        service.set_auth(Keys(store.clone()));
        service.set_access(Gate {
            counters: counters.clone(),
            faults: faults.clone(),
        });
        let service = service.build();
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("embedded-s3".into())
            .spawn(move || {
                runtime.block_on(serve(listener, service, stopped));
                // Connections that are still open end here.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            address,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            store,
            counters,
            faults,
            stop,
            thread: Some(thread),
        })
    }

    /// Base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Access key that it was started with.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// Secret key that it was started with.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Makes a bucket; one that is there stays as it is.
    pub fn create_bucket(&self, name: &str) {
        self.store.lock().buckets.entry(name.to_owned()).or_default();
    }

    /// Removes a bucket with everything in it.
    pub fn remove_bucket(&self, name: &str) {
        self.store.lock().buckets.remove(name);
    }

    /// What is in a bucket, in key order.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Arc<StoredObject>> {
        self.store.lock().buckets.get(bucket).cloned().unwrap_or_default()
    }

    /// Puts an object into a bucket behind every client's back.
    pub fn insert(&self, bucket: &str, key: &str, object: StoredObject) {
        let mut contents = self.store.lock();
        contents
            .buckets
            .entry(bucket.to_owned())
            .or_default()
            .insert(key.to_owned(), Arc::new(object));
    }

    /// Removes an object behind every client's back.
    pub fn remove(&self, bucket: &str, key: &str) {
        if let Some(objects) = self.store.lock().buckets.get_mut(bucket) {
            objects.remove(key);
        }
    }

    /// Keys that were there and that a request removed, in the order of their removal.
    #[must_use]
    pub fn deleted(&self) -> Vec<String> {
        self.store.lock().deleted.clone()
    }

    /// Answers with other names of metadata than were stored, as some servers do.
    pub fn alter_metadata_names(&self, alter: fn(&str) -> String) {
        self.store.lock().altered_names = Some(alter);
    }

    /// Leaves keys out of listings, as some servers do; everything else sees them.
    pub fn hide_from_listings(&self, hidden: fn(&str) -> bool) {
        self.store.lock().hidden = Some(hidden);
    }

    /// From now on only these keys are known.
    pub fn change_keys(&self, access_key: &str, secret_key: &str) {
        self.store.lock().keys = (access_key.to_owned(), secret_key.to_owned());
    }

    /// Uploads that were neither completed nor aborted.
    #[must_use]
    pub fn unfinished_uploads(&self) -> usize {
        self.store.lock().uploads.len()
    }

    /// Requests so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for EmbeddedS3 {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service, mut stopped: watch::Receiver<bool>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        // Without it a small answer waits 40 ms for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(
                    TokioIo::new(stream),
                    hyper::service::service_fn(move |request| line::handle(service.clone(), request)),
                );
            // A broken connection is the client's business.
            let _ = connection.await;
        });
    }
}
