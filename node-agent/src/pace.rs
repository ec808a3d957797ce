//! A remote that is used no faster than the policy allows.
//!
//! Whoever would be too fast waits; nothing fails for it. Requests and bytes are given out in the order in which they
//! were asked for: a delete waits for as many requests as were before it, and for no body.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use onespace_core::limits::{Bucket, Rates, Schedule};
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use onespace_stores::body::Body;
use onespace_stores::remote::{
    Capabilities, Condition, Page, PartSource, PartSpec, Permissions, Remote, RemoteError, Replaced, Stored,
};
use onespace_stores::source::SourceError;
use tokio::time::Instant;

use crate::clock::Clock;

/// A body goes through in pieces of at most this share of a second's worth: many at once all keep moving, so that
/// nobody takes one that waits for one that hangs.
const PIECES_PER_SECOND: u64 = 64;

/// The rate may have changed after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a probe sends, roughly.
const PROBE_REQUESTS: u64 = 40;

/// What a multipart upload sends beside its parts: its beginning and its end.
const UPLOAD_REQUESTS: u64 = 2;

/// The pace of one mapping.
#[derive(Debug)]
struct Pace<C> {
    schedule: Schedule,
    clock: C,
    /// What held at which minute.
    current: Mutex<Option<(u64, Rates)>>,
    started: Instant,
    requests: tokio::sync::Mutex<Bucket>,
    bytes: tokio::sync::Mutex<Bucket>,
}

impl<C: Clock> Pace<C> {
    fn rates(&self) -> Rates {
        let now = self.clock.now();
        let minute = now.unix_seconds() / 60;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match *current {
            Some((known, rates)) if known == minute => rates,
            _ => {
                let rates = self.schedule.rates_at(now);
                *current = Some((minute, rates));
                rates
            }
        }
    }

    async fn requests(&self, count: u64) {
        self.take(&self.requests, count, |rates| rates.requests).await;
    }

    async fn take(&self, bucket: &tokio::sync::Mutex<Bucket>, tokens: u64, rate: fn(&Rates) -> Option<u64>) {
        // Held while waiting: this lock is the queue.
        let mut bucket = bucket.lock().await;
        while let Some(rate) = rate(&self.rates()) {
            match bucket.take(self.started.elapsed(), rate, tokens) {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait.min(LOOK_AGAIN)).await,
            }
        }
    }

    /// How many of these bytes go through at once.
    fn piece(&self, length: usize) -> usize {
        let Some(rate) = self.rates().bytes else {
            return length;
        };
        let most = usize::try_from((rate / PIECES_PER_SECOND).max(1)).unwrap_or(usize::MAX);
        length.min(most)
    }
}

/// A remote with limits, or without.
#[derive(Debug)]
pub struct Limited<R, C> {
    remote: R,
    pace: Option<Arc<Pace<C>>>,
}

impl<R, C: Clock> Limited<R, C> {
    /// The remote, used as fast as the schedule allows.
    pub fn new(remote: R, schedule: Schedule, clock: C) -> Self {
        let pace = (!schedule.is_unlimited()).then(|| {
            Arc::new(Pace {
                schedule,
                clock,
                current: Mutex::default(),
                started: Instant::now(),
                requests: tokio::sync::Mutex::default(),
                bytes: tokio::sync::Mutex::default(),
            })
        });
        Self { remote, pace }
    }

    async fn requests(&self, count: u64) {
        if let Some(pace) = &self.pace {
            pace.requests(count).await;
        }
    }
}

/// The body, in pieces, each when it may go on.
fn paced<C: Clock>(pace: Option<&Arc<Pace<C>>>, body: Body) -> Body {
    let Some(pace) = pace else {
        return body;
    };
    let Body { length, stream } = body;
    let state = (pace.clone(), stream, Bytes::new());
    let stream = futures::stream::unfold(state, |(pace, mut stream, mut rest)| async move {
        while rest.is_empty() {
            match stream.next().await? {
                Ok(chunk) => rest = chunk,
                Err(error) => return Some((Err(error), (pace, stream, rest))),
            }
        }
        let piece = rest.split_to(pace.piece(rest.len()));
        pace.take(&pace.bytes, piece.len() as u64, |rates| rates.bytes)
            .await;
        Some((Ok(piece), (pace, stream, rest)))
    });
    Body {
        length,
        stream: stream.boxed(),
    }
}

struct PacedParts<'a, P, C> {
    source: &'a P,
    pace: Option<&'a Arc<Pace<C>>>,
}

impl<P: PartSource, C: Clock> PartSource for PacedParts<'_, P, C> {
    async fn open(&self, part: usize) -> Result<Body, SourceError> {
        if let Some(pace) = self.pace {
            pace.requests(1).await;
        }
        Ok(paced(self.pace, self.source.open(part).await?))
    }
}

