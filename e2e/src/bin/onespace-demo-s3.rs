//! Runs the embedded S3 server on a port of 127.0.0.1 until SIGTERM or SIGINT; everything in it is forgotten then.
//!
//! When it accepts requests it prints lines that a shell can `eval` (AWS_*, S3_ENDPOINT, S3_BUCKET), and the line
//! `# ready`. With `--show`, one line for every change of a bucket follows:
//!
//! ```text
//! put    backup/photos/a.jpg  3 bytes  0.25 s after Swift had it  place=Bonn
//! meta   backup/photos/a.jpg  3 bytes  0.31 s after Swift had it  place=Ulm
//! delete backup/photos/a.jpg
//! ```
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use onespace_e2e::s3::embedded::StoredObject;
use onespace_e2e::s3::{EmbeddedS3, REGION};
use tokio::signal::unix::{SignalKind, signal};

/// How often `--show` looks.
const LOOK: Duration = Duration::from_millis(20);

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
    /// Print a line for every object that comes, changes or goes.
    #[arg(long)]
    show: bool,
}

type Objects = BTreeMap<String, Arc<StoredObject>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args {
        port,
        access_key,
        secret_key,
        bucket: buckets,
        show,
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
    let mut look = tokio::time::interval(LOOK);
    let mut seen: Vec<Objects> = vec![Objects::new(); buckets.len()];
    loop {
        tokio::select! {
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            _ = look.tick(), if show => {}
        }
        for (bucket, seen) in buckets.iter().zip(&mut seen) {
            let now = server.objects(bucket);
            // One write: a reader never sees half a line.
            std::io::stdout().write_all(changes(bucket, seen, &now).as_bytes())?;
            *seen = now;
        }
    }
}

/// A line for every difference, in the order of keys.
fn changes(bucket: &str, before: &Objects, now: &Objects) -> String {
    let mut text = String::new();
    for (key, object) in now {
        match before.get(key) {
            Some(old) if Arc::ptr_eq(old, object) => {}
            Some(old) if old.etag == object.etag => line(&mut text, "meta", bucket, key, object),
            _ => line(&mut text, "put", bucket, key, object),
        }
    }
    for key in before.keys().filter(|key| !now.contains_key(*key)) {
        let _ = writeln!(text, "delete {bucket}/{key}");
    }
    text
}

fn line(text: &mut String, what: &str, bucket: &str, key: &str, object: &StoredObject) {
    let _ = write!(text, "{what:6} {bucket}/{key}  {} bytes", object.body.len());
    if object.parts.len() > 1 {
        let _ = write!(text, " in {} parts", object.parts.len());
    }
    if let Some(lag) = lag(object) {
        let _ = write!(text, "  {lag:.2} s after Swift had it");
    }
    for (name, value) in &object.headers.metadata {
        if !name.starts_with("onespace-") {
            let _ = write!(text, "  {name}={value}");
        }
    }
    text.push('\n');
}

/// Seconds from the change in Swift, as the copy's mark tells it, to the write here.
fn lag(object: &StoredObject) -> Option<f64> {
    let changed: f64 = object
        .headers
        .metadata
        .get("onespace-time")?
        .split('_')
        .next()?
        .parse()
        .ok()?;
    Some(
        object
            .last_modified
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_secs_f64()
            - changed,
    )
}
