//! The harness itself: what the other tests rely on.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use onespace_e2e::swift::{Daemon, NO_HEADERS, Options, Segment, Server, StoragePolicy, Swift};
use rusqlite::Connection;

#[tokio::test]
async fn a_real_swift_serves_users_and_counts_what_the_internal_endpoint_serves() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let user = swift.user().await.unwrap();
    user.create_container("photos", NO_HEADERS).await.unwrap();
    user.put(
        "photos",
        "a/ü?#%.jpg",
        &[("x-object-meta-city", "Köln")],
        "picture",
    )
    .await
    .unwrap();
    user.put_slo(
        "photos",
        "large",
        NO_HEADERS,
        &[Segment::whole("photos", "a/ü?#%.jpg")],
    )
    .await
    .unwrap();
    assert_eq!(user.get("photos", "large").await.unwrap().text(), "picture");

    let internal = swift.internal("AUTH_test");
    let answer = internal.get("photos", "a/ü?#%.jpg").await.unwrap();
    assert_eq!(answer.text(), "picture");
    assert!(answer.header("x-backend-data-timestamp").is_some());
    let manifest = internal.get("photos", "large").await.unwrap();
    assert!(
        manifest.text().contains("\"bytes\": 7"),
        "the manifest itself: {}",
        manifest.text()
    );
    let public = user.get("photos", "a/ü?#%.jpg").await.unwrap();
    assert_eq!(public.header("x-backend-data-timestamp"), None);

    let served = swift.internal_requests().unwrap();
    assert_eq!(
        served
            .iter()
            .filter(|access| access.method == "GET" && access.status == 200)
            .count(),
        2
    );
    assert_eq!(served[0].path, "/v1/AUTH_test/photos/a/%C3%BC%3F%23%25.jpg");

    user.delete("photos", "large").await.unwrap();
    let names: Vec<_> = user
        .list("photos")
        .await
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["a/ü?#%.jpg"]);

    swift.stop(Server::Object(0));
    assert_eq!(user.get("photos", "a/ü?#%.jpg").await.unwrap().status, 503);
    swift.start_again(Server::Object(0)).await.unwrap();
    assert_eq!(user.get("photos", "a/ü?#%.jpg").await.unwrap().status, 200);
    let folder = swift.folder().to_owned();
    drop(swift);
    assert!(!folder.exists());
}

/// Three nodes: one misses writes, comes back with what it had, and Swift's daemons bring it in step.
#[tokio::test]
async fn a_node_that_was_down_has_old_rows_and_bodies_until_the_daemons_have_run() -> anyhow::Result<()> {
    let swift = Swift::start(Options {
        policies: vec![
            StoragePolicy::replicated("gold"),
            StoragePolicy::erasure_coded("coded", 2, 2),
        ],
        ..Options::three_nodes()
    })
    .await?;
    let user = swift.user().await?;
    user.create_container("photos", NO_HEADERS).await?;
    user.create_container("coded", &[("x-storage-policy", "coded")])
        .await?;
    user.put("photos", "a", NO_HEADERS, "old").await?;
    user.put("coded", "a", NO_HEADERS, "fragments").await?;
    swift.stop_node(2);
    assert_eq!(user.get("coded", "a").await?.text(), "fragments");
    user.put("photos", "a", NO_HEADERS, "new").await?;
    user.put("photos", "b", NO_HEADERS, "b").await?;
    swift.start_node(2).await?;
    swift.stop_node(0);
    swift.stop_node(1);
    assert_eq!(user.get("photos", "a").await?.text(), "old");
    assert_ne!(user.get("photos", "b").await?.status, 200);
    swift.start_node(0).await?;
    swift.start_node(1).await?;

    // A replica that is gone is made anew by the others.
    swift.replica_on(1, "AUTH_test", "photos")?.remove()?;
    for daemon in [
        Daemon::ObjectUpdater,
        Daemon::ContainerReplicator,
        Daemon::ObjectReplicator,
    ] {
        swift
            .run_once(daemon)
            .await
            .with_context(|| format!("{daemon:?}"))?;
    }
    for daemon in [
        Daemon::ContainerUpdater,
        Daemon::ContainerAuditor,
        Daemon::ContainerSharder,
        Daemon::ContainerReconciler,
        Daemon::ObjectReconstructor,
        Daemon::ObjectAuditor,
        Daemon::ObjectExpirer,
    ] {
        swift
            .run_once_on(daemon, &[0])
            .await
            .with_context(|| format!("{daemon:?}"))?;
    }
    for node in 0..3 {
        let replica = swift.replica_on(node, "AUTH_test", "photos")?;
        let rows: Vec<(String, i64)> = Connection::open(replica.database()?)?
            .prepare("SELECT name, size FROM object ORDER BY name")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        assert_eq!(rows, [("a".to_owned(), 3), ("b".to_owned(), 1)], "node {node}");
    }
    swift.stop_node(0);
    swift.stop_node(1);
    assert_eq!(user.get("photos", "a").await?.text(), "new");
    assert_eq!(user.get("photos", "b").await?.text(), "b");
    Ok(())
}

#[tokio::test]
async fn every_server_ends_with_the_swift_that_it_belongs_to() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let servers = [swift.memcached(), swift.nodes()[0].container_server()];
    for server in &servers {
        assert!(std::net::TcpStream::connect(server).is_ok(), "{server}");
    }
    drop(swift);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for server in &servers {
        while std::net::TcpStream::connect(server).is_ok() {
            assert!(std::time::Instant::now() < deadline, "{server} is still there");
            tokio::task::yield_now().await;
        }
    }
}

/// A process that was killed leaves neither servers nor a folder behind.
#[test]
fn nothing_outlives_a_killed_parent() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_onespace-demo-swift"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| line != "# ready\n") {
        let mut line = String::new();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "it ended before it was ready: {lines:?}"
        );
        lines.push(line);
    }
    let value = |name: &str| {
        let line = lines.iter().find(|line| line.contains(name)).unwrap();
        line.split('\'').nth(1).unwrap().to_owned()
    };
    let folder = std::path::PathBuf::from(value("ONESPACE_DEVICES"))
        .parent()
        .unwrap()
        .to_owned();
    let server = value("ONESPACE_CONTAINER_SERVER");
    assert!(folder.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = output.read_to_end(&mut Vec::new());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while folder.exists() || std::net::TcpStream::connect(&server).is_ok() {
        assert!(
            std::time::Instant::now() < deadline,
            "{} or {server} is still there",
            folder.display()
        );
        std::thread::yield_now();
    }
}
