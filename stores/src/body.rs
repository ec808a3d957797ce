//! A body of known length on its way from one store to another.

use std::fmt;

use bytes::Bytes;
use futures::stream::BoxStream;

/// A body of known length. The stream yields chunks as they arrive; nothing is buffered beyond one chunk.
/// A stream that ends early, or runs on, is an error at the receiver, never a shorter object.
pub struct Body {
    /// Exact length in bytes.
    pub length: u64,
    /// The bytes.
    pub stream: BoxStream<'static, Result<Bytes, BodyError>>,
}

impl Body {
    /// A body that is in memory.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            length: bytes.len() as u64,
            stream: Box::pin(futures::stream::iter([Ok(bytes)])),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Why a body broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or the sender closed it early.
    #[error(
        "the body broke off after {received} of {length} bytes: {cause}; it is read again from the start"
    )]
    BrokenOff {
        /// Bytes that had arrived.
        received: u64,
        /// Bytes that were announced.
        length: u64,
        /// What the connection reported.
        cause: String,
    },
    /// The body ran on beyond its length.
    #[error(
        "the body runs on beyond the {length} bytes that were announced; it is read again from the start"
    )]
    TooLong {
        /// Bytes that were announced.
        length: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("the body that was read has md5 {read}, expected is {expected}; it is read again from the start")]
    Mismatch {
        /// md5 that it should have, hex.
        expected: String,
        /// md5 that it has, hex.
        read: String,
    },
    /// No byte came for this long.
    #[error("the body stalled: no byte for {0:?}; it is read again from the start")]
    Stalled(std::time::Duration),
}
