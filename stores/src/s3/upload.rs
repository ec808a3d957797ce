//! A body on its way to the remote: exact length or an error, hashed as it passes, watched for standstill.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use md5::{Digest, Md5};
use tokio::time::Instant;

use crate::body::{Body, BodyError};

/// What the sender can still see of a body after it was handed to the HTTP client.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// When a chunk last moved.
    moved: Instant,
    /// Whether we wait for the source's next chunk (or else for the remote to take the last one).
    awaiting_source: bool,
    /// How it ended: the md5 of all bytes, or why not.
    outcome: Option<Result<[u8; 16], BodyError>>,
}

/// Who stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standstill {
    /// The source gave no byte for this long.
    Source(Duration),
    /// The remote took no byte, or gave no answer.
    Remote,
}

/// The two limits of a request with a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Between two chunks.
    pub idle: Duration,
    /// Between the last chunk and the answer.
    pub answer: Duration,
}

impl Sent {
    fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                moved: Instant::now(),
                awaiting_source: false,
                outcome: None,
            })),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The md5 of the whole body, or why it did not arrive whole. `None` = it was not read to its end.
    pub fn outcome(&self) -> Option<Result<[u8; 16], BodyError>> {
        self.with(|state| state.outcome.clone())
    }

    /// Waits for `request`, as long as the body keeps moving.
    pub async fn watch<T>(&self, limits: Limits, request: impl Future<Output = T>) -> Result<T, Standstill> {
        let mut request = pin!(request);
        loop {
            let (deadline, standstill) = self.with(|state| match (&state.outcome, state.awaiting_source) {
                (Some(_), _) => (state.moved + limits.answer, Standstill::Remote),
                (None, true) => (state.moved + limits.idle, Standstill::Source(limits.idle)),
                (None, false) => (state.moved + limits.idle, Standstill::Remote),
            });
            let now = Instant::now();
            if deadline <= now {
                return Err(standstill);
            }
            // The limit may change meanwhile, from one to the other.
            let look_again = deadline.min(now + limits.idle.min(limits.answer));
            tokio::select! {
                biased;
                output = &mut request => return Ok(output),
                () = tokio::time::sleep_until(look_again) => {}
            }
        }
    }
}

/// The body as the HTTP client reads it.
///
/// The last chunk is handed on only when the source has ended and the md5 is the expected one, so a body that is
/// short, long or wrong is never a complete request, whatever the remote checks.
struct Upload {
    /// A mutex that is never locked: it makes the stream `Sync`, which the SDK asks for.
    stream: Mutex<BoxStream<'static, Result<Bytes, BodyError>>>,
    length: u64,
    received: u64,
    md5: Md5,
    expected: Option<[u8; 16]>,
    /// The last chunk, while the source's end is awaited.
    last: Option<Bytes>,
    sent: Sent,
    over: bool,
}

/// Makes a request body of a stream. The request must announce `body.length` as its content length.
///
/// # Errors
/// An empty body is looked at at once, as nobody would read it: it was not empty, or has not the expected md5.
pub(super) async fn upload(
    body: Body,
    expected: Option<[u8; 16]>,
    idle: Duration,
) -> Result<(ByteStream, Sent), BodyError> {
    let Body { length, stream } = body;
    let sent = Sent::new();
    let mut upload = Upload {
        stream: Mutex::new(stream),
        length,
        received: 0,
        md5: Md5::new(),
        expected,
        last: None,
        sent: sent.clone(),
        over: false,
    };
    if length > 0 {
        return Ok((ByteStream::from_body_1_x(upload), sent));
    }
    let end = std::future::poll_fn(|cx| upload.poll_chunk(cx));
    match tokio::time::timeout(idle, end).await {
        Ok(Some(Err(error))) => Err(error),
        Ok(_) => Ok((ByteStream::from_static(b""), sent)),
        Err(_) => Err(BodyError::Stalled(idle)),
    }
}

