//! What the S3 client makes of a remote that fails, and of one that it must not reach.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use onespace_core::mapping::{Encryption, MappingId, Mode};
use onespace_core::mark::Mark;
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::remote::RemoteHeaders;
use onespace_core::timestamp::Timestamp;
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::s3::{EmbeddedS3, REGION};
use onespace_stores::body::{Body, BodyError};
use onespace_stores::egress::DenyList;
use onespace_stores::remote::{Condition, PartSource, PartSpec, Remote, RemoteError, Replaced, Stored};
use onespace_stores::s3::{Proxy, S3Config, S3Credentials, S3Remote, Timeouts};
use onespace_stores::source::SourceError;

const MIB: usize = 1024 * 1024;

fn server() -> EmbeddedS3 {
    let server = EmbeddedS3::start().unwrap();
    server.create_bucket("bucket");
    server
}

fn config(server: &EmbeddedS3) -> S3Config {
    S3Config {
        endpoint: Some(server.endpoint()),
        region: REGION.into(),
        bucket: "bucket".into(),
        path_style: true,
        request_checksums: false,
        encryption: Encryption::None,
        storage_class: None,
        ca_bundle: None,
        proxy: None,
        credentials: S3Credentials {
            access_key: server.access_key().into(),
            secret_key: server.secret_key().into(),
            session_token: None,
        },
        part_concurrency: 2,
        timeouts: Timeouts::default(),
        deny: DenyList::default(),
    }
}

fn client(server: &EmbeddedS3) -> S3Remote {
    S3Remote::new(config(server)).unwrap()
}

async fn put(remote: &S3Remote, key: &str, body: &'static str) -> Result<Stored, RemoteError> {
    let body = Body::from_bytes(Bytes::from_static(body.as_bytes()));
    remote
        .put(key, &RemoteHeaders::default(), &Condition::None, body, None)
        .await
}

