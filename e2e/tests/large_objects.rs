//! Large objects: one object at the remote with its manifest beside it, and what each write costs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use bytes::Bytes;
use onespace_e2e::agent::Agent;
use onespace_e2e::expect::{
    body, etag_of_parts, hashed, hashed_manifest, is_copy, manifest_name, marked, md5_hex, source,
};
use onespace_e2e::http::Method;
use onespace_e2e::lab::Lab;
use onespace_e2e::s3::embedded::{Fault, Rule, StoredObject};
use onespace_e2e::swift::{NO_HEADERS, Segment};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Puts these bodies as segments `NAME/0`, `NAME/1`, ... into the container `segments`.
async fn segments(lab: &Lab, name: &str, bodies: &[Bytes]) -> Result<Vec<Segment>> {
    let mut made = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let object = format!("{name}/{number}");
        lab.user
            .put("segments", &object, NO_HEADERS, body.clone())
            .await?;
        made.push(Segment::whole("segments", &object));
    }
    Ok(made)
}

/// Whether object and manifest are what Swift holds now: its body for a client, its JSON as it is stored.
async fn is_large_copy(lab: &Lab, name: &str) -> Result<()> {
    let object = lab.at(&format!("p/{name}")).context("no object")?;
    let manifest = lab
        .at(&format!("p/.manifests/{}", manifest_name(name)))
        .context("no manifest")?;
    let served = lab.user.get("large", name).await?.success()?;
    let stored = lab
        .swift
        .internal("AUTH_test")
        .get("large", name)
        .await?
        .success()?;
    ensure!(object.body == served.body, "{name}: another body");
    ensure!(manifest.body == stored.body, "{name}: another manifest");
    ensure!(manifest.headers.content_type.as_deref() == Some("application/json"));
    let json: Vec<Value> = serde_json::from_slice(&manifest.body)?;
    ensure!(!json.is_empty(), "a manifest lists its segments");
    let metadata = &object.headers.metadata;
    ensure!(metadata.get("x-static-large-object").map(String::as_str) == Some("True"));
    let (etag, source) = (md5_hex(&stored.body), source("AUTH_test", "large", name));
    marked(metadata, &etag, &source)?;
    marked(&manifest.headers.metadata, &etag, &source)?;
    let names = manifest.headers.metadata.get("onespace-object-etag");
    ensure!(names == Some(&object.etag), "the manifest belongs to {names:?}");
    Ok(())
}

async fn copied(agent: &mut Agent, lab: &Lab, name: &str) -> Result<std::sync::Arc<StoredObject>> {
    agent
        .until(&format!("{name} and its manifest"), async |_| {
            Ok(is_large_copy(lab, name).await.ok())
        })
        .await?;
    lab.at(&format!("p/{name}")).context("it was there")
}

async fn lab() -> Result<Lab> {
    let lab = Lab::start().await?;
    lab.container("large").await?;
    lab.container("segments").await?;
    lab.policies.apply("large.yaml", &lab.policy("p", "large", ""))?;
    Ok(lab)
}

