//! A remote that does not work says why, and no object is blamed for it.

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use onespace_core::reason::PauseReason;
use onespace_stores::body::Body;
use onespace_stores::remote::{Condition, Remote, RemoteError};

use super::{no_headers, put};

pub(super) async fn nothing_there_is_none<R: Remote>(remote: &R) -> Result<()> {
    ensure!(
        remote.head("failures/nothing").await?.is_none(),
        "HEAD finds something"
    );
    ensure!(
        remote.get("failures/nothing", None).await?.is_none(),
        "GET finds something"
    );
    Ok(())
}

fn pauses<T: Debug>(what: &str, answer: Result<T, RemoteError>, expected: PauseReason) -> Result<()> {
    match answer {
        Err(RemoteError::Paused { reason, .. }) if reason == expected => Ok(()),
        other => bail!("{what}: {other:?}"),
    }
}

async fn every_operation_pauses<R: Remote>(remote: &R, expected: PauseReason) -> Result<()> {
    let key = "failures/key";
    let small = Body::from_bytes(Bytes::from_static(b"small"));
    let large = Body::from_bytes(Bytes::from(vec![b'x'; 4 * 1024 * 1024]));
    pauses("list", remote.list("failures/", None, 10).await, expected)?;
    pauses("get", remote.get(key, None).await, expected)?;
    pauses(
        "put",
        remote
            .put(key, &no_headers(), &Condition::None, small, None)
            .await,
        expected,
    )?;
    pauses(
        "put 4 MiB",
        remote
            .put(key, &no_headers(), &Condition::None, large, None)
            .await,
        expected,
    )?;
    pauses("delete", remote.delete(key, None).await, expected)?;
    // A HEAD cannot tell a missing bucket from a missing key.
    if expected != PauseReason::NoSuchBucket {
        pauses("head", remote.head(key).await, expected)?;
    }
    pauses("probe", remote.probe("failures/probe/").await, expected)
}

pub(super) async fn wrong_secret<R: Remote>(remote: &R) -> Result<()> {
    every_operation_pauses(remote, PauseReason::InvalidCredentials).await
}

pub(super) async fn missing_bucket<R: Remote>(remote: &R) -> Result<()> {
    every_operation_pauses(remote, PauseReason::NoSuchBucket).await
}

pub(super) async fn unreachable<R: Remote>(remote: &R) -> Result<()> {
    every_operation_pauses(remote, PauseReason::Unreachable).await
}

pub(super) async fn a_probe_leaves_nothing<R: Remote>(remote: &R) -> Result<()> {
    put(remote, "failures/probed/mine", b"stays").await?;
    let (_, permissions) = remote.probe("failures/probed/").await?;
    let denied: Vec<_> = permissions
        .operations
        .iter()
        .filter(|(_, allowed)| !**allowed)
        .collect();
    ensure!(denied.is_empty(), "{denied:?}");
    ensure!(permissions.operations.len() == 5, "{permissions:?}");
    let page = remote.list("failures/probed/", None, 10).await?;
    let left = page
        .objects
        .first()
        .context("the probe removed an object of someone else")?;
    ensure!(
        page.objects.len() == 1 && left.key == "failures/probed/mine",
        "{page:?}"
    );
    Ok(())
}
