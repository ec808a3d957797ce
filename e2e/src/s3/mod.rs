//! S3 servers for tests: one of our own in this process, and two that others wrote.

mod bucket;
mod counter;
pub mod embedded;
pub(crate) mod process;
mod servers;

pub use bucket::{Bucket, ReadBack};
pub use counter::Counter;
pub use embedded::EmbeddedS3;
pub use servers::{Minio, Versitygw};

/// The region that every server here expects.
pub const REGION: &str = "us-east-1";