#[tokio::test]
async fn a_large_object_lives_changes_and_dies_with_its_manifest() -> Result<()> {
    let lab = lab().await?;
    let bodies = [body(1, 5 * MIB), body(2, 5 * MIB), body(3, 5 * MIB)];
    let made = segments(&lab, "film", &bodies).await?;
    let mut agent = lab.agent().await?;
    lab.user
        .put_slo(
            "large",
            "film",
            &[("content-type", "video/x"), ("x-object-meta-year", "1927")],
            &made,
        )
        .await?;
    let object = copied(&mut agent, &lab, "film").await?;
    let etag = etag_of_parts(bodies.iter().map(|body| &**body));
    assert_eq!(object.etag, etag);
    assert_eq!(object.parts, [5 << 20; 3]);
    assert_eq!(object.headers.content_type.as_deref(), Some("video/x"));
    assert_eq!(object.headers.metadata["year"], "1927");

    // A change of metadata keeps body, parts and ETag: the remote copies part by part.
    let before = lab.s3.counts();
    lab.user
        .post("large", "film", &[("x-object-meta-year", "1928")])
        .await?;
    agent
        .until("a change of metadata", async |_| {
            Ok(lab
                .at("p/film")
                .filter(|copy| copy.headers.metadata["year"] == "1928"))
        })
        .await?;
    let object = copied(&mut agent, &lab, "film").await?;
    assert_eq!(
        (object.etag.as_str(), object.parts.as_slice()),
        (etag.as_str(), &[5 << 20; 3][..])
    );
    let spent = lab.s3.counts().since(&before);
    assert_eq!(
        (spent.of("UploadPartCopy"), spent.of("UploadPart")),
        (3, 0),
        "{spent:?}"
    );

    // A plain object over it takes the manifest away, and a large one over that brings another.
    let manifest = format!("p/.manifests/{}", manifest_name("film"));
    lab.user.put("large", "film", NO_HEADERS, "plain now").await?;
    agent
        .until("a plain object", async |_| {
            let copy = lab.at("p/film");
            let plain = is_copy(copy.as_deref(), b"plain now", ("AUTH_test", "large", "film"));
            Ok((plain.is_ok() && lab.at(&manifest).is_none()).then_some(()))
        })
        .await?;
    let copy = lab.at("p/film").context("it is there")?;
    assert!(!copy.headers.metadata.contains_key("x-static-large-object"));
    lab.user.put_slo("large", "film", NO_HEADERS, &made[1..]).await?;
    let object = copied(&mut agent, &lab, "film").await?;
    assert_eq!(object.etag, etag_of_parts(bodies[1..].iter().map(|body| &**body)));

    // A manifest that was lost at the remote is written again at the next look.
    assert!(agent.stop().await?.success());
    lab.s3.remove("backup", &manifest);
    std::fs::remove_dir_all(lab.state())?;
    let before = lab.s3.counts();
    let mut agent = lab.agent().await?;
    copied(&mut agent, &lab, "film").await?;
    assert_eq!(
        lab.s3.counts().since(&before).of("UploadPart"),
        0,
        "the object itself was in step"
    );

    lab.user.delete("large", "film").await?;
    agent
        .until("the delete", async |_| Ok(lab.remote().is_empty().then_some(())))
        .await?;
    assert_eq!(lab.s3.unfinished_uploads(), 0);
    let report = agent
        .until_policy("everything is done", "p", |report| report.pending.rows == 0)
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}

#[tokio::test]
async fn small_segments_ranges_nested_manifests_and_inline_data_become_one_object() -> Result<()> {
    let lab = lab().await?;
    let bodies: Vec<Bytes> = (0..12).map(|seed| body(seed, MIB + 17)).collect();
    let made = segments(&lab, "s", &bodies).await?;
    let ranged = |at: usize, range: &str| Segment {
        range: Some(range.to_owned()),
        ..made[at].clone()
    };
    lab.user
        .put_slo("large", "small segments", NO_HEADERS, &made)
        .await?;
    let some = [
        ranged(0, "10-19"),
        ranged(1, "1048576-"),
        made[2].clone(),
        ranged(3, "-5"),
        ranged(0, "0-0"),
    ];
    lab.user.put_slo("large", "ranges", NO_HEADERS, &some).await?;
    let nested = [
        Segment::whole("large", "small segments"),
        made[5].clone(),
        Segment {
            range: Some("1048590-3145800".to_owned()),
            ..Segment::whole("large", "small segments")
        },
        Segment::whole("large", "ranges"),
    ];
    lab.user.put_slo("large", "nested", NO_HEADERS, &nested).await?;
    lab.user
        .put_slo(
            "large",
            "nested twice",
            NO_HEADERS,
            &[Segment::whole("large", "nested"), made[0].clone()],
        )
        .await?;
    let inline = json!([
        {"data": base64::engine::general_purpose::STANDARD.encode("before ")},
        {"path": "/segments/s/7"},
        {"data": base64::engine::general_purpose::STANDARD.encode(" after")},
    ]);
    lab.user
        .request(
            Method::PUT,
            "large/inline",
            "multipart-manifest=put",
            NO_HEADERS,
            inline.to_string(),
        )
        .await?
        .success()?;
    // 1 MiB and 17 bytes in one segment: a single small part.
    lab.user.put_slo("large", "one", NO_HEADERS, &made[..1]).await?;

    let mut agent = lab.agent().await?;
    for name in [
        "small segments",
        "ranges",
        "nested",
        "nested twice",
        "inline",
        "one",
    ] {
        copied(&mut agent, &lab, name).await?;
    }
    let joined = lab.at("p/small segments").context("it was there")?;
    assert_eq!(joined.body, bodies.concat());
    let (last, others) = joined.parts.split_last().context("it has parts")?;
    assert!(
        others.iter().all(|part| *part >= 5 << 20) && *last > 0,
        "{:?}",
        joined.parts
    );
    assert!(joined.parts.len() <= 3, "segments are joined: {:?}", joined.parts);
    let report = agent
        .until_policy("everything is done", "p", |report| {
            report.initial_pass_complete && report.pending.rows == 0
        })
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");

    // A second look finds all of them in step.
    assert!(agent.stop().await?.success());
    std::fs::remove_dir_all(lab.state())?;
    let before = lab.remote();
    let (code, log) = lab.once().await?;
    ensure!(code == 0, "{code}: {log}");
    assert_eq!(lab.remote(), before);
    assert_eq!(lab.s3.unfinished_uploads(), 0);
    Ok(())
}

