//! A container's listing, page by page, through the internal endpoint.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use onespace_core::manifest::{ListedSegment, parse_listing};

use super::http::{Endpoint, Http, quote};
use super::{answer, headers};
use crate::source::{Answer, ObjectPath, Read, SourceError};

/// Names of one page.
const PAGE: usize = 1000;

/// Longest page that is read, bytes: a thousand names of the greatest length, each byte escaped.
const LARGEST: usize = 8 << 20;

/// What is listed with this prefix after the marker; an empty page is the end.
pub(super) async fn page(
    http: &Http,
    endpoint: &Endpoint,
    prefix: &ObjectPath,
    marker: &str,
) -> Result<Answer<Vec<ListedSegment>>, SourceError> {
    let ObjectPath {
        account,
        container,
        object,
    } = prefix;
    let url = endpoint.join(&format!(
        "/v1/{}/{}?format=json&limit={PAGE}&prefix={}&marker={}",
        quote(account),
        quote(container),
        quote(object),
        quote(marker)
    ));
    let read = Read {
        newest: true,
        ..Read::default()
    };
    let mut asked: HeaderMap = headers(prefix, &read);
    asked.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
    let response = http
        .send(Method::GET, &url, asked, http.timeouts.answer)
        .await
        .map_err(|error| answer::failed(endpoint, prefix, &error))?;
    let failed = |status: StatusCode| SourceError::Failed {
        status: status.as_u16(),
        object: prefix.clone(),
    };
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT => return Ok(Answer::Found(Vec::new())),
        StatusCode::NOT_FOUND => return Ok(Answer::Absent(None)),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(SourceError::Public {
                endpoint: endpoint.url().to_owned(),
                status: status.as_u16(),
            });
        }
        status => return Err(failed(status)),
    }
    let unreadable = |what: &str| answer::unreadable(endpoint, prefix, what);
    let body = Limited::new(response.into_body(), LARGEST).collect();
    let body = tokio::time::timeout(http.timeouts.idle, body)
        .await
        .map_err(|_| unreadable("the listing did not end in time"))?
        .map_err(|_| unreadable("the listing broke off, or is too long"))?;
    parse_listing(&body.to_bytes())
        .map(Answer::Found)
        .map_err(|error| unreadable(&error.to_string()))
}
