//! What must hold whatever happens: each write and each delete at the remote is judged when it takes effect, and in
//! the end the remote is compared with Swift.

use std::time::Duration;

use bytes::Bytes;
use onespace_core::mark::Mark;
use onespace_core::naming::source_hash;
use onespace_core::remote::RemoteHeaders;

use crate::swift::skewed;
use crate::world::{SLACK, World};

/// The metadata name that users set.
pub const META: &str = "m";

/// Between an agent's look at a remote without conditions and its write, someone else may write: for so long, nothing
/// can prevent that. What it harms is mended later.
const UNGUARDED: Duration = Duration::from_secs(8);

/// The object's name of a key.
fn name(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, name)| name)
}

/// What the mark of a copy at this key must name.
fn own_source(key: &str) -> String {
    source_hash("a", "c", name(key))
}

/// A copy's mark for the story.
pub fn shown(headers: &RemoteHeaders) -> String {
    match Mark::read(&headers.metadata) {
        Some(Ok(mark)) => format!("[{}, {}]", mark.data_time, mark.time),
        _ => "[unmarked]".into(),
    }
}

/// Judges a copy that an agent writes.
pub fn check_write(world: &World, agent: usize, key: &str, headers: &RemoteHeaders, body: &Bytes) {
    let wrong = {
        let shared = world.shared();
        let ledger = &shared.swift.ledger;
        let Some(Ok(mark)) = Mark::read(&headers.metadata) else {
            drop(shared);
            return world.violation(format!("agent {agent} wrote {key} without a mark"));
        };
        let at = |ticks| (name(key).to_owned(), ticks);
        let old = shared.remote.objects.get(key);
        let old_mark = old.and_then(|old| Mark::read(&old.object.headers.metadata));
        let is_foreign = matches!(&old_mark, Some(Ok(old)) if old.source != own_source(key));
        let guarded = shared.remote.put_if_absent && shared.remote.put_if_match;
        let unguarded = old.is_some_and(|old| !guarded && world.now().duration_since(old.since) < UNGUARDED);
        let is_older = match (old, old_mark) {
            _ if unguarded => false,
            (Some(_), Some(Ok(old))) => (old.data_time, old.time) > (mark.data_time, mark.time),
            (Some(old), None) => {
                // Nobody knows better than the remote's clock how old a stranger's object is.
                let limit = skewed(mark.time.plus(SLACK), 1);
                old.object.last_modified > limit && old.body != *body
            }
            _ => false,
        };
        if ledger.bodies.get(&at(mark.data_time.ticks())) != Some(body) {
            Some("a body that it never had at that time")
        } else if ledger.metas.get(&at(mark.time.ticks())) != Some(&headers.metadata.get(META).cloned()) {
            Some("metadata that it never had at that time")
        } else if is_foreign {
            Some("its own state over the copy of another source")
        } else if is_older {
            Some("an older state over a newer one")
        } else {
            None
        }
    };
    if let Some(what) = wrong {
        world.violation(format!("agent {agent} wrote {key} with {what}"));
    }
}

/// Judges a delete that an agent carries out.
pub fn check_delete(world: &World, agent: usize, key: &str) {
    let wrong = {
        let shared = world.shared();
        let Some(old) = shared.remote.objects.get(key) else {
            return;
        };
        let deletes = shared
            .swift
            .ledger
            .deletes
            .get(name(key))
            .cloned()
            .unwrap_or_default();
        let unguarded = !shared.remote.delete_if_match && world.now().duration_since(old.since) < UNGUARDED;
        match Mark::read(&old.object.headers.metadata) {
            Some(Ok(mark)) if mark.source != own_source(key) => Some("the copy of another source"),
            _ if unguarded => None,
            Some(Ok(mark)) if deletes.iter().any(|at| *at > mark.data_time.ticks()) => None,
            Some(_) => Some("which no user deleted"),
            None if !shared
                .swift
                .ledger
                .bodies
                .iter()
                .any(|((of, _), body)| of == name(key) && *body == old.body) =>
            {
                Some("a stranger's object")
            }
            None => {
                let written = old.object.last_modified;
                let before = |at: &u64| {
                    let deleted = onespace_core::timestamp::Timestamp::from_ticks(*at, 0);
                    written <= deleted.plus(SLACK)
                };
                (!deletes.iter().any(before)).then_some("a stranger's object that came later")
            }
        }
    };
    if let Some(what) = wrong {
        world.violation(format!("agent {agent} deleted {key}, {what}"));
    }
}

/// Compares the remote with Swift; the first difference.
pub fn difference(world: &World, prefixes: &[String], names: &[String]) -> Option<String> {
    let shared = world.shared();
    for prefix in prefixes {
        for name in names {
            let key = format!("{prefix}/{name}");
            let copy = shared.remote.objects.get(&key);
            let is_strangers = copy.is_some_and(|copy| {
                let foreign = match Mark::read(&copy.object.headers.metadata) {
                    Some(Ok(mark)) => mark.source != own_source(&key),
                    _ => true,
                };
                shared.remote.strangers.contains(&key) && foreign
            });
            if is_strangers {
                continue;
            }
            let copy = copy.map(|copy| {
                let meta = copy.object.headers.metadata.get(META).cloned();
                (copy.body.clone(), meta)
            });
            let truth = shared.swift.truth(name);
            if copy != truth {
                return Some(format!("{key}: Swift has {truth:?}, the remote has {copy:?}"));
            }
        }
    }
    None
}
