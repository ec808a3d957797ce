//! Symlinks: what is copied is what a client reads through them.

use anyhow::{Context as _, Result};
use onespace_e2e::expect::{manifest_name, marked, md5_hex, source};
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::{NO_HEADERS, Segment};

/// Whether the copy of `plain/NAME` has this body and the mark of the name itself.
fn arrived(lab: &Lab, name: &str, body: &str) -> Option<()> {
    let copy = lab.at(&format!("p/{name}"))?;
    let mark = source("AUTH_test", "plain", name);
    (copy.body == body && marked(&copy.headers.metadata, &md5_hex(body.as_bytes()), &mark).is_ok())
        .then_some(())
}

#[tokio::test]
async fn links_are_copied_as_what_they_lead_to_and_dangling_ones_wait() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    lab.container("else where").await?;
    lab.user
        .put(
            "else where",
            "tärget",
            &[("content-type", "image/png"), ("x-object-meta-of", "target")],
            "one",
        )
        .await?;
    let etag = md5_hex(b"one");
    lab.user
        .put_symlink("plain", "dynamic", "else where/tärget", None)
        .await?;
    lab.user
        .put_symlink("plain", "static", "else where/tärget", Some(&etag))
        .await?;
    lab.user
        .put_symlink("plain", "chain", "plain/dynamic", None)
        .await?;
    lab.user
        .put_symlink("plain", "dangling", "else where/later", None)
        .await?;
    let large = [Segment::whole("else where", "tärget")];
    lab.user
        .put_slo("else where", "large", NO_HEADERS, &large)
        .await?;
    lab.user
        .put_symlink("plain", "to large", "else where/large", None)
        .await?;
    lab.policies.apply("plain.yaml", &lab.policy("p", "plain", ""))?;
    let mut agent = lab.agent().await?;
    for name in ["dynamic", "static", "chain"] {
        agent
            .until(name, async |_| Ok(arrived(&lab, name, "one")))
            .await?;
    }
    let copy = lab.at("p/dynamic").context("it is there")?;
    assert_eq!(copy.headers.content_type.as_deref(), Some("image/png"));
    assert_eq!(
        copy.headers.metadata.get("of").map(String::as_str),
        Some("target")
    );
    // Of a link to a large object the copy is large, and its manifest is the target's.
    let manifest = agent
        .until("the manifest of a linked object", async |_| {
            Ok(lab.at(&format!("p/.manifests/{}", manifest_name("to large"))))
        })
        .await?;
    let stored = lab.swift.internal("AUTH_test").get("else where", "large").await?;
    assert_eq!(manifest.body, stored.body);
    assert_eq!(lab.at("p/to large").context("it is there")?.body, "one");

    let report = agent
        .until_policy("the dangling link is held", "p", |report| report.held.rows == 1)
        .await?;
    let row = &report.held.latest[0];
    assert_eq!(
        (row.object.as_str(), row.reason.as_str()),
        ("plain/dangling", "SymlinkDangling")
    );
    assert!(lab.at("p/dangling").is_none());

    lab.user
        .put("else where", "later", NO_HEADERS, "here now")
        .await?;
    agent
        .until("a link whose target came later", async |_| {
            Ok(arrived(&lab, "dangling", "here now"))
        })
        .await?;
    agent
        .until_policy("nothing is held any more", "p", |report| report.held.rows == 0)
        .await?;

    // A static link names one version of its target; a new one names another.
    lab.user.put("else where", "tärget", NO_HEADERS, "two").await?;
    lab.user
        .put_symlink("plain", "static", "else where/tärget", Some(&md5_hex(b"two")))
        .await?;
    agent
        .until("a static link to the new version", async |_| {
            Ok(arrived(&lab, "static", "two"))
        })
        .await?;

    // Deleting a link deletes its copy, and nothing of the target.
    lab.user.delete("plain", "static").await?;
    lab.user.delete("plain", "chain").await?;
    agent
        .until("the links are gone", async |_| {
            Ok((lab.at("p/static").is_none() && lab.at("p/chain").is_none()).then_some(()))
        })
        .await?;
    assert_eq!(lab.remote().len(), 4);
    assert_eq!(lab.user.get("else where", "tärget").await?.text(), "two");
    Ok(())
}

#[tokio::test]
async fn of_a_versioned_container_the_visible_names_are_copied() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    lab.user
        .post_container("plain", &[("x-versions-enabled", "true")])
        .await?;
    lab.user.put("plain", "kept", NO_HEADERS, "one").await?;
    lab.user.put("plain", "deleted", NO_HEADERS, "here").await?;
    lab.policies.apply("plain.yaml", &lab.policy("p", "plain", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("the first version", async |_| Ok(arrived(&lab, "kept", "one")))
        .await?;
    agent
        .until("another name", async |_| Ok(arrived(&lab, "deleted", "here")))
        .await?;

    lab.user.put("plain", "kept", NO_HEADERS, "two").await?;
    agent
        .until("the second version", async |_| Ok(arrived(&lab, "kept", "two")))
        .await?;

    lab.user.delete("plain", "deleted").await?;
    agent
        .until("a delete", async |_| {
            Ok(lab.at("p/deleted").is_none().then_some(()))
        })
        .await?;
    lab.user.put("plain", "deleted", NO_HEADERS, "again").await?;
    agent
        .until("the name comes back", async |_| {
            Ok(arrived(&lab, "deleted", "again"))
        })
        .await?;
    assert_eq!(lab.remote().len(), 2, "versions themselves are not copied");
    let report = agent
        .until_policy("everything is done", "p", |report| report.pending.rows == 0)
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}
