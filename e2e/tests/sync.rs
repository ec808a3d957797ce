//! The main job: a policy makes a container's objects appear in a bucket, and keeps them in step.

use anyhow::Result;
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::NO_HEADERS;

#[tokio::test]
async fn objects_appear_change_and_vanish_at_the_remote_as_they_do_in_swift() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.user
        .put("photos", "early.jpg", &[("content-type", "image/jpeg")], "early")
        .await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("an object from before the policy", async |_| {
            Ok(lab.at("photos/early.jpg"))
        })
        .await?;

    lab.user
        .put(
            "photos",
            "a.jpg",
            &[("content-type", "image/jpeg"), ("x-object-meta-place", "Köln")],
            "one",
        )
        .await?;
    let copy = agent
        .until("a new object", async |_| Ok(lab.at("photos/a.jpg")))
        .await?;
    assert_eq!(copy.body, "one");
    assert_eq!(copy.headers.content_type.as_deref(), Some("image/jpeg"));

    lab.user.put("photos", "a.jpg", NO_HEADERS, "two").await?;
    agent
        .until("an overwrite", async |_| {
            Ok(lab.at("photos/a.jpg").filter(|copy| copy.body == "two"))
        })
        .await?;

    lab.user
        .post("photos", "a.jpg", &[("x-object-meta-place", "Bonn")])
        .await?;
    agent
        .until("a change of metadata", async |_| {
            Ok(lab.at("photos/a.jpg").filter(|copy| {
                copy.headers
                    .metadata
                    .get("place")
                    .is_some_and(|place| place == "Bonn")
            }))
        })
        .await?;

    lab.user.delete("photos", "a.jpg").await?;
    agent
        .until("a delete", async |_| {
            Ok(lab.at("photos/a.jpg").is_none().then_some(()))
        })
        .await?;
    assert!(lab.at("photos/early.jpg").is_some(), "nothing else is deleted");

    let report = agent
        .until_policy("everything done", "photos", |report| report.pending.rows == 0)
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    assert!(agent.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn two_hundred_fresh_objects_cost_two_hundred_gets_and_two_hundred_puts() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until_policy("the container is followed", "photos", |report| {
            report.remote.reachable && report.initial_pass_complete && report.databases.open == 1
        })
        .await?;
    let (remote_before, swift_before) = (lab.s3.counts(), lab.swift.internal_requests()?.len());
    for number in 0..200 {
        lab.user
            .put(
                "photos",
                &format!("object-{number:03}"),
                NO_HEADERS,
                format!("body {number}"),
            )
            .await?;
    }
    agent
        .until_policy("all are copied", "photos", |report| report.totals.objects == 200)
        .await?;
    let remote = lab.s3.counts().since(&remote_before);
    let swift: Vec<_> = lab.swift.internal_requests()?.split_off(swift_before);
    assert_eq!(remote.of("PutObject"), 200, "{remote:?}");
    assert_eq!(remote.total(), 200, "{remote:?}");
    assert_eq!(swift.iter().filter(|access| access.method == "GET").count(), 200);
    assert_eq!(swift.len(), 200, "nothing but the GETs is asked of Swift's proxy");
    Ok(())
}
