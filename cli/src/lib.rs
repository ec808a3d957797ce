//! The `onespace` command: one file per subcommand, and the API server's checks for use without one.

pub mod admission;
pub mod args;
pub mod check;
pub mod import;
pub mod input;
pub mod render;
pub mod run;
pub mod status;
pub mod tell;
pub mod validate;
pub mod verify;
pub mod write_set;
