//! The internal endpoint and the container server: what happens when they are not what they must be.

use anyhow::Result;
use onespace_core::report::RunState;
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::{Encryption, NO_HEADERS, Options, Server};

#[tokio::test]
async fn a_public_proxy_as_internal_endpoint_pauses_everything_until_it_is_replaced() -> Result<()> {
    let mut lab = Lab::start().await?;
    let internal = lab.swift.internal_endpoint();
    // One that wants a login, and one that anybody may read.
    lab.container("closed").await?;
    lab.user
        .create_container("open", &[("x-container-read", ".r:*")])
        .await?;
    for container in ["closed", "open"] {
        lab.put_many(container, "object-", 3).await?;
        let policy = lab.policy(container, container, "");
        lab.policies.apply(&format!("{container}.yaml"), &policy)?;
    }
    lab.settings.internal_endpoint = Some(lab.swift.public_endpoint());
    let mut agent = lab.agent().await?;
    for container in ["closed", "open"] {
        let report = agent.until_paused(container, "InternalEndpointRequired").await?;
        assert_eq!((report.held.rows, report.totals.objects), (0, 0), "{report:?}");
        assert!(
            report
                .message
                .as_ref()
                .is_some_and(|message| message.contains("--internal-endpoint")),
            "{report:?}"
        );
    }
    assert!(lab.remote().is_empty(), "nothing is copied");
    assert!(agent.stop().await?.success());

    lab.settings.internal_endpoint = None;
    let mut agent = lab.agent().await?;
    agent
        .until("all objects", async |_| {
            Ok((lab.remote().len() == 6).then_some(()))
        })
        .await?;
    assert!(agent.stop().await?.success());

    // Nothing listens there any more; later it does.
    lab.settings.internal_endpoint = Some(internal);
    let mut agent = lab.agent().await?;
    lab.swift.stop(Server::Internal);
    lab.user.put("open", "later", NO_HEADERS, "later").await?;
    let report = agent.until_paused("open", "SourceUnavailable").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    agent
        .until_policy("the row that waits", "open", |report| report.pending.rows == 1)
        .await?;
    lab.swift.start_again(Server::Internal).await?;
    agent
        .until("the object", async |_| Ok(lab.at("open/later")))
        .await?;
    let report = agent.until_done("open").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_starts_before_its_endpoint_waits_for_it_and_pauses_nothing() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 3).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.swift.stop(Server::Internal);
    let mut agent = lab.unready_agent().await?;
    agent
        .until("the agent says what it waits for", async |agent| {
            let (status, said) = agent.health("/readyz").await?;
            Ok((status == 503 && said.contains("--internal-endpoint")).then_some(()))
        })
        .await?;
    lab.swift.start_again(Server::Internal).await?;
    agent
        .until("all objects", async |_| {
            Ok((lab.remote().len() == 3).then_some(()))
        })
        .await?;
    agent.until_done("photos").await?;
    assert_eq!(agent.health("/readyz").await?.0, 200);
    assert!(!agent.said().contains("the mapping pauses"), "{}", agent.said());
    Ok(())
}

#[tokio::test]
async fn ciphertext_is_never_copied() -> Result<()> {
    let lab = Lab::with(Options {
        encryption: Encryption::EndpointCannotDecrypt,
        ..Options::default()
    })
    .await?;
    lab.container("photos").await?;
    lab.put_many("photos", "early-", 2).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    let report = agent.until_paused("photos", "EndpointCannotDecrypt").await?;
    assert_eq!((report.held.rows, report.totals.objects), (0, 0), "{report:?}");
    lab.put_many("photos", "late-", 2).await?;
    lab.user
        .post("photos", "early-000", &[("x-object-meta-a", "b")])
        .await?;
    agent
        .until_policy("the rows that wait", "photos", |report| report.pending.rows == 4)
        .await?;
    agent.until_paused("photos", "EndpointCannotDecrypt").await?;
    assert!(lab.remote().is_empty());
    assert!(agent.stop().await?.success());
    assert!(lab.remote().is_empty());
    Ok(())
}

