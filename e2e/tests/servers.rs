//! The same job at S3 servers that others wrote, with what each of them cannot do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::agent::Agent;
use onespace_e2e::expect::{body, etag_of_parts, manifest_name, marked, md5_hex, source};
use onespace_e2e::lab::{BUCKET, Keys, Lab, policy_yaml};
use onespace_e2e::s3::{Bucket, Counter, Minio, Versitygw};
use onespace_e2e::swift::{NO_HEADERS, Segment};

/// Whether the copy of `plain/NAME` has this body, its ETag and the mark of the name itself.
async fn is_copy(bucket: &Bucket, key: &str, name: &str, body: &[u8]) -> Result<()> {
    let copy = bucket.at(key).await?.context("not there")?;
    ensure!(copy.body == body, "another body");
    ensure!(copy.object.etag == md5_hex(body), "ETag {}", copy.object.etag);
    marked(
        &copy.object.headers.metadata,
        &md5_hex(body),
        &source("AUTH_test", "plain", name),
    )
}

async fn arrived(agent: &mut Agent, bucket: &Bucket, name: &str, body: &[u8]) -> Result<()> {
    let key = format!("p/{name}");
    agent
        .until(name, async |_| Ok(is_copy(bucket, &key, name, body).await.ok()))
        .await
}

/// Put, overwrite, change of metadata, delete, and a large object with all of these.
async fn lifecycle(keys: &Keys<'_>) -> Result<()> {
    let lab = Lab::start().await?;
    let bucket = Bucket::new(keys, BUCKET)?;
    lab.container("plain").await?;
    lab.container("segments").await?;
    let yaml = policy_yaml("p", (lab.user.account(), "plain"), keys, "prefix: p", "");
    lab.policies.apply("p.yaml", &yaml)?;
    lab.user.put("plain", "early é+%", NO_HEADERS, "early").await?;
    let mut agent = lab.agent().await?;
    arrived(&mut agent, &bucket, "early é+%", b"early").await?;

    let headers = [
        ("content-type", "text/x"),
        ("content-encoding", "gzip"),
        ("content-disposition", "attachment"),
        ("cache-control", "no-cache"),
        ("x-object-meta-place", "Köln"),
    ];
    lab.user.put("plain", "a", &headers, "one").await?;
    lab.user.put("plain", "empty", NO_HEADERS, "").await?;
    arrived(&mut agent, &bucket, "a", b"one").await?;
    arrived(&mut agent, &bucket, "empty", b"").await?;
    let stored = bucket.at("p/a").await?.context("it arrived")?.object.headers;
    assert_eq!(stored.content_type.as_deref(), Some("text/x"));
    assert_eq!(stored.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(stored.content_disposition.as_deref(), Some("attachment"));
    assert_eq!(stored.cache_control.as_deref(), Some("no-cache"));
    assert_eq!(stored.metadata["place"], "=?UTF-8?B?S8O2bG4=?=");

    lab.user.put("plain", "a", NO_HEADERS, "two").await?;
    arrived(&mut agent, &bucket, "a", b"two").await?;
    lab.user
        .post("plain", "a", &[("x-object-meta-place", "Bonn")])
        .await?;
    agent
        .until("a change of metadata", async |_| {
            let copy = bucket.at("p/a").await?.context("it is there")?;
            Ok((copy.object.headers.metadata.get("place").map(String::as_str) == Some("Bonn")).then_some(()))
        })
        .await?;
    is_copy(&bucket, "p/a", "a", b"two").await?;

    let bodies = [body(1, 5 << 20), body(2, 5 << 20), body(3, 12345)];
    let mut segments = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let name = number.to_string();
        lab.user.put("segments", &name, NO_HEADERS, body.clone()).await?;
        segments.push(Segment::whole("segments", &name));
    }
    lab.user.put_slo("plain", "film", NO_HEADERS, &segments).await?;
    let manifest = format!("p/.manifests/{}", manifest_name("film"));
    let written = agent
        .until("a large object", async |_| bucket.at(&manifest).await)
        .await?;
    let stored = lab.swift.internal("AUTH_test").get("plain", "film").await?;
    assert_eq!(written.body, stored.body);
    let etag = etag_of_parts(bodies.iter().map(|body| &**body));
    let film = bucket.at("p/film").await?.context("it is there")?;
    assert_eq!(film.object.etag, etag);
    assert!(film.body == bodies.concat());
    lab.user
        .post("plain", "film", &[("x-object-meta-year", "1927")])
        .await?;
    agent
        .until("a change of a large object's metadata", async |_| {
            let film = bucket.at("p/film").await?.context("it is there")?;
            Ok(film.object.headers.metadata.contains_key("year").then_some(()))
        })
        .await?;
    let film = bucket.at("p/film").await?.context("it is there")?;
    assert_eq!(film.object.etag, etag);
    assert!(film.body == bodies.concat());

    lab.user.put_dlo("plain", "dynamic", "segments", "1").await?;
    lab.user.put("segments", "10", NO_HEADERS, "more").await?;
    lab.user.put_dlo("plain", "dynamic two", "segments", "1").await?;
    let whole = [&*bodies[1], &b"more"[..]].concat();
    agent
        .until("a dynamic large object", async |_| {
            let copy = bucket.at("p/dynamic two").await?;
            Ok(copy.filter(|copy| copy.body == whole))
        })
        .await?;
    let manifest = format!("p/.manifests/{}", manifest_name("dynamic two"));
    agent
        .until("its manifest", async |_| bucket.at(&manifest).await)
        .await?;

    for name in ["a", "film", "empty", "early é+%", "dynamic", "dynamic two"] {
        lab.user.delete("plain", name).await?;
    }
    agent
        .until("all are deleted", async |_| {
            Ok(bucket.keys().await?.is_empty().then_some(()))
        })
        .await?;
    let report = agent
        .until_policy("everything is done", "p", |report| report.pending.rows == 0)
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}

