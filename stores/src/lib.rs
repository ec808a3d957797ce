//! Clients of the two stores, and what every onespace server shares.

pub mod body;
pub mod remote;
pub mod source;
