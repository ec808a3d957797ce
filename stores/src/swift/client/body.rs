//! An answer's body as a stream that is exactly as long as announced, or ends in an error.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::body::{Body, BodyError};

/// The body; no chunk may take longer than `idle`.
pub(super) fn stream(incoming: Incoming, length: u64, idle: Duration) -> Body {
    Body {
        length,
        stream: exact(Box::pin(chunks(incoming, idle)), length),
    }
}

enum Broken {
    Stalled(Duration),
    Connection(String),
}

fn chunks(incoming: Incoming, idle: Duration) -> impl futures::Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold(Some(incoming), move |state| async move {
        let mut incoming = state?;
        loop {
            match tokio::time::timeout(idle, incoming.frame()).await {
                Err(_) => return Some((Err(Broken::Stalled(idle)), None)),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some((Err(Broken::Connection(error.to_string())), None)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some(incoming)));
                    }
                }
            }
        }
    })
}

/// Turns an early end, a break and surplus bytes into errors; nothing comes after an error.
fn exact(
    chunks: BoxStream<'static, Result<Bytes, Broken>>,
    length: u64,
) -> BoxStream<'static, Result<Bytes, BodyError>> {
    let broken = move |received, cause: &str| BodyError::BrokenOff {
        received,
        length,
        cause: cause.to_owned(),
    };
    stream::unfold(Some((chunks, 0_u64)), move |state| async move {
        let (mut chunks, received) = state?;
        match chunks.next().await {
            None if received == length => None,
            None => Some((Err(broken(received, "the connection was closed")), None)),
            Some(Err(Broken::Stalled(idle))) => Some((Err(BodyError::Stalled(idle)), None)),
            Some(Err(Broken::Connection(cause))) => Some((Err(broken(received, &cause)), None)),
            Some(Ok(chunk)) => {
                let received = received + chunk.len() as u64;
                if received > length {
                    Some((Err(broken(received, "there are more bytes than announced")), None))
                } else {
                    Some((Ok(chunk), Some((chunks, received))))
                }
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(
        chunks: Vec<Result<&'static str, Broken>>,
        length: u64,
    ) -> Vec<Result<Bytes, BodyError>> {
        let chunks = stream::iter(
            chunks
                .into_iter()
                .map(|chunk| chunk.map(|text| Bytes::from_static(text.as_bytes()))),
        );
        exact(chunks.boxed(), length).collect().await
    }

    #[tokio::test]
    async fn a_whole_body_ends_without_an_error() {
        let body = collect(vec![Ok("ab"), Ok("c")], 3).await;
        assert_eq!(body, [Ok("ab".into()), Ok("c".into())]);
        assert_eq!(collect(vec![], 0).await, []);
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error() {
        let body = collect(vec![Ok("ab")], 3).await;
        assert!(matches!(
            body.last(),
            Some(Err(BodyError::BrokenOff {
                received: 2,
                length: 3,
                ..
            }))
        ));
    }

    #[tokio::test]
    async fn a_body_that_runs_on_is_an_error() {
        let body = collect(vec![Ok("ab"), Ok("cd"), Ok("ef")], 3).await;
        assert!(matches!(
            body[..],
            [Ok(_), Err(BodyError::BrokenOff { received: 4, .. })]
        ));
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let broken = Broken::Connection("reset".to_owned());
        let body = collect(vec![Ok("ab"), Err(broken), Ok("c")], 3).await;
        assert_eq!(body.len(), 2);
        let stalled = collect(vec![Err(Broken::Stalled(Duration::from_secs(1)))], 3).await;
        assert_eq!(stalled, [Err(BodyError::Stalled(Duration::from_secs(1)))]);
    }
}