fn reason<T: std::fmt::Debug>(answer: Result<T, RemoteError>) -> PauseReason {
    match answer {
        Err(RemoteError::Paused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// Three parts; counts how often one is opened.
#[derive(Default)]
struct Parts {
    opened: AtomicUsize,
}

impl Parts {
    const LENGTHS: [usize; 3] = [5 * MIB, 5 * MIB, 3];

    fn specs() -> Vec<PartSpec> {
        Self::LENGTHS
            .map(|length| PartSpec {
                length: length as u64,
                md5: None,
            })
            .to_vec()
    }

    async fn put(&self, remote: &S3Remote) -> Result<Stored, RemoteError> {
        remote
            .put_parts(
                "large",
                &RemoteHeaders::default(),
                &Condition::None,
                &Self::specs(),
                self,
            )
            .await
    }
}

impl PartSource for Parts {
    async fn open(&self, part: usize) -> Result<Body, SourceError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Body::from_bytes(Bytes::from(vec![b'p'; Self::LENGTHS[part]])))
    }
}

#[tokio::test]
async fn each_operation_takes_one_request() {
    let server = server();
    let remote = client(&server);
    put(&remote, "a", "x").await.unwrap();
    let seen = remote.head("a").await.unwrap().unwrap();
    remote.list("", None, 1000).await.unwrap();
    remote
        .replace_headers("a", &seen, &RemoteHeaders::default())
        .await
        .unwrap();
    remote.get("a", None).await.unwrap().unwrap();
    remote.delete("a", None).await.unwrap();
    let counts = server.counts();
    for operation in [
        "PutObject",
        "HeadObject",
        "ListObjectsV2",
        "CopyObject",
        "GetObject",
        "DeleteObject",
    ] {
        assert_eq!(counts.of(operation), 1, "{counts:?}");
    }
    assert_eq!(counts.total(), 6, "{counts:?}");
}

#[tokio::test]
async fn a_read_is_tried_twice_and_a_write_once() {
    let server = server();
    let remote = client(&server);
    server.faults().inject(Rule {
        times: 10,
        ..Rule::next("PutObject", Fault::answer(500, "InternalError"))
    });
    server.faults().inject(Rule {
        times: 10,
        ..Rule::next("HeadObject", Fault::answer(500, "InternalError"))
    });
    assert_eq!(reason(put(&remote, "a", "x").await), PauseReason::ServerError);
    assert_eq!(reason(remote.head("a").await), PauseReason::ServerError);
    assert_eq!(
        (server.counts().of("PutObject"), server.counts().of("HeadObject")),
        (1, 2)
    );
}

#[tokio::test]
async fn a_remote_that_asks_to_slow_down_says_for_how_long() {
    let server = server();
    let fault = Fault::Answer {
        status: 503,
        code: "SlowDown".into(),
        retry_after: Some(17),
    };
    server.faults().inject(Rule::next("PutObject", fault));
    match put(&client(&server), "a", "x").await {
        Err(RemoteError::Paused {
            reason: PauseReason::SlowDown,
            retry_after,
            code,
            ..
        }) => {
            assert_eq!(retry_after, Some(Duration::from_secs(17)));
            assert_eq!(code.as_deref(), Some("SlowDown"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = server();
    server
        .faults()
        .inject(Rule::always(Fault::answer(307, "TemporaryRedirect")));
    assert_eq!(
        reason(put(&client(&server), "a", "x").await),
        PauseReason::UnexpectedAnswer
    );
    assert_eq!(
        reason(client(&server).head("a").await),
        PauseReason::UnexpectedAnswer
    );
}

#[tokio::test]
async fn an_answer_that_is_lost_is_a_pause_though_the_object_is_there() {
    let server = server();
    server.faults().inject(Rule::next("PutObject", Fault::LoseAnswer));
    assert_eq!(
        reason(put(&client(&server), "a", "x").await),
        PauseReason::Unreachable
    );
    assert_eq!(server.objects("bucket").len(), 1);
}

#[tokio::test]
async fn a_remote_that_does_not_answer_is_a_timeout() {
    let server = server();
    let timeouts = Timeouts {
        answer: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let remote = S3Remote::new(S3Config {
        timeouts,
        ..config(&server)
    })
    .unwrap();
    server
        .faults()
        .inject(Rule::always(Fault::Delay(Duration::from_secs(600))));
    assert_eq!(reason(put(&remote, "a", "x").await), PauseReason::Timeout);
}

#[tokio::test]
async fn a_source_that_stalls_is_not_blamed_on_the_remote() {
    let server = server();
    let timeouts = Timeouts {
        idle: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let remote = S3Remote::new(S3Config {
        timeouts,
        ..config(&server)
    })
    .unwrap();
    let stalling = stream::iter([Ok(Bytes::from_static(b"12"))])
        .chain(stream::pending())
        .boxed();
    let body = Body {
        length: 4,
        stream: stalling,
    };
    let answer = remote
        .put("a", &RemoteHeaders::default(), &Condition::None, body, None)
        .await;
    assert_eq!(answer, Err(RemoteError::Body(BodyError::Stalled(timeouts.idle))));
    assert!(server.objects("bucket").is_empty());
}

#[tokio::test]
async fn a_download_that_breaks_off_is_an_error_at_its_end() {
    let server = server();
    let remote = client(&server);
    let body = Body::from_bytes(Bytes::from(vec![b'd'; MIB]));
    remote
        .put("a", &RemoteHeaders::default(), &Condition::None, body, None)
        .await
        .unwrap();
    server
        .faults()
        .inject(Rule::next("GetObject", Fault::Break { after: 1000 }));
    let (_, body) = remote.get("a", None).await.unwrap().unwrap();
    let error = body.stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(
        matches!(error, BodyError::BrokenOff { received: 1000, length, .. } if length == MIB as u64),
        "{error}"
    );
}

#[tokio::test]
async fn a_short_object_that_a_broken_connection_left_is_an_error_and_seen_by_a_head() {
    let server = server();
    let remote = client(&server);
    server
        .faults()
        .inject(Rule::next("PutObject", Fault::KeepTruncated { after: 3 }));
    assert_eq!(
        reason(put(&remote, "a", "whole body").await),
        PauseReason::Unreachable
    );
    assert_eq!(remote.head("a").await.unwrap().unwrap().size, 3);
}

#[tokio::test]
async fn a_part_that_fails_is_opened_again_and_the_others_are_not() {
    let server = server();
    server.faults().inject(Rule {
        skip: 1,
        times: 2,
        ..Rule::next("UploadPart", Fault::answer(503, "SlowDown"))
    });
    let parts = Parts::default();
    let stored = parts.put(&client(&server)).await.unwrap();
    assert_eq!(stored.etag, stored.sent_etag);
    assert_eq!(parts.opened.load(Ordering::SeqCst), 5);
    assert_eq!(server.objects("bucket")["large"].body.len(), 10 * MIB + 3);
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn a_part_that_keeps_failing_ends_the_upload_and_leaves_nothing() {
    let server = server();
    let fault = Fault::answer(503, "SlowDown");
    server.faults().inject(Rule {
        times: 100,
        ..Rule::next("UploadPart", fault)
    });
    assert_eq!(
        reason(Parts::default().put(&client(&server)).await),
        PauseReason::SlowDown
    );
    assert!(server.objects("bucket").is_empty());
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn a_part_that_is_refused_is_not_tried_again() {
    let server = server();
    server
        .faults()
        .inject(Rule::next("UploadPart", Fault::answer(403, "AccessDenied")));
    let parts = Parts::default();
    // One small part: the answer to a large one may be lost with the connection that the server closes.
    let small = [PartSpec { length: 0, md5: None }];
    let empty = Empty(&parts);
    let answer = client(&server)
        .put_parts(
            "small",
            &RemoteHeaders::default(),
            &Condition::None,
            &small,
            &empty,
        )
        .await;
    assert_eq!(reason(answer), PauseReason::AccessDenied);
    assert_eq!(parts.opened.load(Ordering::SeqCst), 1);
    assert_eq!(server.unfinished_uploads(), 0);
}

struct Empty<'a>(&'a Parts);

impl PartSource for Empty<'_> {
    async fn open(&self, _: usize) -> Result<Body, SourceError> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Body::from_bytes(Bytes::new()))
    }
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_found_to_be_done() {
    let server = server();
    server
        .faults()
        .inject(Rule::next("CompleteMultipartUpload", Fault::LoseAnswer));
    let stored = Parts::default().put(&client(&server)).await.unwrap();
    assert_eq!(stored.etag, server.objects("bucket")["large"].etag);
    assert_eq!(server.counts().of("CompleteMultipartUpload"), 1);
}

#[tokio::test]
async fn a_completion_that_fails_is_tried_again() {
    let server = server();
    server.faults().inject(Rule {
        times: 2,
        ..Rule::next("CompleteMultipartUpload", Fault::answer(500, "InternalError"))
    });
    Parts::default().put(&client(&server)).await.unwrap();
    assert_eq!(server.unfinished_uploads(), 0);
}

/// Headers with the mark of an object that was changed so many seconds after it was written.
fn changed_after(seconds: u64) -> RemoteHeaders {
    let written = Timestamp::from_unix_seconds(1_800_000_000);
    let mark = Mark {
        data_time: written,
        time: written.plus(Duration::from_secs(seconds)),
        etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
        mode: Mode::Sync,
        mapping: MappingId("0".into()),
        source: "s".into(),
        delete_at: None,
    };
    let mut headers = RemoteHeaders::default();
    mark.write(&mut headers.metadata);
    headers
}

#[tokio::test]
async fn a_completion_that_fails_is_not_taken_for_done_because_the_same_bytes_lay_there_before() {
    let server = server();
    let remote = client(&server);
    let put = async |headers: RemoteHeaders| {
        remote
            .put_parts(
                "large",
                &headers,
                &Condition::None,
                &Parts::specs(),
                &Parts::default(),
            )
            .await
    };
    let fail = || {
        server.faults().inject(Rule::next(
            "CompleteMultipartUpload",
            Fault::answer(500, "InternalError"),
        ));
    };
    put(changed_after(0)).await.unwrap();
    fail();
    put(changed_after(1)).await.unwrap();
    let found = remote.head("large").await.unwrap().unwrap();
    assert_eq!(found.headers.metadata, changed_after(1).metadata);
    fail();
    let replaced = remote
        .replace_headers("large", &found, &changed_after(2))
        .await
        .unwrap();
    assert_eq!(replaced, Replaced::Done(found.etag));
    let found = remote.head("large").await.unwrap().unwrap();
    assert_eq!(found.headers.metadata, changed_after(2).metadata);
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn an_upload_that_is_cancelled_is_aborted() {
    let server = server();
    let remote = client(&server);
    server.faults().inject(Rule {
        times: 100,
        ..Rule::next("UploadPart", Fault::Delay(Duration::from_secs(600)))
    });
    let parts = Parts::default();
    {
        let upload = parts.put(&remote);
        tokio::pin!(upload);
        while server.counts().of("UploadPart") == 0 {
            tokio::select! {
                done = &mut upload => panic!("{done:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.unfinished_uploads() > 0 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the upload is still there"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_archived_object_is_to_be_uploaded_anew() {
    let server = server();
    let glacier = S3Remote::new(S3Config {
        storage_class: Some("GLACIER".into()),
        ..config(&server)
    })
    .unwrap();
    put(&glacier, "a", "cold").await.unwrap();
    let seen = glacier.head("a").await.unwrap().unwrap();
    assert_eq!(seen.storage_class.as_deref(), Some("GLACIER"));
    let replaced = glacier
        .replace_headers("a", &seen, &RemoteHeaders::default())
        .await;
    assert_eq!(replaced, Ok(Replaced::UploadAnew));
    // The class may be unknown to whoever asks.
    let unaware = onespace_core::remote::RemoteObject {
        storage_class: None,
        ..seen
    };
    let replaced = glacier
        .replace_headers("a", &unaware, &RemoteHeaders::default())
        .await;
    assert_eq!(replaced, Ok(Replaced::UploadAnew));
}

#[tokio::test]
async fn new_headers_keep_the_storage_class_that_the_object_has() {
    let server = server();
    let rare = S3Remote::new(S3Config {
        storage_class: Some("STANDARD_IA".into()),
        ..config(&server)
    })
    .unwrap();
    put(&rare, "a", "x").await.unwrap();
    let remote = client(&server);
    let seen = remote.head("a").await.unwrap().unwrap();
    remote
        .replace_headers("a", &seen, &RemoteHeaders::default())
        .await
        .unwrap();
    assert_eq!(
        remote.head("a").await.unwrap().unwrap().storage_class.as_deref(),
        Some("STANDARD_IA")
    );
}

#[tokio::test]
async fn the_sdks_checksums_are_sent_where_they_are_wanted_and_only_there() {
    let server = server();
    let checked = S3Remote::new(S3Config {
        request_checksums: true,
        ..config(&server)
    })
    .unwrap();
    put(&checked, "with", "body").await.unwrap();
    put(&client(&server), "without", "body").await.unwrap();
    let objects = server.objects("bucket");
    assert!(objects["with"].checksummed && !objects["without"].checksummed);
    assert_eq!(objects["with"].headers.content_encoding, None);
}

#[tokio::test]
async fn a_metadata_name_that_http_cannot_carry_holds_the_object() {
    let server = server();
    let headers = RemoteHeaders {
        metadata: [("a b".to_owned(), "1".to_owned())].into(),
        ..RemoteHeaders::default()
    };
    let body = Body::from_bytes(Bytes::from_static(b"x"));
    let answer = client(&server)
        .put("a", &headers, &Condition::None, body, None)
        .await;
    assert!(
        matches!(
            answer,
            Err(RemoteError::Refused {
                reason: HoldReason::Refused,
                ..
            })
        ),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such() {
    let server = server();
    let endpoint = Some(server.endpoint().replace("http://", "https://"));
    let remote = S3Remote::new(S3Config {
        endpoint,
        ..config(&server)
    })
    .unwrap();
    assert_eq!(reason(put(&remote, "a", "x").await), PauseReason::TlsFailed);
}

#[tokio::test]
async fn a_broken_ca_bundle_is_named_as_such() {
    let server = server();
    for bundle in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let config = S3Config {
            ca_bundle: Some(bundle.into()),
            ..config(&server)
        };
        assert_eq!(
            reason(S3Remote::new(config)),
            PauseReason::TlsFailed,
            "{bundle:?}"
        );
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unreachable() {
    let server = server();
    let endpoint = Some("http://s3.onespace.invalid:9000".to_owned());
    let remote = S3Remote::new(S3Config {
        endpoint,
        ..config(&server)
    })
    .unwrap();
    assert_eq!(reason(put(&remote, "a", "x").await), PauseReason::Unreachable);
}

#[tokio::test]
async fn a_denied_address_is_never_dialled() {
    let server = server();
    let deny = DenyList::new(["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()));
    let port = server.endpoint().rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let endpoint = Some(format!("http://{host}:{port}"));
        let config = S3Config {
            endpoint,
            deny: deny.clone(),
            ..config(&server)
        };
        assert_eq!(
            reason(S3Remote::new(config)),
            PauseReason::AddressDenied,
            "{host}"
        );
    }
    for host in ["localhost", "127.1", "2130706433"] {
        let endpoint = Some(format!("http://{host}:{port}"));
        let remote = S3Remote::new(S3Config {
            endpoint: endpoint.clone(),
            deny: deny.clone(),
            ..config(&server)
        })
        .unwrap();
        assert_eq!(
            reason(put(&remote, "a", "x").await),
            PauseReason::AddressDenied,
            "{host}"
        );
        // The same without the list works: it is the list that stops it.
        let remote = S3Remote::new(S3Config {
            endpoint,
            ..config(&server)
        })
        .unwrap();
        put(&remote, "a", "x").await.unwrap();
    }
    assert_eq!(server.counts().of("PutObject"), 3);
}

#[tokio::test]
async fn a_denied_proxy_is_never_dialled() {
    let server = server();
    let deny = DenyList::new(["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()));
    let through = |url: String| S3Config {
        endpoint: Some("http://s3.example.com".into()),
        proxy: Some(Proxy { url, login: None }),
        deny: deny.clone(),
        ..config(&server)
    };
    assert_eq!(
        reason(S3Remote::new(through(server.endpoint()))),
        PauseReason::AddressDenied
    );
    let remote = S3Remote::new(through(server.endpoint().replace("127.0.0.1", "localhost"))).unwrap();
    assert_eq!(reason(put(&remote, "a", "x").await), PauseReason::AddressDenied);
    assert_eq!(server.counts().total(), 0);
}
