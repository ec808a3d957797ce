//! Clients of the two stores, and what every onespace server shares.

pub mod body;
pub mod egress;
pub mod remote;
pub mod s3;
pub mod source;
pub mod swift;
