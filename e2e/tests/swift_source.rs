//! The client, the rings and the database reader against a real Swift.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use futures::TryStreamExt as _;
use onespace_core::local::{MetaValue, SwiftObject};
use onespace_core::row::{Row, RowKind};
use onespace_core::timestamp::Timestamp;
use onespace_e2e::swift::{Encryption, NO_HEADERS, Options, Segment, Server, StoragePolicy, Swift, User};
use onespace_stores::body::Body;
use onespace_stores::source::{Answer, ObjectPath, Primaries, Read, Source as _, SourceError};
use onespace_stores::swift::client::{SwiftSource, Timeouts};
use onespace_stores::swift::container_db::ContainerDb;
use onespace_stores::swift::locate::{Catalogue, LocalReplica, Node, pending_size};

/// Names that break a client which does not encode them all.
const NAMES: [&str; 7] = [
    "plain",
    "ünïcode/日本",
    "//double//slash",
    "/leading",
    "trailing/",
    "q?x=1&y#frag%20%",
    "a b+c;d=e,f'\"",
];

fn source(swift: &Swift) -> SwiftSource {
    SwiftSource::new(
        &swift.internal_endpoint(),
        &swift.swift_dir(),
        Timeouts::default(),
    )
    .unwrap()
}

fn node(swift: &Swift) -> Node {
    Node::load(&swift.swift_dir(), &swift.devices(), &[]).unwrap()
}

fn path(container: &str, object: &str) -> ObjectPath {
    ObjectPath {
        account: "AUTH_test".to_owned(),
        container: container.to_owned(),
        object: object.to_owned(),
    }
}

fn found<T: std::fmt::Debug>(answer: Result<Answer<T>, SourceError>) -> T {
    match answer {
        Ok(Answer::Found(found)) => found,
        other => panic!("{other:?}"),
    }
}

async fn bytes(body: Body) -> Vec<u8> {
    let chunks: Vec<_> = body.stream.try_collect().await.unwrap();
    chunks.concat()
}

async fn commit(source: &SwiftSource, replica: &LocalReplica) {
    let LocalReplica {
        server,
        device,
        partition,
        account,
        container,
        ..
    } = replica;
    source
        .commit_pending(server, device, *partition, account, container)
        .await
        .unwrap();
}

async fn rows(source: &SwiftSource, replica: &LocalReplica) -> Vec<Row> {
    commit(source, replica).await;
    let chunk = ContainerDb::new(&replica.path).rows_after(0, 1000).unwrap();
    assert!(chunk.complete);
    assert!(chunk.rows.len() <= 1000);
    chunk
        .rows
        .into_iter()
        .map(|row| Row::parse(row.unwrap()).unwrap())
        .collect()
}

async fn container(swift: &Swift, name: &str) -> (User, SwiftSource, LocalReplica) {
    let user = swift.user().await.unwrap();
    user.create_container(name, NO_HEADERS).await.unwrap();
    let located = node(swift).container("AUTH_test", name);
    assert!(
        located.unreadable.is_empty() && located.unmounted.is_empty(),
        "{located:?}"
    );
    let [replica] = <[_; 1]>::try_from(located.replicas).unwrap();
    (user, source(swift), replica)
}