#[tokio::test]
async fn a_missing_segment_holds_its_object_alone_until_it_is_back() -> Result<()> {
    let lab = lab().await?;
    let bodies = [body(1, 5 * MIB), body(2, 1000)];
    let made = segments(&lab, "s", &bodies).await?;
    lab.user.put_slo("large", "broken", NO_HEADERS, &made).await?;
    lab.user.put("large", "zz", NO_HEADERS, "behind it").await?;
    lab.user.delete("segments", "s/1").await?;
    let mut agent = lab.agent().await?;
    agent
        .until("the row behind it", async |_| Ok(lab.at("p/zz")))
        .await?;
    let report = agent
        .until_policy("the row is held", "p", |report| report.held.rows == 1)
        .await?;
    let row = &report.held.latest[0];
    assert_eq!(
        (row.object.as_str(), row.reason.as_str()),
        ("large/broken", "SegmentMismatch")
    );
    assert!(row.message.contains("segments/s/1"), "it says which: {row:?}");
    assert!(row.next_try.is_some());

    // Another body under the segment's name does not help.
    lab.user.put("segments", "s/1", NO_HEADERS, body(3, 1000)).await?;
    agent.retry("p").await?;
    agent
        .until_policy("it was tried again", "p", |held| {
            held.held
                .latest
                .first()
                .is_some_and(|now| now.attempts > row.attempts)
        })
        .await?;
    assert_eq!(lab.remote().len(), 1, "nothing half is ever there");

    lab.user
        .put("segments", "s/1", NO_HEADERS, bodies[1].clone())
        .await?;
    agent.retry("p").await?;
    copied(&mut agent, &lab, "broken").await?;
    agent
        .until_policy("nothing is held any more", "p", |report| report.held.rows == 0)
        .await?;
    assert_eq!(lab.s3.unfinished_uploads(), 0);
    Ok(())
}

