//! Runs a real Swift until standard input closes or a signal comes: `onespace-demo-swift [FOLDER]`.
//!
//! When every server is ready it prints lines that a shell can `eval`: what the stock `swift` client needs (ST_*)
//! and what the agent needs (ONESPACE_*), and last the line `# ready`.
#![allow(clippy::print_stdout)]

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Result;
use onespace_e2e::swift::{Options, Swift};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let swift = Swift::start(Options {
        folder,
        ..Options::default()
    })
    .await?;
    print!("{}", environment(&swift));
    let (close, closed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = close.send(());
    });
    tokio::select! {
        _ = closed => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    drop(swift);
    Ok(())
}

fn environment(swift: &Swift) -> String {
    let lines = [
        ("ST_AUTH", format!("{}/auth/v1.0", swift.public_endpoint())),
        ("ST_USER", "test:tester".to_owned()),
        ("ST_KEY", "testing".to_owned()),
        ("ONESPACE_SWIFT_DIR", swift.swift_dir().display().to_string()),
        ("ONESPACE_DEVICES", swift.devices().display().to_string()),
        ("ONESPACE_CONTAINER_SERVER", swift.container_server()),
        ("ONESPACE_INTERNAL_ENDPOINT", swift.internal_endpoint()),
    ];
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    text.push_str("# ready\n");
    text
}