impl<R: Remote, C: Clock> Remote for Limited<R, C> {
    async fn head(&self, key: &str) -> Result<Option<RemoteObject>, RemoteError> {
        self.requests(1).await;
        self.remote.head(key).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Option<(RemoteObject, Body)>, RemoteError> {
        self.requests(1).await;
        let found = self.remote.get(key, range).await?;
        Ok(found.map(|(object, body)| (object, paced(self.pace.as_ref(), body))))
    }

    async fn put(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        body: Body,
        md5: Option<[u8; 16]>,
    ) -> Result<Stored, RemoteError> {
        self.requests(1).await;
        let body = paced(self.pace.as_ref(), body);
        self.remote.put(key, headers, condition, body, md5).await
    }

    async fn put_parts<P: PartSource>(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[PartSpec],
        source: &P,
    ) -> Result<Stored, RemoteError> {
        self.requests(UPLOAD_REQUESTS).await;
        let source = PacedParts {
            source,
            pace: self.pace.as_ref(),
        };
        self.remote
            .put_parts(key, headers, condition, parts, &source)
            .await
    }

    async fn replace_headers(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> Result<Replaced, RemoteError> {
        // One that was uploaded in parts is copied part by part.
        let parts = current
            .etag
            .rsplit_once('-')
            .and_then(|(_, parts)| parts.parse().ok());
        let requests = parts.map_or(1, |parts: u32| u64::from(parts) + UPLOAD_REQUESTS);
        self.requests(requests).await;
        self.remote.replace_headers(key, current, headers).await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), RemoteError> {
        self.requests(1).await;
        self.remote.abort_upload(key, upload).await
    }

    async fn delete(&self, key: &str, etag: Option<&str>) -> Result<(), RemoteError> {
        self.requests(1).await;
        self.remote.delete(key, etag).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, RemoteError> {
        self.requests(1).await;
        self.remote.list(prefix, after, limit).await
    }

    async fn probe(&self, scratch_prefix: &str) -> Result<(Capabilities, Permissions), RemoteError> {
        self.requests(PROBE_REQUESTS).await;
        self.remote.probe(scratch_prefix).await
    }
}

#[cfg(test)]
mod tests {
    use onespace_core::limits::Limits;
    use onespace_core::timestamp::Timestamp;

    use super::*;

    /// Stands at a Sunday noon and runs with the runtime's paused time.
    #[derive(Clone, Debug)]
    struct Noon(Instant);

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_seconds(1_795_348_800).plus(self.0.elapsed())
        }
    }

    fn pace(limits: &Limits) -> Arc<Pace<Noon>> {
        let limited = Limited::new((), Schedule::new(limits).unwrap(), Noon(Instant::now()));
        limited.pace.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn many_bodies_at_once_share_the_bytes_and_none_stands_still() {
        let pace = pace(&Limits {
            bytes_per_second: Some(64 << 10),
            ..Limits::default()
        });
        let begin = Instant::now();
        let mut bodies = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let body = paced(Some(&pace), Body::from_bytes(Bytes::from(vec![7; 32 << 10])));
            bodies.spawn(async move {
                let (mut stream, mut bytes, mut longest, mut moved) = (body.stream, 0, Duration::ZERO, begin);
                while let Some(chunk) = stream.next().await {
                    bytes += chunk.unwrap().len();
                    longest = longest.max(moved.elapsed());
                    moved = Instant::now();
                }
                (bytes, longest)
            });
        }
        while let Some(body) = bodies.join_next().await {
            let (bytes, longest) = body.unwrap();
            assert_eq!(bytes, 32 << 10);
            assert!(
                longest < Duration::from_secs(10),
                "a body stood still for {longest:?}"
            );
        }
        // 2 MiB at 64 KiB a second, the first second's worth at once.
        let took = begin.elapsed().as_secs_f64();
        assert!((30.9..31.5).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_waits_for_the_requests_before_it_and_for_no_body() {
        let pace = pace(&Limits {
            bytes_per_second: Some(64 << 10),
            requests_per_second: Some(10),
            windows: vec![],
        });
        let body = paced(Some(&pace), Body::from_bytes(Bytes::from(vec![7; 10 << 20])));
        let sending = tokio::spawn(body.stream.for_each(|_| async {}));
        let begin = Instant::now();
        let mut before = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let pace = pace.clone();
            before.spawn(async move { pace.requests(1).await });
        }
        tokio::task::yield_now().await;
        pace.requests(1).await;
        let took = begin.elapsed().as_secs_f64();
        assert!((4.0..4.2).contains(&took), "{took}");
        assert!(!sending.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_on_when_a_window_with_more_begins() {
        let window = onespace_core::limits::Window {
            days: vec![],
            start: "12:01".into(),
            end: "13:00".into(),
            time_zone: "UTC".into(),
            bytes_per_second: None,
            requests_per_second: Some(1000),
        };
        let pace = pace(&Limits {
            bytes_per_second: None,
            requests_per_second: Some(1),
            windows: vec![window],
        });
        let begin = Instant::now();
        for _ in 0..600 {
            pace.requests(1).await;
        }
        let took = begin.elapsed().as_secs_f64();
        assert!((60.0..62.0).contains(&took), "{took}");
    }
}