#[tokio::test]
async fn each_kind_of_write_costs_what_it_should() -> Result<()> {
    let lab = lab().await?;
    lab.policies
        .apply("large.yaml", &lab.policy_to("p", "large", "", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until_policy("the container is followed", "p", |report| {
            report.remote.reachable && report.initial_pass_complete && report.databases.open == 1
        })
        .await?;
    let key = |name: &str| format!("{}/{name}", hashed("AUTH_test", "large"));
    let big = [body(1, 3 * MIB), body(2, 3 * MIB)];
    for (done, (what, name, body, remote, swift)) in (1..).zip([
        (
            "a small object",
            "small",
            Bytes::from("one"),
            "PutObject 1",
            "GET 1",
        ),
        // The first PUT is refused: that is the look.
        (
            "a small overwrite",
            "small",
            Bytes::from("two"),
            "HeadObject 1, PutObject 2",
            "GET 1",
        ),
        // Too large to be kept until the remote has answered.
        (
            "3 MiB",
            "big",
            big[0].clone(),
            "HeadObject 1, PutObject 1",
            "GET 1",
        ),
        (
            "an overwrite of 3 MiB",
            "big",
            big[1].clone(),
            "HeadObject 1, PutObject 1",
            "GET 1",
        ),
    ]) {
        let before = (lab.s3.counts(), lab.swift.internal_requests()?.len());
        lab.user.put("large", name, NO_HEADERS, body.clone()).await?;
        agent
            .until_policy(what, "p", |report| report.totals.objects == done)
            .await?;
        is_copy(lab.at(&key(name)).as_deref(), &body, ("AUTH_test", "large", name))?;
        let spent = lab.s3.counts().since(&before.0).0;
        let spent: Vec<String> = spent.iter().map(|(of, count)| format!("{of} {count}")).collect();
        assert_eq!(spent.join(", "), remote, "{what}");
        let asked: Vec<_> = lab.swift.internal_requests()?.split_off(before.1);
        assert_eq!(format!("GET {}", asked.len()), swift, "{what}: {asked:?}");
        assert!(
            asked.iter().all(|access| access.method == "GET"),
            "{what}: {asked:?}"
        );
    }
    let before = (lab.s3.counts(), lab.swift.internal_requests()?.len());
    lab.user.delete("large", "small").await?;
    agent
        .until_policy("a delete", "p", |report| report.totals.deletes == 1)
        .await?;
    assert!(lab.at(&key("small")).is_none());
    let spent = lab.s3.counts().since(&before.0).total() + lab.swift.internal_requests()?.len() as u64
        - before.1 as u64;
    assert!(spent <= 5, "a delete cost {spent} requests");

    // In the hashed namespace manifests are beside the account, not among its objects.
    let made = segments(&lab, "s", &[body(5, 100)]).await?;
    lab.user.put_slo("large", "static", NO_HEADERS, &made).await?;
    agent
        .until("a manifest in the hashed namespace", async |_| {
            Ok(lab.at(&hashed_manifest("AUTH_test", "large", "static")))
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_upload_that_a_kill_cut_off_is_aborted_by_the_next_run_and_made_anew() -> Result<()> {
    let lab = lab().await?;
    let bodies = [body(1, 5 * MIB), body(2, 5 * MIB)];
    let made = segments(&lab, "film", &bodies).await?;
    let mut agent = lab.agent().await?;
    lab.s3.faults().inject(Rule {
        operation: Some("CompleteMultipartUpload"),
        key_contains: "film".into(),
        skip: 0,
        times: 1,
        fault: Fault::Delay(Duration::from_secs(3600)),
    });
    let before = lab.s3.counts();
    lab.user.put_slo("large", "film", NO_HEADERS, &made).await?;
    agent
        .until("an upload", async |_| {
            let made = lab.s3.counts().since(&before);
            Ok((made.of("CompleteMultipartUpload") == 1).then_some(()))
        })
        .await?;
    agent.kill()?;
    ensure!(lab.s3.unfinished_uploads() == 1, "its parts are at the remote");
    let mut agent = lab.agent().await?;
    copied(&mut agent, &lab, "film").await?;
    agent
        .until("nothing left behind", async |_| {
            Ok((lab.s3.unfinished_uploads() == 0).then_some(()))
        })
        .await?;
    Ok(())
}

/// Whether the copy is what Swift serves now, with a manifest that names these segments.
async fn is_dynamic_copy(lab: &Lab, name: &str, names: &[&str]) -> Result<()> {
    let object = lab.at(&format!("p/{name}")).context("no object")?;
    let manifest = lab
        .at(&format!("p/.manifests/{}", manifest_name(name)))
        .context("no manifest")?;
    let served = lab.user.get("large", name).await?.success()?;
    ensure!(object.body == served.body, "{name}: another body");
    let etag = served
        .header("etag")
        .context("no ETag")?
        .trim_matches('"')
        .to_owned();
    let source = source("AUTH_test", "large", name);
    marked(&object.headers.metadata, &etag, &source)?;
    marked(&manifest.headers.metadata, &md5_hex(&manifest.body), &source)?;
    let of = manifest.headers.metadata.get("onespace-object-etag");
    ensure!(of == Some(&object.etag), "the manifest belongs to {of:?}");
    let json: Value = serde_json::from_slice(&manifest.body)?;
    let listed = json["segments"].as_array().context("no segments")?;
    let listed: Vec<_> = listed
        .iter()
        .filter_map(|segment| segment["name"].as_str())
        .collect();
    ensure!(listed == names, "{listed:?}");
    Ok(())
}

#[tokio::test]
async fn a_dynamic_large_object_arrives_whole_follows_its_segments_and_leaves_nothing() -> Result<()> {
    let mut lab = lab().await?;
    lab.settings.slack = "2s";
    let mut agent = lab.agent().await?;
    let bodies = [body(1, 6 * MIB), body(2, 10), body(3, 7 * MIB), body(4, 20)];
    segments(&lab, "dynamic ü", &bodies[..3]).await?;
    lab.user
        .put_dlo("large", "film", "segments", "dynamic ü/")
        .await?;
    lab.user
        .post(
            "large",
            "film",
            &[
                ("x-object-meta-year", "1927"),
                ("x-object-manifest", "segments/dynamic%20%C3%BC/"),
            ],
        )
        .await?;
    let names = ["dynamic ü/0", "dynamic ü/1", "dynamic ü/2", "dynamic ü/3"];
    agent
        .until("the object and its manifest", async |_| {
            Ok(is_dynamic_copy(&lab, "film", &names[..3]).await.ok())
        })
        .await?;
    let copy = agent
        .until("its metadata", async |_| {
            let copy = lab.at("p/film").context("it is there")?;
            Ok(copy.headers.metadata.contains_key("year").then_some(copy))
        })
        .await?;
    assert_eq!(copy.body, bodies[..3].concat());
    assert_eq!(
        copy.etag,
        etag_of_parts([&*bodies[0], [&*bodies[1], &*bodies[2]].concat().as_slice()]),
        "small segments are joined with what follows"
    );
    let points_to = &copy.headers.metadata["x-object-manifest"];
    assert!(points_to.starts_with("segments/dynamic"), "{points_to}");

    // Nothing tells of a new segment but the listing.
    lab.user
        .put("segments", names[3], NO_HEADERS, bodies[3].clone())
        .await?;
    agent
        .until("the new segment", async |_| {
            Ok(is_dynamic_copy(&lab, "film", &names).await.ok())
        })
        .await?;
    lab.user.delete("segments", names[0]).await?;
    agent
        .until("the segment that is gone", async |_| {
            Ok(is_dynamic_copy(&lab, "film", &names[1..]).await.ok())
        })
        .await?;
    assert_eq!(
        lab.at("p/film").context("it is there")?.body,
        bodies[1..].concat()
    );

    // One without segments, and one that contains itself.
    lab.user.put_dlo("large", "empty", "segments", "none/").await?;
    lab.user.put_dlo("large", "loop", "large", "loop").await?;
    for (name, names) in [("empty", &[][..]), ("loop", &["loop"][..])] {
        agent
            .until(name, async |_| Ok(is_dynamic_copy(&lab, name, names).await.ok()))
            .await?;
    }

    lab.user.put("large", "film", NO_HEADERS, "plain").await?;
    let manifest = format!("p/.manifests/{}", manifest_name("film"));
    agent
        .until("a plain object without a manifest", async |_| {
            let plain = lab.at("p/film").is_some_and(|copy| copy.body == "plain");
            Ok((plain && lab.at(&manifest).is_none()).then_some(()))
        })
        .await?;
    for name in ["film", "empty", "loop"] {
        lab.user.delete("large", name).await?;
    }
    agent
        .until("nothing", async |_| Ok(lab.remote().is_empty().then_some(())))
        .await?;
    let report = agent.until_done("p").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}
