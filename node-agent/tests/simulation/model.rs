//! What must hold whatever happens: each write at the remote is judged when it takes effect, and in the end the remote
//! is compared with Swift.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use onespace_core::mark::Mark;
use onespace_core::naming::{primary_index, source_hash};
use onespace_core::remote::RemoteHeaders;

use crate::bucket::Stored;
use crate::swift::{POLICY, skewed};
use crate::world::{SLACK, Shared, World};

/// The metadata name that users set.
pub const META: &str = "m";

/// Between an agent's look at a remote without conditions and its write, someone else may write: for so long, nothing
/// can prevent that. What it harms is mended later.
pub const UNGUARDED: Duration = Duration::from_secs(8);

/// The object's name of a key.
pub fn name(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, name)| name)
}

/// What the mark of a copy at this key must name.
pub fn own_source(key: &str) -> String {
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
        let guarded = shared.remote.put_if_absent && shared.remote.put_if_match;
        let unguarded = old.is_some_and(|old| !guarded && world.now().duration_since(old.since) < UNGUARDED);
        let is_foreign = !unguarded && matches!(&old_mark, Some(Ok(old)) if old.source != own_source(key));
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

/// What is taken into account when the remote is compared with Swift.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// Agents that stay dead: nobody takes over their reconciling passes.
    pub dead: BTreeSet<usize>,
    /// Deletes wait for a person.
    pub waiting: bool,
}

impl Leave {
    /// Whether the copy of a name that is not in Swift may stay. Only a user's tombstone that is still there has to be
    /// carried out, whoever is dead; what Swift has forgotten has to be found by the agent whose name it is.
    fn may_stay(&self, shared: &Shared, key: &str, copy: &Stored) -> bool {
        let name = name(key);
        let swift = &shared.swift;
        let db = &swift.nodes[0].db;
        let Some(Ok(mark)) = Mark::read(&copy.object.headers.metadata) else {
            return false;
        };
        let tombstone = db
            .row(POLICY, name)
            .filter(|row| row.deleted && row.data.offset() == 0);
        if self.waiting {
            return true;
        }
        if let Some(row) = tombstone {
            return row.data < mark.data_time;
        }
        let owner = primary_index(name, u32::try_from(swift.nodes.len()).unwrap());
        let owner_is_dead = self.dead.contains(&usize::try_from(owner).unwrap());
        let is_older_than_the_container = mark.data_time.min(mark.time) <= db.created;
        // What a listing does not show, no pass finds.
        let is_hidden = shared.remote.hidden.contains(key);
        owner_is_dead || is_older_than_the_container || is_hidden || swift.deleted.is_some()
    }
}

/// Compares the remote with Swift; the first difference.
pub fn difference<'a>(
    world: &World,
    prefixes: impl Iterator<Item = &'a str>,
    names: &[String],
    leave: &Leave,
) -> Option<String> {
    let shared = world.shared();
    for prefix in prefixes {
        for name in names.iter().filter(|name| shared.swift.is_listed_as_it_is(name)) {
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
            let truth = shared.swift.truth(name);
            if truth.is_none() && copy.is_some_and(|copy| leave.may_stay(&shared, &key, copy)) {
                continue;
            }
            let copy = copy.map(|copy| {
                let meta = copy.object.headers.metadata.get(META).cloned();
                (copy.body.clone(), meta)
            });
            if copy != truth {
                return Some(format!("{key}: Swift has {truth:?}, the remote has {copy:?}"));
            }
        }
    }
    None
}
