//! Headers and metadata come back as they were stored, and can be replaced without the body.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use onespace_core::metadata::in_step;
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use onespace_stores::body::Body;
use onespace_stores::remote::{Condition, Remote, RemoteError, Replaced};

use super::bodies::Letters;
use super::{get, no_headers, put};

fn with_metadata(metadata: &[(&str, &str)]) -> RemoteHeaders {
    RemoteHeaders {
        content_type: Some("text/plain; charset=utf-8".into()),
        metadata: metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..RemoteHeaders::default()
    }
}

async fn come_back<R: Remote>(remote: &R, key: &str, headers: &RemoteHeaders) -> Result<()> {
    let body = Body::from_bytes(Bytes::from_static(b"body"));
    remote.put(key, headers, &Condition::None, body, None).await?;
    let seen = remote.head(key).await?.context("nothing there")?;
    ensure!(seen.headers == *headers, "{:?}", seen.headers);
    let (seen, _) = remote.get(key, None).await?.context("nothing there")?;
    ensure!(seen.headers == *headers, "GET: {:?}", seen.headers);
    Ok(())
}

pub(super) async fn headers_and_metadata_round_trip<R: Remote>(remote: &R) -> Result<()> {
    let headers = RemoteHeaders {
        content_encoding: Some("gzip".into()),
        content_disposition: Some("attachment; filename=\"a b.txt\"".into()),
        cache_control: Some("max-age=60, private".into()),
        ..with_metadata(&[("colour", "blue"), ("two-words", "a  b"), ("empty-ish", "-")])
    };
    come_back(remote, "headers/all", &headers).await
}

pub(super) async fn encoded_metadata_values_mean_the_same<R: Remote>(remote: &R) -> Result<()> {
    let headers = with_metadata(&[
        ("q", "=?UTF-8?Q?=C3=A9t=C3=A9?="),
        ("b", "=?UTF-8?B?5pel5pys?="),
        ("percent", "a%2Fb%20c"),
    ]);
    let body = Body::from_bytes(Bytes::from_static(b"body"));
    let key = "headers/encoded";
    remote.put(key, &headers, &Condition::None, body, None).await?;
    let seen = remote.head(key).await?.context("nothing there")?;
    // Some servers decode and encode: with B what came with Q.
    ensure!(in_step(&headers, &seen.headers), "{:?}", seen.headers);
    Ok(())
}

pub(super) async fn underscores_and_dots_in_metadata_names_stay<R: Remote>(remote: &R) -> Result<()> {
    come_back(
        remote,
        "headers/names",
        &with_metadata(&[("a_b", "1"), ("c.d", "2")]),
    )
    .await
}

pub(super) async fn the_time_of_an_object_is_the_time_of_its_write<R: Remote>(remote: &R) -> Result<()> {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|since| since.as_secs())
    };
    let before = now()?;
    put(remote, "headers/time", b"x").await?;
    let seen = remote.head("headers/time").await?.context("nothing there")?;
    let time = seen.last_modified.unix_seconds();
    ensure!(
        (before - 1..=now()? + 1).contains(&time),
        "written at {before}, Last-Modified {time}"
    );
    Ok(())
}

/// Replaces the headers of what is at this key; the object before and after.
async fn replace<R: Remote>(remote: &R, key: &str) -> Result<(RemoteObject, RemoteObject)> {
    let before = remote.head(key).await?.context("nothing there")?;
    let headers = with_metadata(&[("now", "replaced")]);
    let done = remote.replace_headers(key, &before, &headers).await?;
    ensure!(
        done == Replaced::Done(before.etag.clone()),
        "{done:?}, before {}",
        before.etag
    );
    let after = remote.head(key).await?.context("nothing there any more")?;
    ensure!(after.headers == headers, "{:?}", after.headers);
    Ok((before, after))
}

pub(super) async fn new_headers_keep_body_and_etag<R: Remote>(remote: &R) -> Result<()> {
    let key = "headers/replace";
    let body = Body::from_bytes(Bytes::from_static(b"body"));
    remote
        .put(
            key,
            &with_metadata(&[("was", "here")]),
            &Condition::None,
            body,
            None,
        )
        .await?;
    let (before, after) = replace(remote, key).await?;
    ensure!(
        (&after.etag, after.size) == (&before.etag, before.size),
        "{after:?}"
    );
    ensure!(
        get(remote, key).await?.as_deref() == Some(b"body"),
        "another body"
    );
    Ok(())
}

pub(super) async fn new_headers_keep_body_and_etag_of_uneven_parts<R: Remote>(remote: &R) -> Result<()> {
    const MIB: usize = 1024 * 1024;
    let key = "headers/replace-parts";
    let parts = Letters(vec![6 * MIB, 5 * MIB, 7]);
    remote
        .put_parts(key, &no_headers(), &Condition::None, &parts.specs(), &parts)
        .await?;
    let (before, after) = replace(remote, key).await?;
    ensure!(
        before.etag == parts.etag() && after.etag == before.etag,
        "{before:?} {after:?}"
    );
    ensure!(get(remote, key).await? == Some(parts.whole()), "another body");
    Ok(())
}

pub(super) async fn new_headers_of_a_key_with_odd_characters<R: Remote>(remote: &R) -> Result<()> {
    let key = "headers/odd/100% +é?#&=%2F.txt";
    put(remote, key, b"odd").await?;
    replace(remote, key).await?;
    ensure!(get(remote, key).await?.as_deref() == Some(b"odd"), "another body");
    Ok(())
}

pub(super) async fn new_headers_of_another_object_than_seen_are_refused<R: Remote>(remote: &R) -> Result<()> {
    let key = "headers/replace-changed";
    put(remote, key, b"first").await?;
    let seen = remote.head(key).await?.context("nothing there")?;
    put(remote, key, b"second").await?;
    match remote
        .replace_headers(key, &seen, &with_metadata(&[("x", "y")]))
        .await
    {
        Err(RemoteError::ConditionFailed) => {}
        other => bail!("{other:?}"),
    }
    let after = remote.head(key).await?.context("nothing there")?;
    ensure!(after.headers.metadata.is_empty(), "{:?}", after.headers);
    Ok(())
}

pub(super) async fn new_headers_of_nothing_are_refused<R: Remote>(remote: &R) -> Result<()> {
    let key = "headers/replace-nothing";
    put(remote, key, b"here").await?;
    let seen = remote.head(key).await?.context("nothing there")?;
    remote.delete(key, None).await?;
    match remote.replace_headers(key, &seen, &no_headers()).await {
        Err(RemoteError::NotFound) => Ok(()),
        other => bail!("{other:?}"),
    }
}
