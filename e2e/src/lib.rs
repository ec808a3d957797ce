//! The end-to-end harness: real servers, each a small type that starts, waits until it is ready, and stops.
//!
//! The programs come from `scripts/prepare`. Every server listens on 127.0.0.1 on a free port and ends with the
//! process that started it.

pub mod agent;
pub mod agents;
pub mod chart;
pub mod conformance;
pub mod expect;
pub mod fixtures;
pub mod followed;
pub mod forward_proxy;
pub mod http;
mod in_step;
pub mod kube;
pub mod lab;
pub mod operator;
pub mod plugin;
pub mod policies;
pub mod ports;
pub mod programs;
pub mod s3;
pub mod shared;
pub mod silent_proxy;
pub mod site;
pub mod swift;
pub mod tools;
