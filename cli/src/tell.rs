//! `onespace retry` and `onespace release-deletes`: what a person asks of an agent.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::args::{ReleaseDeletes, Retry};

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest answer that is read, bytes.
const LARGEST: usize = 64 << 10;

/// Has held rows tried again.
///
/// # Errors
/// The agent cannot be reached, or refuses.
pub fn retry(args: &Retry, out: &mut dyn Write) -> Result<bool> {
    let Retry { agent, id, object } = args;
    let body = serde_json::json!({"id": id, "object": object});
    tell(&agent.url, "retry", &body, out)
}

/// Has a batch of held deletes carried out.
///
/// # Errors
/// The agent cannot be reached, or refuses.
pub fn release_deletes(args: &ReleaseDeletes, out: &mut dyn Write) -> Result<bool> {
    let ReleaseDeletes { agent, id, batch } = args;
    let body = serde_json::json!({"id": id, "batch": batch});
    tell(&agent.url, "release-deletes", &body, out)
}

fn tell(agent: &str, path: &str, body: &serde_json::Value, out: &mut dyn Write) -> Result<bool> {
    ensure!(
        agent.starts_with("http://"),
        "--agent {agent} is not a URL like http://127.0.0.1:9181, the agent's --status-listen"
    );
    let url = format!("{}/{path}", agent.trim_end_matches('/'));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, post(&url, body.to_string())).await });
    let answer = answer
        .with_context(|| format!("{url} does not answer; is the agent running?"))?
        .with_context(|| {
            format!("{url} cannot be asked; is the agent running, and is this its --status-listen?")
        })?;
    match answer {
        (true, text) => write!(out, "{text}")?,
        (false, text) => bail!("{}", text.trim_end()),
    }
    Ok(true)
}

async fn post(url: &str, body: String) -> Result<(bool, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client
        .request(http::Request::post(url).body(Full::new(Bytes::from(body)))?)
        .await?;
    let done = answer.status().is_success();
    let text = Limited::new(answer.into_body(), LARGEST).collect().await;
    let text = text.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    Ok((done, String::from_utf8_lossy(&text).into_owned()))
}
