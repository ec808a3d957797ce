//! The fuzz targets' committed corpus, and seeded mutations of it: what libFuzzer runs for hours, here for seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::PathBuf;

use fuzz::{TARGETS, Target};

/// The same mutations in every run.
const SEED: u64 = 1;

/// Pieces that mean something to one of the parsers.
const WORDS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"9",
    b"18446744073709551615",
    b"1e999",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b";",
    b"=",
    b"%00",
    b"%",
    b"\xff",
    b"\0",
    b"\n",
    b"+",
    b"_",
    b".",
    b"null",
    b"true",
    b"\xc3\xa9",
    b"\n=====\n",
    b"\\u0000",
    b"swift_bytes=",
    b"symlink_target=",
    b"slo_etag=",
    b"/*",
    b"]]>",
    b"&#0;",
    b"<Key>",
    b"</Key>",
];

/// The corpus of a target by file name, without what libFuzzer added on this machine.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target.name);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .filter(|(name, _)| name.len() != 40)
        .collect();
    seeds.sort();
    seeds
}

/// splitmix64: the same numbers everywhere, for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 where there is none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        start..(start + 1 + self.below(16)).min(length)
    }
}

/// A few changes to one seed, some of them taken from another.
fn mutation(random: &mut Random, seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
    let seed = random.below(seeds.len());
    let mut input = seeds[seed].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] ^= 1 << random.below(8);
            }
            1 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            2 => {
                let range = random.range(input.len());
                drop(input.drain(range));
            }
            3 => {
                let range = random.range(input.len());
                let copy = input[range].to_vec();
                drop(input.splice(at..at, copy));
            }
            4 => input.truncate(at),
            _ => {
                let other = random.below(seeds.len());
                let other = &seeds[other].1;
                let piece = other[random.range(other.len())].to_vec();
                let end = (at + piece.len()).min(input.len());
                drop(input.splice(at..end, piece));
            }
        }
    }
    input
}

/// Says which input it was, should the target panic.
struct Running<'a>(&'a str, String, &'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = std::env::temp_dir().join(format!("onespace-fuzz-{}", self.0));
            let kept = std::fs::write(&file, self.2)
                .map_or_else(|error| error.to_string(), |()| file.display().to_string());
            eprintln!(
                "{} fails at {}; input: {kept}. Put it into fuzz/corpus/{} with the fix",
                self.0, self.1, self.0
            );
        }
    }
}

fn run(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let seeds = corpus(target);
    assert!(!seeds.is_empty(), "fuzz/corpus/{name} is empty");
    for (file, seed) in &seeds {
        let _running = Running(name, file.clone(), seed);
        (target.run)(seed);
    }
    let mut random = Random(SEED);
    for number in 0..target.mutations {
        let input = mutation(&mut random, &seeds);
        let _running = Running(name, format!("mutation {number}"), &input);
        (target.run)(&input);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// One test for each target, so that they run beside each other.
        mod corpus_and_mutations_of {
            $(#[test] fn $name() { super::run(stringify!($name)); })*
        }

        #[test]
        fn every_target_has_a_test_a_program_and_an_entry_in_the_manifest() {
            let tested = [$(stringify!($name)),*];
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(tested.as_slice(), known);
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            for name in tested {
                let program = std::fs::read_to_string(folder.join(format!("targets/{name}.rs"))).unwrap();
                assert!(program.contains(&format!("onespace_fuzz::{name}::run")), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

targets! { container_db etag import manifest mappings ring s3_listing swift_headers timestamps }