#[tokio::test]
async fn an_encrypted_cluster_is_copied_in_clear_through_an_endpoint_that_decrypts() -> Result<()> {
    let lab = Lab::with(Options {
        encryption: Encryption::On,
        ..Options::default()
    })
    .await?;
    lab.container("photos").await?;
    lab.put_many("photos", "early-", 3).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("the first pass", async |_| {
            Ok((lab.remote().len() == 3).then_some(()))
        })
        .await?;
    lab.put_many("photos", "late-", 3).await?;
    agent
        .until("the followed rows", async |_| {
            Ok((lab.remote().len() == 6).then_some(()))
        })
        .await?;
    for (key, copy) in lab.remote() {
        assert_eq!(
            Some(&*copy.body),
            key.strip_prefix("photos/").map(str::as_bytes),
            "{key}"
        );
    }
    lab.user.put("photos", "late-000", NO_HEADERS, "other").await?;
    lab.user
        .post("photos", "late-001", &[("x-object-meta-a", "b")])
        .await?;
    lab.user.delete("photos", "late-002").await?;
    agent
        .until("every change", async |_| {
            let overwritten = lab.at("photos/late-000").is_some_and(|copy| copy.body == "other");
            let posted = lab
                .at("photos/late-001")
                .is_some_and(|copy| copy.headers.metadata.contains_key("a"));
            Ok((overwritten && posted && lab.at("photos/late-002").is_none()).then_some(()))
        })
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    assert!(agent.stop().await?.success());

    // Learned anew: rows carry ETags of ciphertext, and still no body is sent again.
    std::fs::remove_dir_all(lab.state())?;
    let bodies = lab.remote();
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    let unchanged = lab.remote().iter().all(|(key, copy)| {
        bodies
            .get(key)
            .is_some_and(|before| before.last_modified == copy.last_modified)
    });
    assert!(unchanged, "nothing was sent again");
    Ok(())
}

#[tokio::test]
async fn a_container_server_that_is_down_is_seen_and_what_it_kept_back_arrives_later() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    lab.user.put("photos", "early", NO_HEADERS, "early").await?;
    agent
        .until("an object", async |_| Ok(lab.at("photos/early")))
        .await?;
    agent.until_done("photos").await?;

    // The update lies in the pending file, and nobody merges it.
    assert!(agent.stop().await?.success());
    lab.user.put("photos", "late", NO_HEADERS, "late").await?;
    lab.swift.stop(Server::Container(0));
    let mut agent = lab.agent().await?;
    let report = agent
        .until_policy("the database named unreadable", "photos", |report| {
            report.databases.unreadable == 1
        })
        .await?;
    assert!(!report.initial_pass_complete, "{report:?}");
    assert!(lab.at("photos/late").is_none());
    let (_, metrics) = agent.health("/metrics").await?;
    assert!(
        metrics.contains(r#"onespace_databases_unreadable{name="photos",namespace="swift"} 1"#),
        "{metrics}"
    );
    lab.swift.start_again(Server::Container(0)).await?;
    agent
        .until("the object", async |_| Ok(lab.at("photos/late")))
        .await?;
    agent.until_done("photos").await?;

    // It goes down under a running agent, which must neither spin nor keep quiet.
    lab.user.put("photos", "later", NO_HEADERS, "later").await?;
    lab.swift.stop(Server::Container(0));
    let before = cpu_seconds(agent.pid())?;
    let seen = agent
        .until("the object, or the trouble", async |agent| {
            let copied = lab.at("photos/later").is_some();
            let unreadable = agent.policy("photos").await?.databases.unreadable == 1;
            Ok((copied || unreadable).then_some(copied))
        })
        .await?;
    if !seen {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(
            agent.policy("photos").await?.databases.unreadable,
            1,
            "it stays visible"
        );
        let spent = cpu_seconds(agent.pid())? - before;
        assert!(spent < 1.5, "{spent} s of work for nothing");
    }
    lab.swift.start_again(Server::Container(0)).await?;
    agent
        .until("the object", async |_| Ok(lab.at("photos/later")))
        .await?;
    let report = agent
        .until_policy("all well", "photos", |report| report.databases.unreadable == 0)
        .await?;
    assert_eq!(
        (report.held.rows, report.state),
        (0, RunState::Running),
        "{report:?}"
    );
    Ok(())
}

/// What a process has computed so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

#[tokio::test]
async fn a_denied_network_is_never_dialled() -> Result<()> {
    let mut lab = Lab::start().await?;
    lab.settings.deny_remote = vec!["127.0.0.0/8"];
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 2).await?;
    // An address is refused as soon as it is read, a name when it turns out to mean such an address.
    let address = lab.policy("address", "photos", "");
    let name = lab.policy("name", "photos", "").replace("127.0.0.1", "localhost");
    lab.policies.apply("address.yaml", &address)?;
    lab.policies.apply("name.yaml", &name)?;
    let mut agent = lab.agent().await?;
    let report = agent.until_paused("name", "AddressDenied").await?;
    assert_eq!((report.held.rows, report.totals.objects), (0, 0), "{report:?}");
    let refused = agent.report().await?.config.refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].reason, "AddressDenied");
    assert!(refused[0].message.contains("--deny-remote"), "{refused:?}");
    assert_eq!(lab.s3.counts().total(), 0, "no request reached it");
    assert!(lab.remote().is_empty());
    Ok(())
}