#[tokio::test]
async fn rows_appear_once_the_container_server_has_committed_them() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, replica) = container(&swift, "photos").await;
    assert_eq!((replica.index, replica.replicas), (0, 1));
    let db = ContainerDb::new(&replica.path);
    user.put("photos", "a", NO_HEADERS, "1").await.unwrap();
    assert!(pending_size(&replica.path).unwrap() > 0);
    assert_eq!(db.rows_after(0, 10).unwrap().rows, []);
    assert_eq!(db.info().unwrap().head.max_rowid, 0);

    commit(&source, &replica).await;
    assert_eq!(pending_size(&replica.path).unwrap(), 0);
    let chunk = db.rows_after(0, 10).unwrap();
    assert_eq!(
        (chunk.rows.len(), chunk.scanned_to, chunk.head.max_rowid),
        (1, 1, 1)
    );
    let info = db.info().unwrap();
    assert_eq!(
        (info.account.as_str(), info.container.as_str()),
        ("AUTH_test", "photos")
    );
    assert_eq!((info.object_count, info.bytes_used, info.policy_index), (1, 1, 0));
    assert_eq!(info.head, chunk.head);
    assert!(!info.is_deleted());

    // A change moves the name to a new, higher ROWID.
    user.post("photos", "a", &[("x-object-meta-x", "y")])
        .await
        .unwrap();
    user.delete("photos", "a").await.unwrap();
    let rows = rows(&source, &replica).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].kind.clone(), rows[0].rowid), (RowKind::Tombstone, 2));
    assert_eq!(db.row_at(1).unwrap(), None);
    assert_eq!(db.row_at(2).unwrap().as_deref(), Some("a"));
    assert_eq!(db.live_policies("a").unwrap(), [] as [i64; 0]);
    assert_eq!(db.tombstones_after(0, 10).unwrap().rows.len(), 1);
    assert_eq!(db.rows_by_name(None, 10).unwrap().rows, []);

    user.delete_container("photos").await.unwrap();
    assert!(db.info().unwrap().is_deleted());
    // Its updates can still be committed, and its tombstones be read.
    commit(&source, &replica).await;
    assert_eq!(db.rows_after(0, 10).unwrap().rows.len(), 1);
}

#[tokio::test]
async fn every_name_is_found_under_its_own_name() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, replica) = container(&swift, "ö c%").await;
    for name in NAMES {
        user.put("ö c%", name, &[("x-object-meta-name", "x")], name.to_owned())
            .await
            .unwrap();
    }
    let rows = rows(&source, &replica).await;
    let stored: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(stored, NAMES);
    for row in &rows {
        let path = path("ö c%", &row.name);
        let read = Read {
            policy_index: Some(row.policy_index),
            newest: true,
            ..Read::default()
        };
        let (object, body) = found(source.get(&path, &read).await);
        assert_eq!(bytes(body).await, row.name.as_bytes(), "{:?}", row.name);
        assert_eq!(Some(&object.etag), row.etag.as_ref());
        assert_eq!(
            (object.data_time, object.time),
            (Some(row.time.data), Some(row.time.newest()))
        );
        assert_eq!(found(source.head(&path, &read).await), object);
        assert_eq!(source.primaries(&path, 0).await.unwrap(), Primaries::SomeHave);
    }
    let db = ContainerDb::new(&replica.path);
    let mut sorted = NAMES.to_vec();
    sorted.sort_unstable();
    let mut listed = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let chunk = db.rows_by_name(after.as_deref(), 3).unwrap();
        listed.extend(chunk.rows.iter().map(|row| row.as_ref().unwrap().name.clone()));
        after = listed.last().cloned();
        if chunk.complete {
            break;
        }
        assert_eq!(chunk.rows.len(), 3);
    }
    assert_eq!(listed, sorted);
}

#[tokio::test]
async fn metadata_comes_as_it_was_set() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, _) = container(&swift, "c").await;
    let headers: [(&str, &[u8]); 7] = [
        ("x-object-meta-City", "Köln".as_bytes()),
        ("x-object-meta-raw", b"\xff\xfe"),
        ("x-object-meta-spaces", b"a  b"),
        ("content-type", b"text/plain; charset=utf-8"),
        ("content-encoding", b"gzip"),
        ("content-disposition", b"attachment; filename=x"),
        ("x-delete-at", b"4000000000"),
    ];
    user.put("c", "o", &headers, "body").await.unwrap();
    let object = found(source.head(&path("c", "o"), &Read::default()).await);
    let text = |text: &str| MetaValue::Text(text.to_owned());
    let metadata = BTreeMap::from([
        ("city".to_owned(), text("Köln")),
        ("raw".to_owned(), MetaValue::Bytes(vec![0xff, 0xfe])),
        ("spaces".to_owned(), text("a  b")),
    ]);
    assert_eq!(object.metadata, metadata);
    assert_eq!(object.content_type, "text/plain; charset=utf-8");
    assert_eq!(object.content_encoding, Some(text("gzip")));
    assert_eq!(object.content_disposition, Some(text("attachment; filename=x")));
    assert_eq!((object.delete_at, object.size), (Some(4_000_000_000), 4));

    // As many metadata as Swift allows.
    let many: Vec<_> = (0..90).map(|n| (format!("x-object-meta-{n}"), "v")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    user.put("c", "many", &many, "").await.unwrap();
    let object = found(source.head(&path("c", "many"), &Read::default()).await);
    assert_eq!(object.metadata.len(), 90);
}

