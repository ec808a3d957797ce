//! The harness itself: what the other tests rely on.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use onespace_e2e::swift::{Daemon, NO_HEADERS, Options, Segment, Server, Swift};

#[tokio::test]
async fn a_real_swift_serves_users_and_counts_what_the_internal_endpoint_serves() {
    let mut swift = Swift::start(Options::default()).await.unwrap();
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

    for daemon in [
        Daemon::ContainerReplicator,
        Daemon::ContainerUpdater,
        Daemon::ObjectUpdater,
        Daemon::ObjectReplicator,
        Daemon::ObjectExpirer,
    ] {
        swift.run_once(daemon).await.unwrap();
    }
    swift.stop(Server::Object(0));
    assert_eq!(user.get("photos", "a/ü?#%.jpg").await.unwrap().status, 503);
    swift.start_again(Server::Object(0)).await.unwrap();
    assert_eq!(user.get("photos", "a/ü?#%.jpg").await.unwrap().status, 200);
    let folder = swift.folder().to_owned();
    drop(swift);
    assert!(!folder.exists());
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
