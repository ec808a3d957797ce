//! The operator: turns SyncPolicies into the files that agents read, and what agents report into status.
//!
//! Everything that is watched flows into one [`seen::Seen`]; one loop folds it into files: fetch, decide, fold, publish,
//! report. Decisions are pure and in `onespace-core`; only the outermost layer touches a client or a clock.

pub mod agents;
pub mod api;
pub mod ask;
pub mod check;
pub mod config;
pub mod controller;
pub mod decide;
pub mod desk;
pub mod events;
pub mod fetch;
pub mod finalize;
pub mod health;
pub mod leader;
pub mod lease;
pub mod metrics;
pub mod pki;
pub mod poke;
pub mod published;
pub mod run;
pub mod seen;
pub mod status;
pub mod table;
pub mod verdicts;
pub mod watch;