#[tokio::test]
async fn ranges_are_of_one_and_the_same_body() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, _) = container(&swift, "c").await;
    user.put("c", "o", NO_HEADERS, "0123456789").await.unwrap();
    let path = path("c", "o");
    let etag = found(source.head(&path, &Read::default()).await).etag;
    let read = |range, etag: &str| Read {
        range: Some(range),
        if_match: Some(etag.to_owned()),
        ..Read::default()
    };
    let (object, body) = found(source.get(&path, &read((2, 5), &etag)).await);
    assert_eq!((object.size, body.length), (10, 4));
    assert_eq!(bytes(body).await, b"2345");
    assert_eq!(
        source.get(&path, &read((2, 5), "other")).await.map(drop_body),
        Ok(Answer::Changed)
    );
    let beyond = source.get(&path, &read((5, 20), &etag)).await;
    assert!(matches!(beyond, Err(SourceError::Mismatch { .. })), "{beyond:?}");
    let outside = source.get(&path, &read((10, 20), &etag)).await;
    assert!(
        matches!(outside, Err(SourceError::Failed { status: 416, .. })),
        "{outside:?}"
    );
}

fn drop_body(answer: Answer<(SwiftObject, Body)>) -> Answer<SwiftObject> {
    match answer {
        Answer::Found((object, _)) => Answer::Found(object),
        Answer::Absent(time) => Answer::Absent(time),
        Answer::Changed => Answer::Changed,
    }
}

#[tokio::test]
async fn manifests_and_links_are_read_themselves() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, replica) = container(&swift, "c").await;
    user.put("c", "seg/1", NO_HEADERS, "hello ").await.unwrap();
    user.put("c", "seg/2", NO_HEADERS, "world").await.unwrap();
    user.put_slo(
        "c",
        "slo",
        NO_HEADERS,
        &[Segment::whole("c", "seg/1"), Segment::whole("c", "seg/2")],
    )
    .await
    .unwrap();
    user.put_dlo("c", "dlo", "c", "seg/").await.unwrap();
    user.put_symlink("c", "link", "c/seg/1", None).await.unwrap();
    user.put_symlink("c", "dangling", "c/nothing", None)
        .await
        .unwrap();

    let (slo, body) = found(source.get(&path("c", "slo"), &Read::default()).await);
    assert!(slo.static_large_object);
    let manifest: serde_json::Value = serde_json::from_slice(&bytes(body).await).unwrap();
    assert_eq!(manifest[1]["name"], "/c/seg/2");
    let dlo = found(source.head(&path("c", "dlo"), &Read::default()).await);
    assert_eq!(dlo.object_manifest.as_deref(), Some("c/seg/"));

    let itself = Read {
        link_itself: true,
        ..Read::default()
    };
    let rows = rows(&source, &replica).await;
    let link_row = rows.iter().find(|row| row.name == "link").unwrap();
    let link = found(source.head(&path("c", "link"), &itself).await);
    assert_eq!((link.size, link.data_time), (0, Some(link_row.time.data)));
    let (_, body) = found(source.get(&path("c", "link"), &Read::default()).await);
    assert_eq!(bytes(body).await, b"hello ");
    assert!(matches!(
        source.head(&path("c", "dangling"), &Read::default()).await,
        Ok(Answer::Absent(_))
    ));
    let slo_row = rows.iter().find(|row| row.name == "slo").unwrap();
    assert_eq!(slo_row.size, 11);
    assert!(matches!(slo_row.kind, RowKind::StaticLarge { .. }));
}

