//! Mapping files change while the agent runs: what is good is taken up, what is broken leaves the last good set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use onespace_core::report::{Report, RunState};
use onespace_e2e::agent::Agent;
use onespace_e2e::lab::{BUCKET, Keys, Lab, policy_yaml};
use onespace_e2e::s3::embedded::{EmbeddedS3, Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;
use onespace_e2e::tools::tool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[tokio::test]
async fn policies_come_change_pause_and_go_while_the_agent_runs() -> Result<()> {
    let lab = Lab::start().await?;
    for container in ["photos", "films"] {
        lab.container(container).await?;
        lab.user.put(container, "early", NO_HEADERS, "early").await?;
    }
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("the first policy's object", async |_| Ok(lab.at("photos/early")))
        .await?;

    lab.policies
        .apply("films.yaml", &lab.policy("films", "films", ""))?;
    agent
        .until("the new policy's object", async |_| Ok(lab.at("films/early")))
        .await?;

    // An exclude is added: it starts over, and sends nothing that is there.
    let before = lab.s3.counts();
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", "exclude: tmp/"))?;
    agent.until_loaded(&lab.policies).await?;
    lab.user.put("photos", "tmp/a", NO_HEADERS, "a").await?;
    lab.user.put("photos", "a", NO_HEADERS, "a").await?;
    agent.until("an object", async |_| Ok(lab.at("photos/a"))).await?;
    agent.until_done("photos").await?;
    assert!(lab.at("photos/tmp/a").is_none(), "excluded");
    let probes = 20;
    assert!(lab.s3.counts().since(&before).of("PutObject") <= 1 + probes);

    // Suspended: nothing is copied, what waits is counted; then it goes on where it was.
    let excluding = |suspend| lab.policy("photos", "photos", &format!("exclude: tmp/\nsuspend: {suspend}"));
    lab.policies.apply("photos.yaml", &excluding(true))?;
    agent
        .until_policy("suspended", "photos", |report| {
            report.state == RunState::Suspended
        })
        .await?;
    lab.user.put("photos", "b", NO_HEADERS, "b").await?;
    agent
        .until_policy("the row that waits", "photos", |report| {
            report.pending.rows == 1 && report.pending.exact
        })
        .await?;
    lab.user.put("films", "b", NO_HEADERS, "b").await?;
    agent
        .until("another policy's object", async |_| Ok(lab.at("films/b")))
        .await?;
    assert!(lab.at("photos/b").is_none());
    let sent = lab.s3.counts();
    lab.policies.apply("photos.yaml", &excluding(false))?;
    agent
        .until("the object", async |_| Ok(lab.at("photos/b")))
        .await?;
    agent.until_done("photos").await?;
    assert_eq!(lab.s3.counts().since(&sent).of("CopyObject"), 0);

    // Removed: its copies stay, nothing more is copied.
    lab.policies.remove("films.yaml")?;
    agent
        .until("the policy gone", async |agent| {
            Ok(agent.policy("films").await.is_err().then_some(()))
        })
        .await?;
    lab.user.put("films", "c", NO_HEADERS, "c").await?;
    lab.user.delete("films", "early").await?;
    lab.user.put("photos", "c", NO_HEADERS, "c").await?;
    agent.until("an object", async |_| Ok(lab.at("photos/c"))).await?;
    assert!(lab.at("films/early").is_some() && lab.at("films/c").is_none());

    // Progress that another mode made is not gone on with.
    assert!(agent.stop().await?.success());
    let made_with_archive = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); \
                             db.execute(\"UPDATE mapping SET mode = 'Archive'\"); db.commit()";
    let status = Command::new(tool("venv/bin/python")?)
        .args(["-c", made_with_archive])
        .arg(lab.state().join("state.sqlite"))
        .status()?;
    ensure!(status.success());
    let mut agent = lab.agent().await?;
    let report = agent
        .until_policy("refused", "photos", |report| report.state == RunState::Refused)
        .await?;
    assert_eq!(report.reason.as_deref(), Some("ModeChanged"), "{report:?}");
    lab.user.put("photos", "d", NO_HEADERS, "d").await?;
    let (code, log) = {
        assert!(agent.stop().await?.success());
        lab.once().await?
    };
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("made with mode Archive"), "{log}");
    assert!(lab.at("photos/d").is_none());
    Ok(())
}

#[tokio::test]
async fn a_remote_that_hangs_does_not_keep_changes_of_other_policies_waiting() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "early-", 5).await?;
    let hanging = EmbeddedS3::start()?;
    hanging.create_bucket(BUCKET);
    hanging.faults().inject(Rule {
        key_contains: "early-".into(),
        ..Rule::always(Fault::Delay(Duration::from_secs(3600)))
    });
    let policy = |more| {
        let keys = Keys {
            endpoint: &hanging.endpoint(),
            access: hanging.access_key(),
            secret: hanging.secret_key(),
        };
        policy_yaml(
            "hanging",
            (lab.user.account(), "photos"),
            &keys,
            "prefix: hanging",
            more,
        )
    };
    lab.policies.apply("hanging.yaml", &policy(""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("requests that hang", async |_| {
            Ok((hanging.counts().of("PutObject") > 6).then_some(()))
        })
        .await?;
    let started = Instant::now();
    lab.policies.apply("hanging.yaml", &policy("exclude: tmp/"))?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    agent
        .until("the other policy's objects", async |_| {
            Ok((lab.remote().len() == 5).then_some(()))
        })
        .await?;
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    agent.kill()
}

/// Waits for a report of the configuration.
async fn until_config(agent: &mut Agent, what: &str, wanted: impl Fn(&Report) -> bool) -> Result<Report> {
    agent
        .until(what, async |agent| {
            Ok(agent.report().await.ok().filter(|report| wanted(report)))
        })
        .await
}

/// The files with mappings.
fn shards(mappings: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = std::fs::read_dir(mappings)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "json") && !path.ends_with("index.json"));
    Ok(files)
}

