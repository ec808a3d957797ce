//! Listings are in byte order, complete, and can be continued anywhere.

use anyhow::{Context, Result, ensure};
use onespace_stores::remote::Remote;

use super::put;

pub(super) async fn a_listing_is_in_byte_order_and_pages_without_gap<R: Remote>(remote: &R) -> Result<()> {
    let prefix = "listing/order/";
    // The order of UTF-8 bytes, which differs from the order of UTF-16 units, of letters, and of paths.
    let mut keys: Vec<String> = [
        "A",
        "a",
        "a b",
        "a!b",
        "a-b",
        "a.b",
        "a/b",
        "a0",
        "aB",
        "b",
        "é",
        "\u{FFFD}",
        "\u{1F600}",
    ]
    .map(|name| format!("{prefix}{name}x"))
    .to_vec();
    keys.sort();
    for key in &keys {
        put(remote, key, b"x").await?;
    }
    put(remote, "listing/orde", b"before the prefix").await?;
    put(remote, "listing/order0", b"after the prefix").await?;
    for limit in [1, 2, 5, keys.len(), 1000] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = remote
                .list(prefix, found.last().map(String::as_str), limit)
                .await?;
            ensure!(
                page.objects.len() <= limit,
                "{} entries, limit {limit}",
                page.objects.len()
            );
            ensure!(
                page.objects.len() == limit || !page.more,
                "a short page of {} that goes on",
                page.objects.len()
            );
            found.extend(page.objects.into_iter().map(|object| object.key));
            ensure!(found.len() <= keys.len(), "{found:?}");
            if !page.more {
                break;
            }
        }
        ensure!(found == keys, "limit {limit}: {found:?}");
    }
    Ok(())
}

pub(super) async fn a_listing_begins_after_a_key_that_is_not_there<R: Remote>(remote: &R) -> Result<()> {
    for key in ["listing/after/a", "listing/after/c"] {
        put(remote, key, b"x").await?;
    }
    for (after, expected) in [
        ("listing/after/", vec!["listing/after/a", "listing/after/c"]),
        ("listing/after/a", vec!["listing/after/c"]),
        ("listing/after/b", vec!["listing/after/c"]),
        ("listing/after/a\u{10FFFF}", vec!["listing/after/c"]),
        ("listing/after/c", vec![]),
        ("listing/b", vec![]),
    ] {
        let page = remote.list("listing/after/", Some(after), 10).await?;
        let listed: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
        ensure!(listed == expected && !page.more, "after {after:?}: {listed:?}");
    }
    Ok(())
}

pub(super) async fn a_listing_says_etag_and_size<R: Remote>(remote: &R) -> Result<()> {
    let stored = put(remote, "listing/facts/a", b"12345").await?;
    let page = remote.list("listing/facts/", None, 1).await?;
    let entry = page.objects.first().context("nothing listed")?;
    ensure!(entry.etag == stored.etag && entry.size == 5, "{entry:?}");
    let seen = remote.head("listing/facts/a").await?.context("nothing there")?;
    ensure!(
        entry.last_modified.unix_seconds() == seen.last_modified.unix_seconds(),
        "{entry:?} {seen:?}"
    );
    Ok(())
}

pub(super) async fn a_listing_of_nothing_is_empty<R: Remote>(remote: &R) -> Result<()> {
    let page = remote.list("listing/nothing/", None, 1000).await?;
    ensure!(page.objects.is_empty() && !page.more, "{page:?}");
    Ok(())
}
