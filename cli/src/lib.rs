//! The `onespace` command: one file per subcommand, and the API server's checks for use without one.

pub mod admission;
pub mod agent;
pub mod args;
pub mod check;
pub mod cluster;
pub mod import;
pub mod input;
pub mod place;
pub mod policy;
pub mod release_deletes;
pub mod render;
pub mod retry;
pub mod run;
pub mod status;
pub mod validate;
pub mod verify;
pub mod write_set;