/// Gives fields of a mapping other values, index included: files as another version of the renderer may write them.
fn rewrite(mappings: &Path, id: &str, fields: &Value) -> Result<()> {
    let index_path = mappings.join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&index_path)?)?;
    for path in shards(mappings)? {
        let number = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut content: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        for mapping in content["mappings"].as_array_mut().into_iter().flatten() {
            if mapping["id"] == json!(id) {
                for (field, value) in fields.as_object().into_iter().flatten() {
                    mapping[field] = value.clone();
                }
            }
        }
        let bytes = serde_json::to_vec(&content)?;
        index["mappings"][&number]["sha256"] = json!(hex::encode(Sha256::digest(&bytes)));
        std::fs::write(&path, bytes)?;
    }
    index["revision"] = json!(fields.to_string());
    std::fs::write(&index_path, serde_json::to_vec(&index)?)?;
    Ok(())
}

#[tokio::test]
async fn a_broken_set_is_named_with_its_remedy_and_the_last_good_one_keeps_running() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    let policy = lab.policy("photos", "photos", "");
    lab.policies.apply("photos.yaml", &policy)?;
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    let mappings = lab.policies.mappings();
    let (index, shard) = (mappings.join("index.json"), shards(&mappings)?.remove(0));
    let good = (std::fs::read(&index)?, std::fs::read(&shard)?);
    let shard_name = shard
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let other_sha = String::from_utf8(good.0.clone())?.replacen("\"sha256\": \"", "\"sha256\": \"00", 1);
    let breakages: [(&str, &Path, &[u8]); 3] = [
        ("truncated index", &index, &good.0[..good.0.len() / 2]),
        ("no JSON", &index, b"{]"),
        ("an index that means another file", &index, other_sha.as_bytes()),
    ];
    for (number, (what, path, bytes)) in breakages.into_iter().enumerate() {
        std::fs::write(path, bytes)?;
        let report = until_config(&mut agent, what, |report| report.config.error.is_some()).await?;
        let error = report.config.error.unwrap_or_default();
        let file = if number == 2 {
            shard_name.as_str()
        } else {
            "index.json"
        };
        assert!(
            error.contains(file) && error.contains("onespace render"),
            "{what}: {error}"
        );
        let (_, metrics) = agent.health("/metrics").await?;
        assert!(metrics.contains("onespace_config_broken 1"), "{what}: {metrics}");
        assert_eq!(
            agent.health("/readyz").await?.0,
            200,
            "{what}: the last good set runs"
        );
        let name = format!("after {what}");
        lab.user.put("photos", &name, NO_HEADERS, "x").await?;
        agent
            .until("an object meanwhile", async |_| {
                Ok(lab.at(&format!("photos/{name}")))
            })
            .await?;
        std::fs::write(&index, &good.0)?;
        until_config(&mut agent, "repaired", |report| report.config.error.is_none()).await?;
    }

    // A shard that ends too early: seen when the index changes, or by whoever starts.
    std::fs::write(&shard, &good.1[..good.1.len() / 2])?;
    assert!(agent.stop().await?.success());
    let mut agent = lab.unready_agent().await?;
    let report = until_config(&mut agent, "the broken shard named", |report| {
        report.config.error.is_some()
    })
    .await?;
    let error = report.config.error.unwrap_or_default();
    assert!(
        error.contains(&shard_name) && error.contains("onespace render"),
        "{error}"
    );
    assert_eq!(
        agent.health("/readyz").await?.0,
        503,
        "nothing runs, and it says so"
    );
    std::fs::write(&shard, &good.1)?;
    agent.until_done("photos").await?;
    assert_eq!(agent.health("/readyz").await?.0, 200);

    // A mapping that needs what this agent does not have is refused alone.
    lab.policies
        .apply("other.yaml", &lab.policy("other", "photos", ""))?;
    agent.until_done("other").await?;
    let id = agent.policy("photos").await?.id;
    for (change, reason) in [
        (json!({"requires": ["time-travel"]}), "FeatureUnknown"),
        (json!({"mode": "Archive"}), "FeatureUnknown"),
        (json!({"copyAfter": "soon"}), "Unparseable"),
    ] {
        rewrite(&mappings, &id, &change)?;
        let report = until_config(&mut agent, reason, |report| {
            report
                .config
                .refused
                .iter()
                .any(|refused| refused.id == id && refused.reason == reason)
        })
        .await?;
        assert_eq!(report.config.error, None, "{report:?}");
        assert!(
            report.mappings.iter().all(|mapping| mapping.id != id),
            "{report:?}"
        );
        let name = format!("while {change}");
        lab.user.put("photos", &name, NO_HEADERS, "x").await?;
        agent
            .until("the other policy's object", async |_| {
                Ok(lab.at(&format!("other/{name}")))
            })
            .await?;
        assert!(lab.at(&format!("photos/{name}")).is_none());
        lab.policies.apply("photos.yaml", &policy)?;
        until_config(&mut agent, "repaired", |report| report.config.refused.is_empty()).await?;
    }
    let report = agent.until_done("photos").await?;
    assert_eq!(report.held.rows, 0);
    assert_eq!(
        lab.remote()
            .keys()
            .filter(|key| key.starts_with("photos/"))
            .count(),
        lab.remote()
            .keys()
            .filter(|key| key.starts_with("other/"))
            .count(),
    );
    Ok(())
}
