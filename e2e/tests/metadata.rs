//! Headers and metadata: what a client set arrives, what S3 cannot hold is held, what changed alone is changed alone.

use anyhow::Result;
use onespace_e2e::agent::Agent;
use onespace_e2e::expect::{is_copy, marked, md5_hex, source};
use onespace_e2e::lab::Lab;
use onespace_e2e::s3::embedded::StoredHeaders;
use onespace_e2e::swift::NO_HEADERS;

/// Waits until the copy's headers are so.
async fn headers_are(
    agent: &mut Agent,
    lab: &Lab,
    what: &str,
    key: &str,
    wanted: impl Fn(&StoredHeaders) -> bool,
) -> Result<StoredHeaders> {
    agent
        .until(what, async |_| {
            Ok(lab
                .at(key)
                .filter(|copy| wanted(&copy.headers))
                .map(|copy| copy.headers.clone()))
        })
        .await
}

/// User metadata without the mark, as they lie in the bucket.
fn of_user(headers: &StoredHeaders) -> Vec<(&str, &str)> {
    headers
        .metadata
        .iter()
        .filter(|(name, _)| !name.starts_with("onespace-"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[tokio::test]
async fn what_a_client_set_arrives_and_follows_every_change() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    let expiry = "4000000000";
    let headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-encoding", "gzip"),
        ("content-disposition", "attachment; filename=\"Grüße.txt\""),
        ("cache-control", "max-age=60, no-transform"),
        ("x-delete-at", expiry),
        ("x-object-meta-Plain", "bar"),
        ("x-object-meta-Dotted.And-Dashed", "1"),
        ("x-object-meta-unicode", "Grüße aus 日本"),
        ("x-object-meta-word", "=?UTF-8?Q?x?="),
        ("x-object-meta-broken-word", "=?UTF-8?Q?x"),
        ("x-object-meta-empty", ""),
        ("x-object-meta-percent", "100%25+\"quoted\""),
        ("x-object-meta-long", &"v".repeat(256)),
    ];
    lab.user.put("plain", "full", &headers, "body").await?;
    lab.user.put("plain", "page.html", NO_HEADERS, "<p>").await?;
    lab.policies.apply("plain.yaml", &lab.policy("p", "plain", ""))?;
    let mut agent = lab.agent().await?;
    let first = headers_are(&mut agent, &lab, "the object", "p/full", |_| true).await?;
    is_copy(
        lab.at("p/full").as_deref(),
        b"body",
        ("AUTH_test", "plain", "full"),
    )?;
    assert_eq!(first.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(first.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(first.cache_control.as_deref(), Some("max-age=60, no-transform"));
    assert_eq!(
        first.metadata.get("onespace-delete-at").map(String::as_str),
        Some(expiry)
    );
    assert!(
        first
            .content_disposition
            .as_deref()
            .is_some_and(|value| value.starts_with("=?UTF-8?") && value.is_ascii()),
        "{first:?}"
    );
    // Swift itself says which of them it kept.
    let kept = lab.user.head("plain", "full").await?;
    let mut user = of_user(&first);
    user.retain(|(name, _)| !["unicode", "word"].contains(name));
    let mut expected: Vec<(&str, &str)> = kept
        .headers
        .iter()
        .filter_map(|(name, value)| {
            Some((
                name.as_str().strip_prefix("x-object-meta-")?,
                value.to_str().ok()?,
            ))
        })
        .filter(|(name, _)| !["unicode", "word"].contains(name))
        .collect();
    expected.sort_unstable();
    assert_eq!(user, expected);
    assert!(user.contains(&("plain", "bar")) && user.contains(&("dotted.and-dashed", "1")));
    // Both went out as RFC 2047, and this server decodes it: it holds what the client set.
    assert_eq!(first.metadata["unicode"], "Grüße aus 日本");
    assert_eq!(first.metadata["word"], "=?UTF-8?Q?x?=");

    let page = headers_are(&mut agent, &lab, "the page", "p/page.html", |_| true).await?;
    assert_eq!(
        page.content_type.as_deref(),
        Some("text/html"),
        "guessed by Swift"
    );

    // A POST replaces all user metadata; what else it does not name it takes away, but for the content type.
    let before = lab.s3.counts();
    lab.user
        .post(
            "plain",
            "full",
            &[("x-object-meta-only", "this"), ("content-encoding", "gzip")],
        )
        .await?;
    let second = headers_are(&mut agent, &lab, "the first change", "p/full", |headers| {
        headers.metadata.contains_key("only")
    })
    .await?;
    assert_eq!(of_user(&second), [("only", "this")]);
    assert_eq!(second.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(second.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(
        (
            second.content_disposition.as_deref(),
            second.cache_control.as_deref()
        ),
        (None, None)
    );
    assert!(!second.metadata.contains_key("onespace-delete-at"), "{second:?}");
    agent
        .until_policy("it was looked at again", "p", |report| report.totals.objects == 3)
        .await?;
    let spent = lab.s3.counts().since(&before);
    assert_eq!(
        (spent.of("HeadObject"), spent.of("CopyObject"), spent.total()),
        (2, 1, 3),
        "{spent:?}"
    );

    lab.user
        .post("plain", "full", &[("content-type", "image/png")])
        .await?;
    let third = headers_are(&mut agent, &lab, "a change of type", "p/full", |headers| {
        headers.content_type.as_deref() == Some("image/png")
    })
    .await?;
    assert!(of_user(&third).is_empty());

    // A POST that changes nothing but the time of the change.
    lab.user
        .post("plain", "full", &[("content-type", "image/png")])
        .await?;
    let fourth = headers_are(
        &mut agent,
        &lab,
        "a change of the time alone",
        "p/full",
        |headers| headers.metadata["onespace-time"] != third.metadata["onespace-time"],
    )
    .await?;
    marked(
        &fourth.metadata,
        &md5_hex(b"body"),
        &source("AUTH_test", "plain", "full"),
    )?;
    assert_eq!(
        fourth.metadata["onespace-data-time"],
        first.metadata["onespace-data-time"]
    );
    assert_eq!(
        lab.at("p/full").map(|copy| copy.body.clone()),
        Some("body".into())
    );
    let report = agent
        .until_policy("everything is done", "p", |report| report.pending.rows == 0)
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    assert_eq!(
        lab.s3.counts().since(&before).of("PutObject"),
        0,
        "no body was sent again"
    );
    Ok(())
}

#[tokio::test]
async fn metadata_that_s3_cannot_hold_wait_until_the_user_mends_them() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    lab.policies.apply("plain.yaml", &lab.policy("p", "plain", ""))?;
    let mut agent = lab.agent().await?;
    let secret = "v".repeat(250);
    let names: Vec<String> = (0..9).map(|n| format!("x-object-meta-many-{n}")).collect();
    let many: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), secret.as_str()))
        .collect();
    lab.user.put("plain", "too-much", &many, "1").await?;
    lab.user
        .put(
            "plain",
            "reserved",
            &[("x-object-meta-onespace-source", "forged")],
            "2",
        )
        .await?;
    lab.user
        .put(
            "plain",
            "looks-large",
            &[("x-object-meta-x-static-large-object", "True")],
            "3",
        )
        .await?;
    lab.user.put("plain", "zz-behind", NO_HEADERS, "4").await?;

    agent
        .until("the row behind them", async |_| Ok(lab.at("p/zz-behind")))
        .await?;
    let report = agent
        .until_policy("three rows are held", "p", |report| report.held.rows == 3)
        .await?;
    for row in &report.held.latest {
        assert_eq!(row.reason, "MetadataNotRepresentable", "{row:?}");
        assert!(
            !row.message.contains(&secret[..20]),
            "a value is nobody's business: {row:?}"
        );
        assert!(!row.message.contains("forged"), "{row:?}");
    }
    assert_eq!(lab.remote().len(), 1);

    for (name, body) in [("too-much", "1"), ("reserved", "2"), ("looks-large", "3")] {
        lab.user
            .post("plain", name, &[("x-object-meta-fine", "yes")])
            .await?;
        let key = format!("p/{name}");
        let headers = headers_are(&mut agent, &lab, name, &key, |_| true).await?;
        assert_eq!(of_user(&headers), [("fine", "yes")]);
        is_copy(
            lab.at(&key).as_deref(),
            body.as_bytes(),
            ("AUTH_test", "plain", name),
        )?;
    }
    agent
        .until_policy("nothing is held any more", "p", |report| report.held.rows == 0)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_remote_that_alters_metadata_is_named_once_and_not_posted_to_for_ever() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    lab.s3.alter_metadata_names(|name| name.replace('.', "-"));
    lab.user.put("plain", "object", NO_HEADERS, "body").await?;
    lab.policies.apply("plain.yaml", &lab.policy("p", "plain", ""))?;
    let mut agent = lab.agent().await?;
    headers_are(&mut agent, &lab, "the object", "p/object", |_| true).await?;

    lab.user
        .post("plain", "object", &[("x-object-meta-a.b", "1")])
        .await?;
    let report = agent
        .until_policy("the row is held", "p", |report| report.held.rows == 1)
        .await?;
    let row = &report.held.latest[0];
    assert_eq!(
        (row.object.as_str(), row.reason.as_str()),
        ("plain/object", "MetadataAltered")
    );
    assert_eq!(row.next_try, None, "waiting does not mend it");

    // Asked for again, it is looked at and held again, but not posted again.
    agent.retry("p").await?;
    agent
        .until_policy("it was tried again", "p", |report| {
            report.held.latest.first().is_some_and(|row| row.attempts == 2)
        })
        .await?;
    assert_eq!(lab.s3.counts().of("CopyObject"), 1);
    is_copy(
        lab.at("p/object").as_deref(),
        b"body",
        ("AUTH_test", "plain", "object"),
    )?;

    lab.user
        .post("plain", "object", &[("x-object-meta-c", "2")])
        .await?;
    agent
        .until_policy("nothing is held any more", "p", |report| report.held.rows == 0)
        .await?;
    headers_are(
        &mut agent,
        &lab,
        "metadata that stay as they are",
        "p/object",
        |headers| of_user(headers) == [("c", "2")],
    )
    .await?;
    assert_eq!(lab.s3.counts().of("CopyObject"), 2);
    Ok(())
}
