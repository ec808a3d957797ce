//! tinyproxy: a forward proxy that wants a login.

use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::ports::free_port;
use crate::s3::process::Process;

/// The login that it wants.
pub const LOGIN: (&str, &str) = ("proxy-user", "proxy-password");

/// A running tinyproxy on 127.0.0.1. Dropping it stops it.
#[derive(Debug)]
pub struct ForwardProxy {
    port: u16,
    // Dropped before its folder.
    _process: Process,
    folder: TempDir,
}

impl ForwardProxy {
    /// Starts it.
    ///
    /// # Errors
    /// The program is missing (run `make test`, or `scripts/prepare`) or does not become ready.
    pub async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let port = free_port()?;
        let (user, password) = LOGIN;
        let file = folder.path().join("tinyproxy.conf");
        std::fs::write(
            &file,
            format!(
                "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nBasicAuth {user} {password}\nTimeout 60\nMaxClients 50\nLogLevel Connect\n"
            ),
        )?;
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c"]).arg(&file);
        let mut process = Process::start(&command, folder.path().join("log"))?;
        process
            .until(async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await?;
        Ok(Self {
            port,
            _process: process,
            folder,
        })
    }

    /// What a policy names as `httpProxy`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests that it passed on, or refused.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn requests(&self) -> Result<usize> {
        let log = std::fs::read_to_string(self.folder.path().join("log"))?;
        Ok(log
            .lines()
            .filter(|line| line.contains("Request (file descriptor"))
            .count())
    }
}
