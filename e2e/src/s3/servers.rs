//! MinIO and versitygw: the S3 server that most people run, and one that stores on a plain file system.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::REGION;
use super::process::Process;
use crate::http::{Http, Method};
use crate::ports::free_port;
use crate::tools::tool;

const ACCESS_KEY: &str = "harness-key";
const SECRET_KEY: &str = "harness-secret";

/// What both servers share.
#[derive(Debug)]
struct Server {
    port: u16,
    // Dropped before its folder.
    _process: Process,
    folder: TempDir,
}

impl Server {
    async fn start(folder: TempDir, port: u16, command: &Command, health: &str) -> Result<Self> {
        let mut process = Process::start(command, folder.path().join("log"))?;
        let url = format!("http://127.0.0.1:{port}{health}");
        let http = Http::default();
        process
            .until(async || {
                let answer = http.send::<&str>(Method::GET, &url, &[], "").await;
                answer.is_ok_and(|answer| answer.status.as_u16() < 500)
            })
            .await?;
        Ok(Self {
            port,
            _process: process,
            folder,
        })
    }
}

/// A folder in memory (it has user xattrs, and the disk is left alone).
fn folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        TempDir::new_in(memory)
    } else {
        TempDir::new()
    };
    made.context("cannot make a temporary folder")
}

macro_rules! server {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            server: Server,
        }

        impl $name {
            /// Base URL.
            #[must_use]
            pub fn endpoint(&self) -> String {
                format!("http://127.0.0.1:{}", self.server.port)
            }

            /// Access key.
            #[must_use]
            pub fn access_key(&self) -> &'static str {
                ACCESS_KEY
            }

            /// Secret key.
            #[must_use]
            pub fn secret_key(&self) -> &'static str {
                SECRET_KEY
            }

            /// Makes a bucket: for both servers a folder.
            ///
            /// # Errors
            /// The folder cannot be made.
            pub fn create_bucket(&self, name: &str) -> Result<()> {
                Ok(std::fs::create_dir(self.server.folder.path().join("data").join(name))?)
            }
        }
    };
}

server!(
    /// A running MinIO. Dropping it stops it and removes its data.
    Minio
);

server!(
    /// A running versitygw over a folder. Dropping it stops it and removes its data.
    Versitygw
);

impl Minio {
    /// Starts MinIO on free ports.
    ///
    /// # Errors
    /// The program is missing (run `make test`, or `scripts/prepare`) or does not become ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a MinIO that encrypts with the key `harness` where a request asks for KMS.
    ///
    /// # Errors
    /// As [`Minio::start`].
    pub async fn start_with_kms() -> Result<Self> {
        let key = format!("harness:{}", STANDARD.encode([7; 32]));
        Self::start_with(&[("MINIO_KMS_SECRET_KEY", &key)]).await
    }

    async fn start_with(environment: &[(&str, &str)]) -> Result<Self> {
        let folder = folder()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let (port, console) = (free_port()?, free_port()?);
        let mut command = Command::new(tool("bin/minio")?);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")])
            .args(["--console-address", &format!("127.0.0.1:{console}")])
            .arg(&data)
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .env("MINIO_REGION", REGION)
            .env("MINIO_CI_CD", "1")
            .env("HOME", folder.path())
            .envs(environment.iter().copied());
        let server = Server::start(folder, port, &command, "/minio/health/live").await?;
        Ok(Self { server })
    }
}

impl Versitygw {
    /// Starts versitygw on a free port.
    ///
    /// # Errors
    /// The program is missing (run `make test`, or `scripts/prepare`) or does not become ready.
    pub async fn start() -> Result<Self> {
        let folder = folder()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let port = free_port()?;
        let mut command = Command::new(tool("bin/versitygw")?);
        command
            .args([
                "--port",
                &format!("127.0.0.1:{port}"),
                "--region",
                REGION,
                "posix",
            ])
            .arg(&data)
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY);
        let server = Server::start(folder, port, &command, "/").await?;
        Ok(Self { server })
    }
}
