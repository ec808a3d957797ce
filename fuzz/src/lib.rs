//! What is fuzzed: one module for each parser of something that comes from outside. `run` feeds it one input and checks
//! what must hold for every input, beyond not panicking.
//!
//! The programs in `targets/` run these under libFuzzer. The workspace's tests include this file and run the committed
//! corpus and mutations of it, so that `make test` needs neither libFuzzer nor a second build.

pub mod container_db;
pub mod etag;
pub mod import;
pub mod manifest;
pub mod mappings;
pub mod ring;
pub mod s3_listing;
pub mod swift_headers;
pub mod timestamps;

/// A fuzz target.
pub struct Target {
    /// Its name: of its module, its program and its folder in `corpus/`.
    pub name: &'static str,
    /// Feeds it one input.
    pub run: fn(&[u8]),
    /// How many mutations of its corpus an ordinary test run tries: about a second's worth.
    pub mutations: u32,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("container_db", container_db::run, 1_000),
    target("etag", etag::run, 20_000),
    target("import", import::run, 100),
    target("manifest", manifest::run, 5_000),
    target("mappings", mappings::run, 2_000),
    target("ring", ring::run, 5_000),
    target("s3_listing", s3_listing::run, 500),
    target("swift_headers", swift_headers::run, 5_000),
    target("timestamps", timestamps::run, 20_000),
];

const fn target(name: &'static str, run: fn(&[u8]), mutations: u32) -> Target {
    Target { name, run, mutations }
}
