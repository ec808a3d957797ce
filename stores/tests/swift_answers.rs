//! What the client makes of answers that a healthy Swift does not give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use futures::TryStreamExt as _;
use onespace_stores::body::BodyError;
use onespace_stores::source::{Answer, ObjectPath, Read, Source as _, SourceError};
use onespace_stores::swift::client::{SwiftSource, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const WHOLE: &str = "HTTP/1.1 200 OK\r\nETag: abc\r\nContent-Length: 6\r\n";

/// After the scripted bytes the server closes the connection, or keeps silent.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Silence,
}

/// A client of a server that answers every request with these bytes.
async fn answering(bytes: impl Into<Vec<u8>>, then: Then) -> SwiftSource {
    let bytes = bytes.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(&bytes).await.unwrap();
            match then {
                Then::Close => drop(stream),
                Then::Silence => silent.push(stream),
            }
        }
    });
    client(&format!("http://{address}"))
}

fn client(endpoint: &str) -> SwiftSource {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("swift.conf"),
        "[swift-hash]\nswift_hash_path_suffix = x\n",
    )
    .unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        answer: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        direct: Duration::from_secs(1),
    };
    SwiftSource::new(endpoint, dir.path(), timeouts).unwrap()
}

fn object() -> ObjectPath {
    ObjectPath {
        account: "AUTH_test".to_owned(),
        container: "c".to_owned(),
        object: "o".to_owned(),
    }
}

async fn body(source: &SwiftSource, read: &Read) -> Result<Vec<u8>, BodyError> {
    match source.get(&object(), read).await {
        Ok(Answer::Found((_, body))) => Ok(body.stream.try_collect::<Vec<_>>().await?.concat()),
        other => panic!("{other:?}"),
    }
}

async fn head(answer: impl Into<Vec<u8>>, then: Then) -> SourceError {
    answering(answer, then)
        .await
        .head(&object(), &Read::default())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_shorter_object() {
    let source = answering(format!("{WHOLE}\r\nabc"), Then::Close).await;
    let broken = body(&source, &Read::default()).await;
    assert!(
        matches!(
            broken,
            Err(BodyError::BrokenOff {
                received: 3,
                length: 6,
                ..
            })
        ),
        "{broken:?}"
    );
    let source = answering(format!("{WHOLE}\r\nabcdef"), Then::Close).await;
    assert_eq!(body(&source, &Read::default()).await.unwrap(), b"abcdef");
}

#[tokio::test]
async fn a_body_that_stalls_ends() {
    let source = answering(format!("{WHOLE}\r\nabc"), Then::Silence).await;
    assert_eq!(
        body(&source, &Read::default()).await,
        Err(BodyError::Stalled(Duration::from_millis(300)))
    );
}

#[tokio::test]
async fn a_metadata_name_that_http_does_not_allow_is_the_objects_own_fault() {
    let error = head(format!("{WHOLE}X-Object-Meta-B\u{e4}r: x\r\n\r\n"), Then::Close).await;
    assert!(matches!(&error, SourceError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("AUTH_test/c/o"), "{error}");
}

#[tokio::test]
async fn an_answer_without_an_etag_or_with_a_strange_time_is_the_objects_own_fault() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-Backend-Timestamp: soon\r\n\r\n",
    ] {
        let error = head(answer, Then::Close).await;
        assert!(matches!(&error, SourceError::Unreadable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn redirects_silence_and_closed_ports_make_the_endpoint_unusable_and_a_login_shows_a_public_proxy() {
    let answers = [
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
            "redirect",
        ),
        ("", "--internal-endpoint"),
    ];
    for (answer, expected) in answers {
        for then in [Then::Close, Then::Silence] {
            let error = head(answer, then).await;
            assert!(matches!(&error, SourceError::Unavailable { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let error = head(answer, Then::Close).await;
        assert!(matches!(&error, SourceError::Public { .. }), "{error:?}");
        assert!(error.to_string().contains("--internal-endpoint"), "{error}");
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = client(&format!("http://{closed}"))
        .head(&object(), &Read::default())
        .await
        .unwrap_err();
    assert!(matches!(&error, SourceError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn another_range_than_asked_for_is_refused() {
    let read = Read {
        range: Some((0, 2)),
        ..Read::default()
    };
    let whole = answering(format!("{WHOLE}\r\nabcdef"), Then::Close).await;
    assert!(matches!(
        whole.get(&object(), &read).await,
        Err(SourceError::Unreadable { .. })
    ));
    let part = |range: &str, length: u8| {
        format!(
            "HTTP/1.1 206 Partial Content\r\nETag: abc\r\nContent-Range: bytes {range}\r\nContent-Length: {length}\r\n\r\nabc"
        )
    };
    let right = answering(part("0-2/6", 3), Then::Close).await;
    assert_eq!(body(&right, &read).await.unwrap(), b"abc");
    let other = answering(part("1-3/6", 3), Then::Close).await;
    assert!(matches!(
        other.get(&object(), &read).await,
        Err(SourceError::Mismatch { .. })
    ));
    for contradiction in [part("0-2/6", 4), part("none", 3)] {
        let source = answering(contradiction, Then::Close).await;
        assert!(matches!(
            source.get(&object(), &read).await,
            Err(SourceError::Unreadable { .. })
        ));
    }
}

#[tokio::test]
async fn a_failure_of_one_object_keeps_its_status() {
    for status in [409_u16, 500, 503, 507] {
        let error = head(
            format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
            Then::Close,
        )
        .await;
        assert!(
            matches!(error, SourceError::Failed { status: found, .. } if found == status),
            "{error:?}"
        );
    }
}
