//! Plain HTTP/1.1 with pooled connections. Redirects are never followed: whatever they are, they are no answer of Swift.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{SetupError, Timeouts};
use crate::causes::{causes, chain};

/// An object may have 90 metadata, and Swift's own come on top.
const MAX_HEADERS: usize = 1000;

/// Idle connections to one server.
const IDLE_CONNECTIONS: usize = 64;

/// Eventlet's servers close an idle connection after a minute.
const IDLE_TIME: Duration = Duration::from_secs(30);

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// A name as one part of a path: every byte that could mean something is encoded, slashes too.
pub(super) fn quote(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// An object's name in a path: its slashes stay.
pub(super) fn quote_path(name: &str) -> String {
    utf8_percent_encode(name, PATH).to_string()
}

/// The internal endpoint's base URL.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    url: Arc<str>,
    address: Arc<str>,
}

impl Endpoint {
    pub fn parse(url: &str) -> Result<Self, SetupError> {
        let refused = |what| SetupError::Endpoint { what };
        let uri: Uri = url.parse().map_err(|_| refused("it is no URL"))?;
        let authority = uri.authority().ok_or_else(|| refused("it has no host"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused(
                "it is not http:// (the endpoint knows no users: keep it on loopback, where TLS adds nothing)",
            ));
        }
        if authority.as_str().contains('@') {
            return Err(refused(
                "it has user information; the internal endpoint knows no users",
            ));
        }
        if uri.query().is_some() {
            return Err(refused("it has a query"));
        }
        Ok(Self {
            url: format!("http://{authority}{}", uri.path().trim_end_matches('/')).into(),
            address: match authority.port() {
                Some(_) => authority.as_str().into(),
                None => format!("{authority}:80").into(),
            },
        })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// No connection, or it broke.
    Connection(String),
    /// Nothing within this time.
    Late(Duration),
    /// An answer, but none that HTTP allows (a header name beyond ASCII, say).
    NotHttp(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(cause) | Self::NotHttp(cause) => f.write_str(cause),
            Self::Late(time) => write!(f, "no answer within {time:?}"),
        }
    }
}

/// A client. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
    pub timeouts: Timeouts,
}

impl Http {
    pub fn new(timeouts: Timeouts) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeouts.connect));
        let client = Client::builder(TokioExecutor::new())
            .http1_max_headers(MAX_HEADERS)
            .pool_idle_timeout(IDLE_TIME)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { client, timeouts }
    }

    /// Sends a request without a body and waits for the headers of the answer.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        mut headers: HeaderMap,
        within: Duration,
    ) -> Result<Response<Incoming>, NoAnswer> {
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static("onespace"));
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = url
            .parse()
            .map_err(|_| NoAnswer::NotHttp(format!("{url} is no URL")))?;
        *request.headers_mut() = headers;
        match tokio::time::timeout(within, self.client.request(request)).await {
            Err(_) => Err(NoAnswer::Late(within)),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(no_answer(&error)),
        }
    }
}

fn no_answer(error: &hyper_util::client::legacy::Error) -> NoAnswer {
    let is_parse = |cause: &hyper::Error| cause.is_parse();
    let not_http = chain(error).any(|cause| cause.downcast_ref().is_some_and(is_parse));
    let text = causes(error);
    if not_http {
        NoAnswer::NotHttp(text)
    } else {
        NoAnswer::Connection(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_with_a_meaning_is_encoded() {
        assert_eq!(
            quote_path("/a//b?c#d%e f\0ü+&;=../."),
            "/a//b%3Fc%23d%25e%20f%00%C3%BC%2B%26%3B%3D../."
        );
        assert_eq!(quote("\0versions\0a/b"), "%00versions%00a%2Fb");
    }

    #[test]
    fn only_plain_http_without_users_is_an_endpoint() {
        assert_eq!(
            Endpoint::parse("http://127.0.0.1:8081/").unwrap().join("/v1"),
            "http://127.0.0.1:8081/v1"
        );
        for wrong in ["https://h", "http://u:p@h/", "h:1", "/v1", "", "http://h/?x"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_name_makes_a_url_that_names_it(name in "\\PC*|[\\x00-\\x7f]*") {
            let uri: Uri = format!("http://h/v1/{}", quote_path(&name)).parse().unwrap();
            prop_assert_eq!(uri.query(), None);
            let path = uri.path().strip_prefix("/v1/").unwrap();
            let back = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
            prop_assert_eq!(back.as_ref(), name.as_str());
        }
    }
}