#[tokio::test]
async fn at_minio_objects_appear_change_and_vanish_as_they_do_in_swift() -> Result<()> {
    let server = Minio::start().await?;
    server.create_bucket(BUCKET)?;
    lifecycle(&Keys {
        endpoint: &server.endpoint(),
        access: server.access_key(),
        secret: server.secret_key(),
    })
    .await
}

#[tokio::test]
async fn at_versitygw_objects_appear_change_and_vanish_as_they_do_in_swift() -> Result<()> {
    let server = Versitygw::start().await?;
    server.create_bucket(BUCKET)?;
    lifecycle(&Keys {
        endpoint: &server.endpoint(),
        access: server.access_key(),
        secret: server.secret_key(),
    })
    .await
}

#[tokio::test]
async fn at_minio_objects_under_a_kms_key_are_in_step_though_their_etags_are_no_md5s() -> Result<()> {
    let server = Minio::start_with_kms().await?;
    server.create_bucket(BUCKET)?;
    let keys = Keys {
        endpoint: &server.endpoint(),
        access: server.access_key(),
        secret: server.secret_key(),
    };
    let lab = Lab::start().await?;
    let bucket = Bucket::new(&keys, BUCKET)?;
    lab.container("plain").await?;
    lab.container("segments").await?;
    let policy = |target| policy_yaml("p", (lab.user.account(), "plain"), &keys, target, "");
    let encrypted = policy("prefix: p\nencryption: {type: KMS, kmsKeyID: harness}");
    lab.policies.apply("p.yaml", &encrypted)?;
    lab.user.put("plain", "small", NO_HEADERS, "small").await?;
    let bodies = [body(1, 5 << 20), body(2, 12345)];
    for (name, body) in ["0", "1"].iter().zip(&bodies) {
        lab.user.put("segments", name, NO_HEADERS, body.clone()).await?;
    }
    let segments = ["0", "1"].map(|name| Segment::whole("segments", name));
    lab.user.put_slo("plain", "film", NO_HEADERS, &segments).await?;
    let mut agent = lab.agent().await?;
    let first = agent.until_done("p").await?;
    assert_eq!((first.held.rows, first.totals.objects), (0, 2), "{first:?}");
    let small = bucket.at("p/small").await?.context("it is there")?;
    assert_eq!(small.body, b"small");
    assert_ne!(
        small.object.etag,
        md5_hex(b"small"),
        "MinIO's ETags under KMS are no md5s"
    );
    assert!(bucket.at("p/film").await?.context("it is there")?.body == bodies.concat());

    let manifest = format!("p/.manifests/{}", manifest_name("film"));
    let written = bucket.at(&manifest).await?.context("it is there")?.object;
    agent.stop().await?;

    // Looked at again by an agent that remembers nothing, and whose policy says nothing of the key, as where the
    // bucket's own default encrypts.
    std::fs::remove_dir_all(lab.state())?;
    lab.policies.apply("p.yaml", &policy("prefix: p"))?;
    let mut agent = lab.agent().await?;
    let again = agent.until_done("p").await?;
    assert_eq!((again.held.rows, again.totals.objects), (0, 2), "{again:?}");
    assert_eq!(again.totals.bytes, 0, "nothing is sent again");
    assert_eq!(
        bucket.at(&manifest).await?.context("it is there")?.object,
        written
    );
    lab.user.delete("plain", "small").await?;
    lab.user.delete("plain", "film").await?;
    agent
        .until("the deletes", async |_| {
            Ok(bucket.keys().await?.is_empty().then_some(()))
        })
        .await
}

