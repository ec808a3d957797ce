//! The rules of onespace: names, times, metadata, manifests, mappings and what a row leads to.
//!
//! Everything here is pure: values in, values out. Nothing opens a file, a socket or a clock, so every rule can
//! be tested with data alone. The programs around it are thin shells.

pub mod admit;
pub mod budget;
pub mod credentials;
pub mod finalizer;
pub mod grant;
pub mod limits;
pub mod load;
pub mod loader;
pub mod local;
pub mod manifest;
pub mod mapping;
pub mod mark;
pub mod metadata;
pub mod naming;
pub mod objective;
pub mod parts;
pub mod plan;
pub mod planted;
pub mod reason;
pub mod remote;
pub mod report;
pub mod rfc2047;
pub mod row;
pub mod select;
pub mod shard;
pub mod status;
pub mod timestamp;
pub mod turns;
pub mod validate;
