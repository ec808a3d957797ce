//! S3 servers for tests: one of our own in this process, and two that others wrote.

pub mod embedded;
mod process;
mod servers;

pub use embedded::EmbeddedS3;
pub use servers::{Minio, Versitygw};

/// The region that every server here expects.
pub const REGION: &str = "us-east-1";