#[tokio::test]
async fn a_404_tells_whether_there_is_a_tombstone() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, replica) = container(&swift, "c").await;
    user.put("c", "o", NO_HEADERS, "x").await.unwrap();
    user.delete("c", "o").await.unwrap();
    let tombstone = rows(&source, &replica).await[0].time.newest();
    let newest = Read {
        newest: true,
        ..Read::default()
    };
    assert_eq!(
        source.head(&path("c", "o"), &newest).await,
        Ok(Answer::Absent(Some(tombstone)))
    );
    assert_eq!(
        source.head(&path("c", "never"), &newest).await,
        Ok(Answer::Absent(None))
    );
    assert_eq!(source.primaries(&path("c", "o"), 0).await, Ok(Primaries::AllLack));
}

#[tokio::test]
async fn every_primary_object_server_is_asked() {
    let options = Options {
        replicas: 3.0,
        object_servers: 3,
        policies: ["gold", "silver"].map(StoragePolicy::replicated).to_vec(),
        ..Options::default()
    };
    let swift = Swift::start(options).await.unwrap();
    let user = swift.user().await.unwrap();
    user.create_container("c", &[("x-storage-policy", "silver")])
        .await
        .unwrap();
    user.put("c", "o", NO_HEADERS, "x").await.unwrap();
    let source = source(&swift);
    let (there, absent) = (path("c", "o"), path("c", "none"));
    assert_eq!(source.primaries(&there, 1).await, Ok(Primaries::SomeHave));
    assert_eq!(
        source.primaries(&there, 0).await,
        Ok(Primaries::AllLack),
        "it is in another policy"
    );
    assert_eq!(source.primaries(&absent, 1).await, Ok(Primaries::AllLack));
    assert_eq!(
        source.primaries(&absent, 7).await,
        Ok(Primaries::Unknown),
        "there is no such policy"
    );
    swift.stop(Server::Object(1));
    assert_eq!(source.primaries(&there, 1).await, Ok(Primaries::SomeHave));
    assert_eq!(source.primaries(&absent, 1).await, Ok(Primaries::Unknown));

    // Three replicas of the container, each with an index of its own, all on this node.
    let located = node(&swift).container("AUTH_test", "c");
    let mut indexes: Vec<_> = located
        .replicas
        .iter()
        .map(|replica| (replica.index, replica.replicas))
        .collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [(0, 3), (1, 3), (2, 3)]);
    let mut ids = Vec::new();
    for replica in &located.replicas {
        commit(&source, replica).await;
        let chunk = ContainerDb::new(&replica.path).rows_after(0, 10).unwrap();
        let row = chunk.rows[0].as_ref().unwrap();
        assert_eq!((row.name.as_str(), row.policy_index), ("o", 1));
        ids.push(chunk.head.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "every replica has an id of its own");
}

