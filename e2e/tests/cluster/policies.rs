//! Policies of several kinds, and the table that `kubectl get` shows of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::site::{NAMESPACE, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::json;

use crate::shared::{installed, list, policy};

/// The table of `kubectl get syncpol`: by name, the cells by column.
async fn table(site: &Site) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let text = site.cluster.kubectl(&["get", "syncpol", "-n", NAMESPACE]).await?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().context("no table")?.split_whitespace().collect();
    ensure!(
        head == [
            "NAME", "MODE", "SOURCE", "TARGET", "READY", "LAG", "PENDING", "FAILED", "AGE"
        ],
        "{text}"
    );
    // No cell here holds a space; one that is empty stands between two spaces alone.
    let starts: Vec<usize> = head
        .iter()
        .map(|column| text.find(column).unwrap_or_default())
        .collect();
    let cells = |line: &str| {
        let ends = starts.iter().skip(1).copied().chain([line.len()]);
        let cells = starts.iter().zip(ends).map(|(start, end)| {
            let cell = line.get(*start..end.min(line.len())).unwrap_or_default();
            cell.trim().to_owned()
        });
        head.iter()
            .map(|column| (*column).to_owned())
            .zip(cells)
            .collect()
    };
    let rows: Vec<BTreeMap<String, String>> = lines.map(cells).collect();
    Ok(rows.into_iter().map(|row| (row["NAME"].clone(), row)).collect())
}

pub async fn policies_of_every_kind_copy_what_they_say_and_kubectl_shows_how_each_stands(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let (user, other) = (site.swift.user().await?, site.swift.second_user().await?);
    for container in ["kinds", "chosen", "late", "held"] {
        user.create_container(container, NO_HEADERS).await?;
    }
    other.create_container("first", NO_HEADERS).await?;
    user.put("kinds", "before", NO_HEADERS, "there before").await?;
    user.put("late", "waits", NO_HEADERS, "an hour").await?;
    // More than S3 holds.
    let long = "x".repeat(250);
    let headers: Vec<(String, String)> = (0..10)
        .map(|number| (format!("x-object-meta-{number}"), long.clone()))
        .collect();
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    user.put("held", "heavy", &headers, "too much metadata").await?;

    let of = |name: &str, container: &str| policy(&site, (NAMESPACE, name), container);
    let (one, two) = (of("copy-one", "kinds"), of("copy-two", "kinds"));
    let (mut chosen, mut late) = (of("chosen", "chosen"), of("late", "late"));
    chosen["spec"]["exclude"] = json!("tmp/");
    chosen["spec"]["select"] =
        json!({"minSize": 3, "match": {"any": [{"metadata": {"name": "Keep", "value": "yes"}}]}});
    late["spec"]["copyAfter"] = json!("1h");
    let mut wide = of("wide", "/*");
    wide["spec"]["source"]["account"] = json!(other.account());
    if let Some(target) = wide["spec"]["target"].as_object_mut() {
        target.remove("prefix");
    }
    site.cluster
        .apply(&list(&[one, two, chosen, late, wide, of("held", "held")]))
        .await?;

    // Objects that come while the policies are there.
    site.until_arrived("copy-one/before", "there before").await?;
    user.put("kinds", "after", NO_HEADERS, "came later").await?;
    other.create_container("second", NO_HEADERS).await?;
    other
        .put("second", "new", NO_HEADERS, "in a new container")
        .await?;
    let keep = [("x-object-meta-keep", "yes")];
    user.put("chosen", "unmarked", NO_HEADERS, "long enough").await?;
    user.put("chosen", "tmp/marked", &keep, "long enough").await?;
    user.put("chosen", "short", &keep, "no").await?;
    user.put("chosen", "wanted", &keep, "long enough").await?;
    for (key, body) in [
        ("copy-one/after", "came later"),
        ("copy-two/before", "there before"),
        ("copy-two/after", "came later"),
        ("chosen/wanted", "long enough"),
    ] {
        site.until_arrived(key, body).await?;
    }
    let bucket = site.bucket()?;
    let keys = site
        .cluster
        .until("an object of the account-wide policy", async || {
            let keys = bucket.keys().await?;
            let found = keys.iter().any(|key| key.ends_with("/AUTH_test2/second/new"));
            Ok(found.then_some(keys))
        })
        .await?;
    let chosen: Vec<&String> = keys.iter().filter(|key| key.starts_with("chosen/")).collect();
    ensure!(chosen == ["chosen/wanted"], "{chosen:?}");
    ensure!(!keys.iter().any(|key| key.starts_with("late/")), "{keys:?}");

    let target = |name: &str| format!("{}/backup/{name}", site.s3_endpoint());
    let rows = site
        .cluster
        .until("the table tells so", async || {
            let rows = table(&site).await?;
            for (name, source, pending, failed) in [
                ("copy-one", "AUTH_test/kinds", "0", "0"),
                ("copy-two", "AUTH_test/kinds", "0", "0"),
                ("chosen", "AUTH_test/chosen", "0", "0"),
                ("late", "AUTH_test/late", "1", "0"),
                ("held", "AUTH_test/held", "0", "1"),
                ("wide", "AUTH_test2/*", "0", "0"),
            ] {
                let row = rows.get(name).with_context(|| format!("{name}: {rows:?}"))?;
                let shown = (
                    &*row["MODE"],
                    &*row["SOURCE"],
                    &*row["READY"],
                    &*row["PENDING"],
                    &*row["FAILED"],
                );
                ensure!(shown == ("Sync", source, "True", pending, failed), "{rows:?}");
            }
            Ok(Some(rows))
        })
        .await?;
    for name in ["copy-one", "copy-two", "chosen", "late", "held"] {
        ensure!(rows[name]["TARGET"] == target(name), "{rows:?}");
    }
    ensure!(
        rows["wide"]["TARGET"] == format!("{}/backup", site.s3_endpoint()),
        "{rows:?}"
    );
    // What waits has an age, as the policy has.
    let is_age = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    ensure!(is_age(&rows["late"]["LAG"]), "{rows:?}");
    ensure!(!is_age(&rows["copy-one"]["LAG"]), "{rows:?}");
    ensure!(rows.values().all(|row| is_age(&row["AGE"])), "{rows:?}");

    let names = ["copy-one", "copy-two", "chosen", "late", "held", "wide"];
    let delete = [&["delete", "syncpol", "-n", NAMESPACE][..], &names].concat();
    site.cluster.kubectl(&delete).await?;
    Ok(())
}
