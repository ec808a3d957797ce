//! What an answer of the internal endpoint means.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use onespace_core::local::SwiftObject;
use onespace_core::timestamp::Timestamp;

use super::body;
use super::http::{Endpoint, NoAnswer};
use crate::body::Body;
use crate::source::{Answer, ObjectPath, Read, SourceError};

/// A request with its answer.
pub(super) struct Asked<'a> {
    pub endpoint: &'a Endpoint,
    pub path: ObjectPath,
    pub read: Read,
    pub response: Response<Incoming>,
}

impl Asked<'_> {
    /// The answer to a HEAD.
    pub fn headers(self) -> Result<Answer<SwiftObject>, SourceError> {
        self.judge().map(|answer| match answer {
            Answer::Found((object, _)) => Answer::Found(object),
            Answer::Absent(time) => Answer::Absent(time),
            Answer::Changed => Answer::Changed,
        })
    }

    /// The answer to a GET.
    pub fn with_body(self, idle: Duration) -> Result<Answer<(SwiftObject, Body)>, SourceError> {
        Ok(match self.judge()? {
            Answer::Found((object, length)) => {
                Answer::Found((object, body::stream(self.response.into_body(), length, idle)))
            }
            Answer::Absent(time) => Answer::Absent(time),
            Answer::Changed => Answer::Changed,
        })
    }

    /// The object, and how many bytes of it follow.
    fn judge(&self) -> Result<Answer<(SwiftObject, u64)>, SourceError> {
        let headers = self.response.headers();
        match self.response.status() {
            StatusCode::OK if self.read.range.is_none() => {
                let object = self.object(headers)?;
                let length = object.size;
                Ok(Answer::Found((object, length)))
            }
            StatusCode::OK => Err(self.unreadable("it sends the whole object where a range was asked for")),
            StatusCode::PARTIAL_CONTENT => self.part(headers),
            StatusCode::NOT_FOUND => {
                let time = headers.get("x-backend-timestamp").map(|value| {
                    let time = value.to_str().ok().and_then(|text| Timestamp::parse(text).ok());
                    time.ok_or_else(|| self.unreadable("X-Backend-Timestamp is no time"))
                });
                Ok(Answer::Absent(time.transpose()?))
            }
            StatusCode::PRECONDITION_FAILED => Ok(Answer::Changed),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(SourceError::Public {
                endpoint: self.endpoint.url().to_owned(),
                status: status.as_u16(),
            }),
            status if status.is_redirection() => Err(self.unusable(&format!(
                "it answers {status}, a redirect, which is not followed; give the URL of Swift's internal endpoint itself"
            ))),
            status => Err(SourceError::Failed {
                status: status.as_u16(),
                object: self.path.clone(),
            }),
        }
    }

    /// A 206: the object's size stands in Content-Range.
    fn part(&self, headers: &HeaderMap) -> Result<Answer<(SwiftObject, u64)>, SourceError> {
        let range = headers
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .and_then(content_range);
        let (first, last, size) =
            range.ok_or_else(|| self.unreadable("Content-Range is missing or malformed"))?;
        if self.read.range != Some((first, last)) {
            return Err(SourceError::Mismatch {
                object: self.path.clone(),
                what: format!(
                    "it answers with bytes {first}-{last} of {size}, which is not the range that was asked for"
                ),
            });
        }
        let length = last - first + 1;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if announced != Some(length) {
            return Err(self.unreadable("Content-Length and Content-Range contradict each other"));
        }
        let mut whole = headers.clone();
        whole.insert(CONTENT_LENGTH, size.into());
        Ok(Answer::Found((self.object(&whole)?, length)))
    }

    fn object(&self, headers: &HeaderMap) -> Result<SwiftObject, SourceError> {
        SwiftObject::from_headers(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
        .map_err(|error| self.unreadable(&error.to_string()))
    }

    fn unreadable(&self, what: &str) -> SourceError {
        unreadable(self.endpoint, &self.path, what)
    }

    fn unusable(&self, message: &str) -> SourceError {
        SourceError::Unavailable {
            endpoint: self.endpoint.url().to_owned(),
            message: message.to_owned(),
        }
    }
}

pub(super) fn unreadable(endpoint: &Endpoint, object: &ObjectPath, what: &str) -> SourceError {
    SourceError::Unreadable {
        object: object.clone(),
        what: what.to_owned(),
        endpoint: endpoint.url().to_owned(),
    }
}

/// No answer at all is the endpoint's fault; one that HTTP does not allow is about this object (a metadata name
/// beyond ASCII makes one).
pub(super) fn failed(endpoint: &Endpoint, object: &ObjectPath, error: &NoAnswer) -> SourceError {
    match error {
        NoAnswer::NotHttp(what) => unreadable(endpoint, object, what),
        NoAnswer::Connection(_) | NoAnswer::Late(_) => SourceError::Unavailable {
            endpoint: endpoint.url().to_owned(),
            message: format!("{error}; check that it runs and that --internal-endpoint names it"),
        },
    }
}

/// `bytes FIRST-LAST/SIZE`.
fn content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first, last, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_must_make_sense() {
        assert_eq!(content_range("bytes 0-9/10"), Some((0, 9, 10)));
        for wrong in [
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes */10",
            "0-9/10",
            "bytes 0-9/*",
            "bytes -1-9/10",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