#[tokio::test]
async fn a_public_proxy_and_a_forgotten_keymaster_are_recognised() {
    let options = Options {
        encryption: Encryption::EndpointCannotDecrypt,
        ..Options::default()
    };
    let swift = Swift::start(options).await.unwrap();
    let (user, source, replica) = container(&swift, "c").await;
    user.put("c", "o", NO_HEADERS, "secret").await.unwrap();
    let object = found(source.head(&path("c", "o"), &Read::default()).await);
    assert!(object.undecrypted);
    assert_eq!(
        rows(&source, &replica).await[0].etag,
        None,
        "the row's etag is encrypted as well"
    );

    // Tempauth lets anyone read what the container's ACL opens, so that the public proxy does answer.
    user.post_container("c", &[("x-container-read", ".r:*")])
        .await
        .unwrap();
    let public = SwiftSource::new(&swift.public_endpoint(), &swift.swift_dir(), Timeouts::default()).unwrap();
    let object = found(public.head(&path("c", "o"), &Read::default()).await);
    assert_eq!(
        (object.data_time, object.time, object.undecrypted),
        (None, None, false)
    );
    user.post_container("c", &[("x-container-read", "")])
        .await
        .unwrap();
    let refused = public.head(&path("c", "o"), &Read::default()).await;
    assert!(matches!(&refused, Err(SourceError::Public { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_unavailable_and_a_missing_replica_is_the_objects_own_fault() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, replica) = container(&swift, "c").await;
    user.put("c", "o", NO_HEADERS, "x").await.unwrap();
    swift.stop(Server::Object(0));
    let failed = source.head(&path("c", "o"), &Read::default()).await;
    assert!(
        matches!(failed, Err(SourceError::Failed { status: 503, .. })),
        "{failed:?}"
    );
    swift.stop(Server::Internal);
    let down = source.head(&path("c", "o"), &Read::default()).await;
    assert!(
        matches!(&down, Err(SourceError::Unavailable { message, .. }) if message.contains("--internal-endpoint")),
        "{down:?}"
    );
    swift.stop(Server::Container(0));
    let LocalReplica {
        server,
        device,
        partition,
        account,
        container,
        ..
    } = &replica;
    let error = source
        .commit_pending(server, device, *partition, account, container)
        .await
        .unwrap_err();
    assert!(error.to_string().contains(server.as_str()), "{error}");
}

#[tokio::test]
async fn all_containers_of_an_account_are_found() {
    let options = Options {
        devices: 3,
        ..Options::default()
    };
    let swift = Swift::start(options).await.unwrap();
    let user = swift.user().await.unwrap();
    for name in ["one", "zwei", "três"] {
        user.create_container(name, NO_HEADERS).await.unwrap();
    }
    user.create_container("v", &[("x-versions-enabled", "true")])
        .await
        .unwrap();
    swift
        .second_user()
        .await
        .unwrap()
        .create_container("other", NO_HEADERS)
        .await
        .unwrap();
    let node = node(&swift);
    let mut known: BTreeMap<String, Catalogue> = BTreeMap::new();
    let mut containers = |account: &str| {
        let mut found = Vec::new();
        for device in node.local_devices() {
            let wanted = [account.to_owned()].into();
            let known = known.entry(device.clone()).or_default();
            let located = node.walk(&device, &wanted, known, &AtomicU64::default());
            found.extend(located.replicas.into_iter().map(|replica| replica.container));
        }
        found.sort();
        found
    };
    assert_eq!(containers("AUTH_test"), ["one", "três", "v", "zwei"]);
    user.create_container("later", NO_HEADERS).await.unwrap();
    assert_eq!(containers("AUTH_test").len(), 5);
    assert_eq!(containers("AUTH_test2").len(), 1);
    assert_eq!(
        node.servers().iter().collect::<Vec<_>>(),
        [&swift.container_server()]
    );
}

#[tokio::test]
async fn a_row_time_reads_as_swift_writes_it() {
    let swift = Swift::start(Options::default()).await.unwrap();
    let (user, source, replica) = container(&swift, "c").await;
    user.put("c", "o", NO_HEADERS, "x").await.unwrap();
    user.post("c", "o", &[("content-type", "text/new")])
        .await
        .unwrap();
    user.post("c", "o", &[("x-object-meta-a", "b")]).await.unwrap();
    let row = rows(&source, &replica).await.remove(0);
    let object = found(source.head(&path("c", "o"), &Read::default()).await);
    assert_eq!(
        (object.data_time, object.time),
        (Some(row.time.data), Some(row.time.newest()))
    );
    assert!(row.time.newest() > row.time.data);
    assert_eq!(
        (row.content_type.as_str(), object.content_type.as_str()),
        ("text/new", "text/new")
    );
    assert!(object.time.unwrap() > Timestamp::default());
}