impl Upload {
    fn finish(&mut self, outcome: Result<[u8; 16], BodyError>) -> Option<Result<Bytes, BodyError>> {
        self.over = true;
        self.sent.with(|state| {
            state.moved = Instant::now();
            state.awaiting_source = false;
            state.outcome = Some(outcome.clone());
        });
        match outcome {
            Ok(_) => self.last.take().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// All bytes are here and the source has ended.
    fn finish_whole(&mut self) -> Option<Result<Bytes, BodyError>> {
        let read: [u8; 16] = self.md5.finalize_reset().into();
        let outcome = match self.expected {
            Some(expected) if expected != read => Err(BodyError::Mismatch {
                expected: hex::encode(expected),
                read: hex::encode(read),
            }),
            _ => Ok(read),
        };
        self.finish(outcome)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // We are asked for more: the remote took what it had.
        self.sent.with(|state| {
            if !state.awaiting_source {
                state.moved = Instant::now();
                state.awaiting_source = true;
            }
        });
        loop {
            let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
            let next = ready!(stream.poll_next_unpin(cx));
            let whole = self.received == self.length;
            let chunk = match next {
                None if whole => return Poll::Ready(self.finish_whole()),
                None => {
                    let cut = BodyError::BrokenOff {
                        received: self.received,
                        length: self.length,
                        cause: "it ended early".into(),
                    };
                    return Poll::Ready(self.finish(Err(cut)));
                }
                Some(Err(error)) => return Poll::Ready(self.finish(Err(error))),
                Some(Ok(chunk)) => chunk,
            };
            if chunk.is_empty() {
                continue;
            }
            self.received += chunk.len() as u64;
            if self.received > self.length {
                let long = BodyError::TooLong { length: self.length };
                return Poll::Ready(self.finish(Err(long)));
            }
            self.md5.update(&chunk);
            if self.received == self.length {
                self.last = Some(chunk);
                continue;
            }
            self.sent.with(|state| {
                state.moved = Instant::now();
                state.awaiting_source = false;
            });
            return Poll::Ready(Some(Ok(chunk)));
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let chunk = ready!(self.get_mut().poll_chunk(cx));
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.last.as_ref().map_or(0, Bytes::len) as u64;
        let handed_on = if self.over {
            self.length
        } else {
            self.received - held
        };
        SizeHint::with_exact(self.length - handed_on)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    type Chunk = Result<Bytes, BodyError>;

    fn body(length: u64, chunks: Vec<Chunk>) -> Body {
        Body {
            length,
            stream: stream::iter(chunks).boxed(),
        }
    }

    fn chunk(text: &'static str) -> Chunk {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    /// What a server would receive, and how it ended.
    async fn receive(body: Body, md5: Option<[u8; 16]>) -> (Vec<u8>, Result<[u8; 16], BodyError>) {
        let (mut stream, sent) = match upload(body, md5, Duration::from_secs(1)).await {
            Ok(made) => made,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let mut received = Vec::new();
        while let Some(Ok(chunk)) = stream.next().await {
            received.extend_from_slice(&chunk);
        }
        (
            received,
            sent.outcome().unwrap_or_else(|| Ok(Md5::digest([]).into())),
        )
    }

    #[tokio::test]
    async fn a_whole_body_arrives_and_is_hashed() {
        let (received, outcome) = receive(body(5, vec![chunk("he"), chunk(""), chunk("llo")]), None).await;
        assert_eq!(received, b"hello");
        assert_eq!(hex::encode(outcome.unwrap()), "5d41402abc4b2a76b9719d911017c592");
    }

    #[tokio::test]
    async fn a_body_that_is_short_long_or_wrong_is_never_received_whole() {
        let broken = BodyError::BrokenOff {
            received: 2,
            length: 5,
            cause: "reset".into(),
        };
        let cases = [
            body(5, vec![chunk("he")]),
            body(5, vec![chunk("he"), Err(broken)]),
            body(5, vec![chunk("hello"), chunk("!")]),
            body(5, vec![chunk("hello"), Err(BodyError::Stalled(Duration::ZERO))]),
        ];
        for case in cases {
            let (received, outcome) = receive(case, None).await;
            assert!(received.len() < 5, "{received:?}");
            assert!(outcome.is_err());
        }
        let (received, outcome) = receive(body(5, vec![chunk("hello")]), Some([0; 16])).await;
        assert!(received.is_empty());
        assert!(matches!(outcome, Err(BodyError::Mismatch { .. })));
    }

    #[tokio::test]
    async fn an_empty_body_is_looked_at_before_it_is_sent() {
        assert_eq!(receive(body(0, vec![]), None).await.1.map(|_| ()), Ok(()));
        assert_eq!(
            receive(body(0, vec![chunk("x")]), None).await.1,
            Err(BodyError::TooLong { length: 0 })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_source_and_a_slow_remote_are_told_apart() {
        let limits = Limits {
            idle: Duration::from_secs(30),
            answer: Duration::from_secs(60),
        };
        let silent = Body {
            length: 5,
            stream: stream::pending().boxed(),
        };
        let (mut stream, sent) = upload(silent, None, limits.idle).await.unwrap();
        let reading = async { stream.next().await };
        assert!(matches!(
            sent.watch(limits, reading).await,
            Err(Standstill::Source(_))
        ));

        let (_unread, sent) = upload(body(5, vec![chunk("hello")]), None, limits.idle)
            .await
            .unwrap();
        let deaf = sent.watch(limits, std::future::pending::<()>()).await;
        assert_eq!(deaf, Err(Standstill::Remote));
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_makes_progress_has_no_total_timeout() {
        let limits = Limits {
            idle: Duration::from_secs(30),
            answer: Duration::from_secs(60),
        };
        let slow = stream::iter(0..100_u64).then(|_| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            chunk("x")
        });
        let (mut stream, sent) = upload(
            Body {
                length: 100,
                stream: slow.boxed(),
            },
            None,
            limits.idle,
        )
        .await
        .unwrap();
        let reading = async {
            let mut count = 0;
            while let Some(Ok(_)) = stream.next().await {
                count += 1;
            }
            count
        };
        assert_eq!(sent.watch(limits, reading).await, Ok(100));
    }
}
