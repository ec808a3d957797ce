//! What a policy leaves alone, and what it leaves for later.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::NO_HEADERS;

#[tokio::test]
async fn exclude_and_select_decide_by_name_size_and_metadata() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    // Some of the objects are there before the policy, some come later.
    let halves = ["first", "later"];
    let put = async |half: &str| -> Result<()> {
        for (name, headers, body) in [
            ("2024/kept", &[("x-object-meta-keep", "yes")][..], "0123456789"),
            ("2024/small", &[("x-object-meta-keep", "yes")], "0"),
            (
                "2024/large",
                &[("x-object-meta-keep", "yes")],
                "0123456789012345678901",
            ),
            ("2024/unwanted", &[("x-object-meta-keep", "no")], "0123456789"),
            (
                "2024/temporary",
                &[("x-object-meta-keep", "yes"), ("x-object-meta-tmp", "1")],
                "0123456789",
            ),
            ("2024/tmp/kept", &[("x-object-meta-keep", "yes")], "0123456789"),
            ("2023/kept", &[("x-object-meta-keep", "yes")], "0123456789"),
        ] {
            let name = format!("{name}-{half}");
            lab.user.put("photos", &name, headers, body).await?;
        }
        Ok(())
    };
    put(halves[0]).await?;
    let select = "exclude: '2024/t.p/'\n\
                  select: {prefix: 2024/, minSize: 5, maxSize: 20, match: {all: [\
                  {metadata: {name: KEEP, value: \"yes\"}}, {not: {metadata: {name: Tmp, value: \"1\"}}}]}}";
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", select))?;
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    put(halves[1]).await?;
    agent
        .until("the object that is selected", async |_| {
            Ok(lab.at("photos/2024/kept-later"))
        })
        .await?;
    let report = agent
        .until_policy("both counted", "photos", |report| {
            report.totals.objects == 2 && report.pending.rows == 0
        })
        .await?;
    let keys: Vec<_> = lab.remote().into_keys().collect();
    assert_eq!(keys, ["photos/2024/kept-first", "photos/2024/kept-later"]);
    assert_eq!((report.held.rows, report.totals.objects), (0, 2), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn copy_after_waits_for_live_rows_and_not_for_deletes() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    // Written an hour ago: due at once, also under the policy that comes next.
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let hour_ago = format!(
        "{:.5}",
        hour_ago.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64()
    );
    let internal = lab.swift.internal(lab.user.account());
    for name in ["deleted-000", "deleted-001"] {
        internal
            .put("photos", name, &[("x-timestamp", &hour_ago)], name)
            .await?;
    }
    agent
        .until(
            "the copies",
            async |_| Ok((lab.remote().len() == 2).then_some(())),
        )
        .await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", "copyAfter: 10s"))?;
    agent.until_loaded(&lab.policies).await?;

    let put = Instant::now();
    lab.user.put("photos", "waits", NO_HEADERS, "waits").await?;
    lab.user.delete("photos", "deleted-000").await?;
    agent
        .until("the delete, which is behind it", async |_| {
            Ok(lab.at("photos/deleted-000").is_none().then_some(()))
        })
        .await?;
    assert!(put.elapsed() < Duration::from_secs(10), "{:?}", put.elapsed());
    assert!(lab.at("photos/waits").is_none());
    agent
        .until_policy("the row that waits is counted", "photos", |report| {
            report.pending.rows == 1
        })
        .await?;
    agent
        .until("the object", async |_| Ok(lab.at("photos/waits")))
        .await?;
    let waited = put.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(17)).contains(&waited),
        "{waited:?}"
    );

    // Deleted before it was due: it is never copied.
    lab.user.put("photos", "short-lived", NO_HEADERS, "x").await?;
    lab.user.delete("photos", "short-lived").await?;
    lab.user.put("photos", "after", NO_HEADERS, "after").await?;
    agent
        .until("what came after", async |_| Ok(lab.at("photos/after")))
        .await?;
    let report = agent.until_done("photos").await?;
    assert!(lab.at("photos/short-lived").is_none());
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}
