//! The conformance suite over every S3 server that we test with, and what each is known to do differently.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;

use onespace_core::mapping::Encryption;
use onespace_e2e::conformance::{Subject, run};
use onespace_e2e::s3::{EmbeddedS3, Minio, REGION, Versitygw};
use onespace_stores::egress::DenyList;
use onespace_stores::remote::{Capabilities, Remote};
use onespace_stores::s3::{S3Config, S3Credentials, S3Remote, Timeouts};

fn config(endpoint: &str, access_key: &str, secret_key: &str) -> S3Config {
    S3Config {
        endpoint: Some(endpoint.to_owned()),
        region: REGION.into(),
        bucket: "conformance".into(),
        path_style: true,
        request_checksums: false,
        encryption: Encryption::None,
        storage_class: None,
        ca_bundle: None,
        proxy: None,
        credentials: S3Credentials {
            access_key: access_key.to_owned(),
            secret_key: secret_key.into(),
            session_token: None,
        },
        part_concurrency: 2,
        timeouts: Timeouts::default(),
        deny: DenyList::default(),
    }
}

fn subject(config: &S3Config) -> Subject<S3Remote> {
    let closed = onespace_e2e::ports::free_port().unwrap();
    let remote = |change: &dyn Fn(&mut S3Config)| {
        let mut config = config.clone();
        change(&mut config);
        S3Remote::new(config).unwrap()
    };
    Subject {
        remote: remote(&|_| {}),
        wrong_secret: remote(&|config| config.credentials.secret_key = "another secret".into()),
        missing_bucket: remote(&|config| config.bucket = "no-such-bucket".into()),
        unreachable: remote(&|config| config.endpoint = Some(format!("http://127.0.0.1:{closed}"))),
    }
}

/// Exactly the known deviations fail, and the probe finds exactly these capabilities.
async fn conforms_but_for(server: &str, config: &S3Config, deviations: &[&str], capabilities: Capabilities) {
    let subject = subject(config);
    let outcomes = run(&subject).await;
    let mut failed = BTreeSet::new();
    for (check, outcome) in &outcomes {
        if let Err(error) = outcome {
            println!("{server}: {check}: {error:#}");
            failed.insert(*check);
        }
    }
    let known: BTreeSet<&str> = deviations.iter().copied().collect();
    let unknown: Vec<_> = known
        .iter()
        .filter(|check| !outcomes.contains_key(**check))
        .collect();
    assert!(unknown.is_empty(), "{server}: no such checks: {unknown:?}");
    assert_eq!(
        failed, known,
        "{server}: failed checks (left) are not the known deviations (right)"
    );
    let (found, _) = subject.remote.probe("probe/").await.unwrap();
    assert_eq!(found, capabilities, "{server}: capabilities");
}

#[tokio::test]
async fn the_embedded_server_conforms() {
    let server = EmbeddedS3::start().unwrap();
    server.create_bucket("conformance");
    let config = config(&server.endpoint(), server.access_key(), server.secret_key());
    let capabilities = Capabilities {
        put_if_absent: true,
        put_if_match: true,
        delete_if_match: true,
        list_v2: true,
        checksum_trailers: true,
        batch_delete: true,
        tagging: false,
        storage_class: true,
        double_slash: true,
        leading_slash: true,
        dot_segments: true,
    };
    conforms_but_for("embedded", &config, &[], capabilities).await;
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn minio_conforms_but_for_what_is_known() {
    let server = Minio::start().await.unwrap();
    server.create_bucket("conformance").unwrap();
    let config = config(&server.endpoint(), server.access_key(), server.secret_key());
    let deviations = [
        // `If-Match` on DELETE is ignored.
        "a_delete_only_of_the_same_etag",
        // Stored and readable, but in no listing.
        "a_key_below_another_key",
        // Refused with 400.
        "a_key_with_a_double_slash",
        "a_key_with_a_segment_of_300_bytes",
        "a_key_with_dot_segments",
        // The slash is dropped.
        "a_key_with_a_slash_at_its_start",
    ];
    let capabilities = Capabilities {
        put_if_absent: true,
        put_if_match: true,
        delete_if_match: false,
        list_v2: true,
        checksum_trailers: true,
        batch_delete: true,
        tagging: true,
        storage_class: true,
        double_slash: false,
        leading_slash: false,
        dot_segments: false,
    };
    conforms_but_for("MinIO", &config, &deviations, capabilities).await;
}

#[tokio::test]
async fn versitygw_conforms_but_for_what_is_known() {
    let server = Versitygw::start().await.unwrap();
    server.create_bucket("conformance").unwrap();
    let config = config(&server.endpoint(), server.access_key(), server.secret_key());
    let deviations = [
        // What had arrived is stored as if it were all, also over an object that was whole.
        "a_body_that_breaks_off_leaves_nothing",
        "a_body_that_breaks_off_leaves_the_object_that_was_there",
        // Keys are paths of files: refused, or folded onto another key.
        "a_key_below_another_key",
        "a_key_with_a_double_slash",
        "a_key_with_a_segment_of_300_bytes",
        "a_key_with_a_slash_at_its_end",
        "a_key_with_a_slash_at_its_start",
        "a_key_with_dot_segments",
    ];
    let capabilities = Capabilities {
        put_if_absent: true,
        put_if_match: true,
        delete_if_match: true,
        list_v2: true,
        checksum_trailers: true,
        batch_delete: true,
        tagging: true,
        storage_class: true,
        double_slash: false,
        leading_slash: false,
        dot_segments: false,
    };
    conforms_but_for("versitygw", &config, &deviations, capabilities).await;
}