#[tokio::test]
async fn at_minio_two_hundred_fresh_objects_cost_two_hundred_gets_and_two_hundred_puts() -> Result<()> {
    let server = Minio::start().await?;
    server.create_bucket(BUCKET)?;
    let counter = Counter::before(&server.endpoint()).await?;
    let keys = Keys {
        endpoint: &counter.endpoint(),
        access: server.access_key(),
        secret: server.secret_key(),
    };
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    let yaml = policy_yaml("p", (lab.user.account(), "plain"), &keys, "prefix: p", "");
    lab.policies.apply("p.yaml", &yaml)?;
    let mut agent = lab.agent().await?;
    agent
        .until_policy("the container is followed", "p", |report| {
            report.remote.reachable && report.initial_pass_complete && report.databases.open == 1
        })
        .await?;
    let (before, swift_before) = (counter.counts(), lab.swift.internal_requests()?.len());
    for number in 0..200 {
        let name = format!("object-{number:03}");
        lab.user
            .put("plain", &name, NO_HEADERS, format!("body {number}"))
            .await?;
    }
    agent
        .until_policy("all are copied", "p", |report| report.totals.objects == 200)
        .await?;
    let mut spent = counter.counts();
    for (method, count) in &before {
        *spent.entry(method.clone()).or_default() -= count;
    }
    spent.retain(|_, count| *count > 0);
    assert_eq!(spent, BTreeMap::from([("PUT".to_owned(), 200)]));
    let swift = lab.swift.internal_requests()?.split_off(swift_before);
    assert_eq!(swift.len(), 200);
    assert!(swift.iter().all(|access| access.method == "GET"));
    let bucket = Bucket::new(&keys, BUCKET)?;
    assert_eq!(bucket.keys().await?.len(), 200);
    is_copy(&bucket, "p/object-117", "object-117", b"body 117").await
}

#[tokio::test]
async fn names_that_a_server_folds_or_refuses_are_held_and_no_other_object_suffers() -> Result<()> {
    let (minio, versitygw) = (Minio::start().await?, Versitygw::start().await?);
    minio.create_bucket(BUCKET)?;
    versitygw.create_bucket(BUCKET)?;
    let (minio_at, versitygw_at) = (minio.endpoint(), versitygw.endpoint());
    let keys = |endpoint| Keys {
        endpoint,
        access: minio.access_key(),
        secret: minio.secret_key(),
    };
    let servers = [
        ("minio", keys(&minio_at), &["a//b", "/lead", "x/./y"][..]),
        // A file system has no body for a folder, and no folder where a file is.
        (
            "versitygw",
            keys(&versitygw_at),
            &["a//b", "/lead", "x/./y", "d/1", "t/"][..],
        ),
    ];
    let lab = Lab::start().await?;
    lab.container("plain").await?;
    let yaml = servers
        .each_ref()
        .map(|(name, keys, _)| policy_yaml(name, (lab.user.account(), "plain"), keys, "prefix: \"\"", ""));
    lab.policies.apply("servers.yaml", &yaml.join("---\n"))?;
    let mut agent = lab.agent().await?;
    let names = ["a//b", "a/b", "/lead", "lead", "x/./y", "x/y", "d", "t/"];
    for name in names {
        lab.user
            .put("plain", name, NO_HEADERS, format!("this is {name}"))
            .await?;
    }
    for (server, keys, _) in &servers {
        let bucket = Bucket::new(keys, BUCKET)?;
        agent
            .until(server, async |_| {
                Ok(is_copy(&bucket, "d", "d", b"this is d").await.ok())
            })
            .await?;
    }
    lab.user.put("plain", "d/1", NO_HEADERS, "this is d/1").await?;

    for (server, keys, refused) in &servers {
        let bucket = Bucket::new(keys, BUCKET)?;
        let report = agent
            .until_policy("every name is copied or held", server, |report| {
                report.held.rows == refused.len() as u64
                    && report.totals.objects == (names.len() + 1 - refused.len()) as u64
            })
            .await?;
        let held: BTreeSet<&str> = report.held.latest.iter().map(|row| row.object.as_str()).collect();
        let expected: BTreeSet<String> = refused.iter().map(|name| format!("plain/{name}")).collect();
        assert_eq!(held, expected.iter().map(String::as_str).collect(), "{server}");
        for row in &report.held.latest {
            assert_eq!(row.reason, "NameNotRepresentable", "{server}: {row:?}");
        }
        for name in names
            .iter()
            .chain(&["d/1"])
            .filter(|name| !refused.contains(*name))
        {
            is_copy(&bucket, name, name, format!("this is {name}").as_bytes())
                .await
                .with_context(|| format!("{server}: {name}"))?;
        }
    }

    // Deleting what was never stored removes nothing; deleting `d` leaves what is below it.
    let deleted = ["a//b", "/lead", "x/./y", "t/", "d"];
    for name in deleted {
        lab.user.delete("plain", name).await?;
    }
    for (server, keys, refused) in &servers {
        let bucket = Bucket::new(keys, BUCKET)?;
        let below = u64::from(refused.contains(&"d/1"));
        let stored = deleted.iter().filter(|name| !refused.contains(name)).count() as u64;
        agent
            .until_policy("the deletes are done", server, |report| {
                report.totals.deletes == stored && report.held.rows == below && report.pending.rows == 0
            })
            .await?;
        ensure!(bucket.at("d").await?.is_none(), "{server}");
        for name in ["a/b", "lead", "x/y"] {
            is_copy(&bucket, name, name, format!("this is {name}").as_bytes()).await?;
        }
        // What was in its way is gone: asked for again, it is copied.
        agent.retry(server).await?;
        agent
            .until(server, async |_| {
                Ok(is_copy(&bucket, "d/1", "d/1", b"this is d/1").await.ok())
            })
            .await?;
    }
    Ok(())
}
