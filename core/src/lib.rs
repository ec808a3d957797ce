//! The rules of onespace: names, times, metadata, manifests, mappings and what a row leads to.
//!
//! Everything here is pure: values in, values out. Nothing opens a file, a socket or a clock, so every rule can
//! be tested with data alone. The programs around it are thin shells.

pub mod local;
pub mod mapping;
pub mod reason;
pub mod remote;
pub mod select;
pub mod timestamp;
