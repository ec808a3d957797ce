//! The files that carry mappings and credentials: index, mapping shard, credential shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use onespace_core::credentials::Credentials;
use onespace_core::load::{Files, LoadedSet, load, load_index};
use onespace_core::mapping::{FORMAT_VERSION, Index, Mapping, MappingShard, ShardEntry};
use onespace_core::shard::{fold, shard_of};
use sha2::{Digest as _, Sha256};

/// What stands between the files of one input.
const BETWEEN: &str = "\n=====\n";

/// A mapping shard, a credential shard and an index. They are loaded as they are, and once more with an index that
/// fits: hardly a change would get past its checksums otherwise.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut files = text.splitn(3, BETWEEN).map(|file| file.as_bytes().to_vec());
    let mappings = files.next().unwrap_or_default();
    let credentials = files.next().unwrap_or_default();
    let index = files.next().unwrap_or_default();
    if let Ok(index) = load_index(&index) {
        assert!(index.mappings.len() <= 16 && index.credentials.len() <= 16);
    }
    let fitting = fitting_index(&mappings, &credentials);
    for index in [index, fitting] {
        let shard = |bytes: &Vec<u8>| BTreeMap::from([("00".to_owned(), bytes.as_slice().into())]);
        let files = Files {
            index,
            mappings: shard(&mappings),
            credentials: shard(&credentials),
        };
        check(&files);
    }
}

fn fitting_index(mappings: &[u8], credentials: &[u8]) -> Vec<u8> {
    let revision = |bytes: &[u8]| {
        let content: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
        let revision = content.and_then(|content| Some(content.get("revision")?.as_str()?.to_owned()));
        revision.unwrap_or_default()
    };
    let entry = |bytes: &[u8], sha256| {
        let revision = revision(bytes);
        BTreeMap::from([("00".to_owned(), ShardEntry { revision, sha256 })])
    };
    let sha256 = hex::encode(Sha256::digest(mappings));
    let index = Index {
        format_version: FORMAT_VERSION,
        revision: "r".to_owned(),
        mappings: entry(mappings, Some(sha256)),
        credentials: entry(credentials, None),
    };
    serde_json::to_vec(&index).unwrap_or_default()
}

fn check(files: &Files) {
    let loaded = load(files);
    let again = load(files);
    let set = match (loaded, again) {
        (Ok(set), Ok(again)) => {
            assert_eq!(set.mappings, again.mappings, "the same answer twice");
            assert_eq!(set.refused, again.refused, "the same answer twice");
            set
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again, "the same answer twice");
            return;
        }
        _ => panic!("loaded once, refused once"),
    };
    let there =
        serde_json::from_slice::<MappingShard>(&files.mappings["00"]).map(|shard| shard.mappings.len());
    assert_eq!(
        there.unwrap_or_default(),
        set.mappings.len() + set.refused.len(),
        "every mapping is run or refused"
    );
    for mapping in &set.mappings {
        let keys = set.credentials.get(&mapping.target.credential.0);
        assert!(keys.is_some_and(|keys| keys.keys().is_some()), "without keys");
    }
    round_trip(set);
}

/// What was loaded is written so that it is loaded the same.
fn round_trip(set: LoadedSet) {
    let sharded = |id: &str| shard_of(id).is_some();
    if !set.mappings.iter().all(|mapping| sharded(&mapping.id.0))
        || !set.credentials.keys().all(|id| sharded(id))
    {
        return;
    }
    let mappings: Vec<Mapping> = set
        .mappings
        .iter()
        .map(|mapping| Mapping::clone(mapping))
        .collect();
    let credentials = set.credentials.iter();
    let credentials = credentials.map(|(id, credentials)| (id.clone(), Credentials::clone(credentials)));
    let written = fold(&mappings, &credentials.collect(), &Files::default(), "fresh");
    let loaded = load(&written.expect("what was loaded can be written"));
    let loaded = loaded.expect("what was written can be loaded");
    // Those that were refused are not written, and no longer take their containers out of others.
    let bare = |mappings: Vec<Arc<Mapping>>| -> Vec<Mapping> {
        let bare = |mapping| Mapping {
            carved_out: Vec::new(),
            ..Arc::unwrap_or_clone(mapping)
        };
        mappings.into_iter().map(bare).collect()
    };
    assert_eq!(bare(loaded.mappings), bare(set.mappings));
    assert_eq!(loaded.refused, []);
    assert!(loaded.credentials.keys().eq(set.credentials.keys()));
}
