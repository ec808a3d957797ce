//! Keys are any UTF-8 up to 1,024 bytes, and no two of them are the same.

use anyhow::{Result, ensure};
use onespace_stores::remote::Remote;

use super::{get, put};

/// The key holds its own body, is listed under its own name, and can be deleted.
async fn holds<R: Remote>(remote: &R, prefix: &str, key: &str) -> Result<()> {
    put(remote, key, b"at this key").await?;
    ensure!(
        get(remote, key).await?.as_deref() == Some(b"at this key"),
        "GET finds nothing"
    );
    let page = remote.list(prefix, None, 10).await?;
    let listed: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
    ensure!(listed == [key], "listed is {listed:?}");
    remote.delete(key, None).await?;
    ensure!(
        remote.head(key).await?.is_none(),
        "still there after its deletion"
    );
    Ok(())
}

pub(super) async fn a_key_with_unicode<R: Remote>(remote: &R) -> Result<()> {
    holds(remote, "keys/unicode/", "keys/unicode/日本/é/\u{1F600}").await
}

pub(super) async fn a_key_with_plus_percent_and_space<R: Remote>(remote: &R) -> Result<()> {
    holds(remote, "keys/signs/", "keys/signs/a+b %2B%/100% &<>\"'?#;=:@~").await
}

pub(super) async fn a_key_with_a_double_slash<R: Remote>(remote: &R) -> Result<()> {
    holds(remote, "keys/double/", "keys/double//slash").await
}

pub(super) async fn a_key_with_a_slash_at_its_end<R: Remote>(remote: &R) -> Result<()> {
    holds(remote, "keys/end/", "keys/end/slash/").await
}

pub(super) async fn a_key_with_a_slash_at_its_start<R: Remote>(remote: &R) -> Result<()> {
    holds(remote, "/keys-start", "/keys-start").await
}

pub(super) async fn a_key_with_dot_segments<R: Remote>(remote: &R) -> Result<()> {
    holds(remote, "keys/dots/", "keys/dots/./a/../b").await
}

pub(super) async fn a_key_of_1024_bytes_in_short_segments<R: Remote>(remote: &R) -> Result<()> {
    let mut key = String::from("keys/long/");
    while key.len() < 1024 {
        key.push(if key.len() % 100 == 99 && key.len() < 1023 {
            '/'
        } else {
            'k'
        });
    }
    holds(remote, "keys/long/", &key).await
}

pub(super) async fn a_key_with_a_segment_of_300_bytes<R: Remote>(remote: &R) -> Result<()> {
    holds(
        remote,
        "keys/segment/",
        &format!("keys/segment/{}", "s".repeat(300)),
    )
    .await
}

pub(super) async fn a_key_below_another_key<R: Remote>(remote: &R) -> Result<()> {
    put(remote, "keys/both", b"above").await?;
    put(remote, "keys/both/1", b"below").await?;
    ensure!(
        get(remote, "keys/both").await?.as_deref() == Some(b"above"),
        "the upper one is lost"
    );
    ensure!(
        get(remote, "keys/both/1").await?.as_deref() == Some(b"below"),
        "the lower one is lost"
    );
    let page = remote.list("keys/both", None, 10).await?;
    let listed: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
    ensure!(listed == ["keys/both", "keys/both/1"], "listed is {listed:?}");
    Ok(())
}
