//! Runs the embedded S3 server on a port of 127.0.0.1 until SIGTERM or SIGINT; everything in it is forgotten then.
//!
//! When it accepts requests it prints lines that a shell can `eval` (AWS_*, S3_ENDPOINT, S3_BUCKET), and last the
//! line `# ready`.
#![allow(clippy::print_stdout)]

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use onespace_e2e::s3::{EmbeddedS3, REGION};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Access key that clients sign with.
    #[arg(long, default_value = "demo")]
    access_key: String,
    /// Secret key that clients sign with. It protects nothing but a demo.
    #[arg(long, default_value = "demo-secret")]
    secret_key: String,
    /// Buckets that are there from the start.
    #[arg(long, default_value = "backup")]
    bucket: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args {
        port,
        access_key,
        secret_key,
        bucket: buckets,
    } = Args::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let server = EmbeddedS3::start_on(port, &access_key, &secret_key)?;
    for bucket in &buckets {
        server.create_bucket(bucket);
    }
    println!("export AWS_ACCESS_KEY_ID='{access_key}'");
    println!("export AWS_SECRET_ACCESS_KEY='{secret_key}'");
    println!("export AWS_DEFAULT_REGION='{REGION}'");
    println!("export S3_ENDPOINT='{}'", server.endpoint());
    println!(
        "export S3_BUCKET='{}'",
        buckets.first().map_or("", String::as_str)
    );
    println!("# ready");
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}
