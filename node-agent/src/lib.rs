//! The node agent: follows the container databases of one Swift node and keeps the remote in step.

pub mod claims;
pub mod clock;
pub mod config;
mod copy;
pub mod databases;
mod delete;
mod disks;
mod dynamic;
pub mod files;
mod forgotten;
pub mod http;
mod judge;
pub mod lanes;
mod large;
pub mod local_databases;
pub mod mapping_task;
pub mod metrics;
mod pace;
mod read;
pub mod reporter;
pub mod run;
pub mod state;
mod stop;
pub mod supervisor;
pub mod turnstile;
mod walks;
pub mod work;
