//! Listings of S3, through the real client from the answer's bytes on.

use std::fmt;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use onespace_core::mapping::Encryption;
use onespace_stores::egress::DenyList;
use onespace_stores::remote::Remote as _;
use onespace_stores::s3::{S3Config, S3Credentials, S3Remote, Timeouts};

const PREFIX: &str = "p/";
const LIMIT: usize = 5;

/// An answer's body. Whatever it says, a page is in order, behind the key that was asked for, below the prefix, not
/// longer than asked for, and never empty with more to come: a caller that goes on from its last key ends.
pub fn run(input: &[u8]) {
    let remote = remote(input.to_vec());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    for after in [None, Some("p/b")] {
        let page = runtime.block_on(remote.list(PREFIX, after, LIMIT));
        assert_eq!(
            page,
            runtime.block_on(remote.list(PREFIX, after, LIMIT)),
            "the same answer twice"
        );
        let Ok(page) = page else {
            continue;
        };
        assert!(page.objects.len() <= LIMIT);
        assert!(
            !page.more || !page.objects.is_empty(),
            "a page without keys that does not end"
        );
        let mut last = after.unwrap_or_default();
        for object in &page.objects {
            assert!(object.key.starts_with(PREFIX), "{:?}", object.key);
            assert!(object.key.as_str() > last, "{:?} after {last:?}", object.key);
            last = &object.key;
        }
    }
}

fn remote(body: Vec<u8>) -> S3Remote {
    let config = S3Config {
        endpoint: Some("http://192.0.2.1".to_owned()),
        region: "us-east-1".to_owned(),
        bucket: "b".to_owned(),
        path_style: true,
        request_checksums: false,
        encryption: Encryption::None,
        storage_class: None,
        ca_bundle: None,
        proxy: None,
        credentials: S3Credentials {
            access_key: "k".to_owned(),
            secret_key: "s".to_owned().into(),
            session_token: None,
        },
        part_concurrency: 1,
        timeouts: Timeouts::default(),
        deny: DenyList::default(),
    };
    S3Remote::over(
        config,
        http_client_fn(move |_, _| SharedHttpConnector::new(Answer(body.clone()))),
    )
}

/// Answers everything with this body.
struct Answer(Vec<u8>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl HttpConnector for Answer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let ok = 200.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(ok, SdkBody::from(self.0.clone()))))
    }
}
