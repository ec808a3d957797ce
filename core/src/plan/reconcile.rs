//! The reconciling pass: finding copies whose delete was never seen, because Swift had forgotten its tombstone.
//!
//! Live rows in name order are compared with the remote's keys in their order. A copy that no row speaks of is a
//! suspect, nothing more: what it takes to delete it is decided here, one sentence each, and asked again before each
//! delete.

use std::time::Duration;

use super::copy::Look;
use crate::mapping::Mode;
use crate::planted::{Fault, planted};
use crate::reason::PassRefusal;
use crate::timestamp::Timestamp;

/// One page of names in order (UTF-8 bytes).
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The names; each may stand more than once.
    pub names: &'a [String],
    /// Whether more may follow after the last of them.
    pub more: bool,
}

impl Names<'_> {
    /// The last name up to which the page is complete; `None` = there are no others.
    fn end(&self) -> Option<&str> {
        self.names.last().map(String::as_str).filter(|_| self.more)
    }
}

/// What comparing two pages showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Names of copies that no live row has, in order.
    pub missing: Vec<String>,
    /// Everything up to this name was compared; go on behind it. `None` = everything there is.
    pub to: Option<String>,
}

/// Compares a page of live rows with a page of copies, both of the names behind the same one. Only names up to where
/// both pages are complete count. A page of which more follows must not be empty.
#[must_use]
pub fn compare(rows: Names<'_>, copies: Names<'_>) -> Compared {
    let to = match (rows.end(), copies.end()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let within = |name: &&String| to.is_none_or(|to| name.as_str() <= to);
    let mut live = rows.names.iter().take_while(within).peekable();
    let mut compared = Compared {
        missing: Vec::new(),
        to: to.map(ToOwned::to_owned),
    };
    for name in copies.names.iter().take_while(within) {
        while live.next_if(|row| *row < name).is_some() {}
        if live.peek().is_none_or(|row| *row != name) {
            compared.missing.push(name.clone());
        }
    }
    compared
}

/// What a container server says of its replica of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSays {
    /// Objects that it lists.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The container's storage policy.
    pub policy_index: u32,
    /// `unsharded`, `sharding`, `sharded` or `collapsed`.
    pub sharding: String,
    /// When the container was created, or created again after it was deleted: the latest time that it gives.
    pub created: Timestamp,
}

/// Whether a pass may look at a container whose primary replicas gave these answers (`None` = no answer that can be
/// used, the container's absence included). Returns when the container was created.
///
/// # Errors
/// Why it may not.
pub fn agree(answers: &[Option<ContainerSays>]) -> Result<Timestamp, PassRefusal> {
    let mut created = Timestamp::default();
    let mut first: Option<&ContainerSays> = None;
    for answer in answers {
        let says = answer.as_ref().ok_or(PassRefusal::PeerSilent)?;
        if says.sharding != "unsharded" && says.sharding != "collapsed" {
            return Err(PassRefusal::ContainerSharded);
        }
        let same = |first: &ContainerSays| {
            (first.objects, first.bytes, first.policy_index) == (says.objects, says.bytes, says.policy_index)
        };
        if !first.is_none_or(same) {
            return Err(PassRefusal::PeersDiffer);
        }
        first = Some(says);
        created = created.max(says.created);
    }
    first.map(|_| created).ok_or(PassRefusal::PeerSilent)
}

/// What a suspect's mark is held against.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// When the last pass over the database that was completed began.
    pub last_pass: Timestamp,
    /// When the container was created.
    pub created: Timestamp,
    /// How far clocks may be apart.
    pub slack: Duration,
}

/// What becomes of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is at the key.
    Absent,
    /// It has no mark: it is counted and shown, and stays.
    Unmarked,
    /// It is ours, but stays.
    Stays,
    /// It may be deleted, if Swift proves that the object is gone.
    Candidate,
}

/// Judges a suspect by what lies at its key. That the mark names this source was checked when it was read; the mapping
/// that wrote it does not matter.
#[must_use]
pub fn judge(look: &Look, facts: Facts) -> Verdict {
    if look.object.is_none() {
        return Verdict::Absent;
    }
    let Some(mark) = &look.mark else {
        return match planted(Fault::UnmarkedForgotten) {
            true => Verdict::Candidate,
            false => Verdict::Unmarked,
        };
    };
    let newest = mark.time.max(mark.data_time);
    let oldest = mark.time.min(mark.data_time);
    let seen_by_a_pass = newest.plus(facts.slack) < facts.last_pass || planted(Fault::FirstPassDeletes);
    let of_this_container = oldest > facts.created || planted(Fault::FormerContainerDeleted);
    if mark.mode == Mode::Sync && seen_by_a_pass && of_this_container {
        Verdict::Candidate
    } else {
        Verdict::Stays
    }
}

/// Whether a pass found so many candidates among the copies that it compared, of the agent's own part of the names, that
/// a person has to look first.
#[must_use]
pub fn is_mass(candidates: u64, compared: u64) -> bool {
    candidates >= 10 && candidates.saturating_mul(100) > compared && !planted(Fault::MassDelete)
}

/// Whether a pass is due: one is under way, Swift may have forgotten tombstones that were never read (`gap`), or the
/// last began longer ago than tombstones live.
#[must_use]
pub fn is_due(
    last_pass: Timestamp,
    gap: bool,
    under_way: bool,
    reclaim_age: Duration,
    now: Timestamp,
) -> bool {
    under_way || gap || now >= last_pass.plus(reclaim_age)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mark::tests::a_mark;
    use crate::remote::{RemoteHeaders, RemoteObject};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn says(objects: u64) -> Option<ContainerSays> {
        Some(ContainerSays {
            objects,
            bytes: 10,
            policy_index: 0,
            sharding: "unsharded".into(),
            created: at(100 + objects),
        })
    }

    fn look(mode: Mode, data_time: u64, time: u64) -> Look {
        let object = RemoteObject {
            etag: "x".into(),
            size: 1,
            last_modified: at(time),
            headers: RemoteHeaders::default(),
            storage_class: None,
            opaque_etag: false,
        };
        let mark = crate::mark::Mark {
            data_time: at(data_time),
            time: at(time),
            mode,
            ..a_mark()
        };
        Look {
            object: Some(object),
            mark: Some(mark),
        }
    }

    const FACTS: Facts = Facts {
        last_pass: Timestamp::from_ticks(10_000 * 100_000, 0),
        created: Timestamp::from_ticks(1_000 * 100_000, 0),
        slack: Duration::from_secs(60),
    };

    #[test]
    fn a_copy_of_this_source_that_an_earlier_pass_saw_is_a_candidate() {
        assert_eq!(judge(&look(Mode::Sync, 2000, 3000), FACTS), Verdict::Candidate);
    }

    #[test]
    fn a_copy_that_is_not_older_than_the_last_completed_pass_stays() {
        assert_eq!(judge(&look(Mode::Sync, 2000, 9_939), FACTS), Verdict::Candidate);
        assert_eq!(judge(&look(Mode::Sync, 2000, 9_940), FACTS), Verdict::Stays);
        assert_eq!(judge(&look(Mode::Sync, 2000, 11_000), FACTS), Verdict::Stays);
    }

    #[test]
    fn a_copy_that_is_older_than_its_container_stays() {
        assert_eq!(judge(&look(Mode::Sync, 1000, 3000), FACTS), Verdict::Stays);
        assert_eq!(judge(&look(Mode::Sync, 1001, 3000), FACTS), Verdict::Candidate);
    }

    #[test]
    fn a_copy_marked_archive_stays_and_an_unmarked_one_is_counted() {
        assert_eq!(judge(&look(Mode::Archive, 2000, 3000), FACTS), Verdict::Stays);
        let mut unmarked = look(Mode::Sync, 2000, 3000);
        unmarked.mark = None;
        assert_eq!(judge(&unmarked, FACTS), Verdict::Unmarked);
        unmarked.object = None;
        assert_eq!(judge(&unmarked, FACTS), Verdict::Absent);
    }

    #[test]
    fn replicas_that_differ_or_are_silent_or_shard_let_no_pass_happen() {
        assert_eq!(agree(&[says(1), says(1)]), Ok(at(101)));
        assert_eq!(agree(&[says(1), says(2)]), Err(PassRefusal::PeersDiffer));
        assert_eq!(agree(&[says(1), None]), Err(PassRefusal::PeerSilent));
        assert_eq!(agree(&[]), Err(PassRefusal::PeerSilent));
        for state in ["sharding", "sharded", "", "something new"] {
            let mut sharded = says(1);
            if let Some(says) = &mut sharded {
                says.sharding = state.into();
            }
            assert_eq!(
                agree(&[says(1), sharded]),
                Err(PassRefusal::ContainerSharded),
                "{state}"
            );
        }
        let mut younger = says(1);
        if let Some(says) = &mut younger {
            says.created = at(500);
        }
        assert_eq!(
            agree(&[says(1), younger, says(1)]),
            Ok(at(500)),
            "the latest creation counts"
        );
    }

    #[test]
    fn more_than_one_copy_in_a_hundred_and_at_least_ten_are_too_many() {
        assert!(!is_mass(9, 9));
        assert!(is_mass(10, 10));
        assert!(is_mass(10, 999));
        assert!(!is_mass(10, 1000));
        assert!(is_mass(11, 1000));
    }

    #[test]
    fn a_pass_is_due_once_in_a_reclaim_age_and_after_a_gap() {
        let week = Duration::from_secs(7 * 86400);
        let due = |gap, under_way, now| is_due(at(1000), gap, under_way, week, at(now));
        assert!(!due(false, false, 1000 + 7 * 86400 - 1));
        assert!(due(false, false, 1000 + 7 * 86400));
        assert!(due(true, false, 1001));
        assert!(due(false, true, 1001));
    }

    fn page(all: &BTreeSet<String>, after: Option<&str>, size: usize) -> (Vec<String>, bool) {
        let mut rest = all
            .iter()
            .filter(|name| after.is_none_or(|after| name.as_str() > after));
        let page: Vec<String> = rest.by_ref().take(size).cloned().collect();
        (page, rest.next().is_some())
    }

    proptest! {
        #[test]
        fn a_pass_finds_what_is_missing_and_never_a_live_name_however_pages_fall(
            live in proptest::collection::btree_set("[ab/é]{1,4}", 0..30),
            copies in proptest::collection::btree_set("[ab/é]{1,4}", 0..30),
            born in proptest::collection::btree_set("[ab/é]{1,4}", 0..8),
            sizes in proptest::collection::vec((1usize..6, 1usize..6), 1..40),
        ) {
            let (mut live, mut copies) = (live, copies);
            let began_with = live.clone();
            let all: BTreeSet<String> = copies.clone();
            let (mut after, mut found) = (None::<String>, BTreeSet::new());
            let mut born = born.into_iter();
            let mut sizes = sizes.into_iter().cycle();
            loop {
                let (rows, keys) = sizes.next().unwrap();
                // Rows are read before keys: an object that is put and copied in between would look like one that no row
                // has. So keys come first.
                let (keys, more_keys) = page(&copies, after.as_deref(), keys);
                if let Some(name) = born.next() {
                    live.insert(name.clone());
                    copies.insert(name);
                }
                let (rows, more_rows) = page(&live, after.as_deref(), rows);
                let compared = compare(Names { names: &rows, more: more_rows }, Names { names: &keys, more: more_keys });
                for name in &compared.missing {
                    prop_assert!(!live.contains(name), "{name} is live");
                }
                found.extend(compared.missing);
                match compared.to {
                    None => break,
                    Some(to) => {
                        prop_assert!(after.as_ref().is_none_or(|after| *after < to), "it gets on");
                        after = Some(to);
                    }
                }
            }
            let expected: BTreeSet<String> = all.difference(&live).cloned().collect();
            prop_assert!(found.is_superset(&expected) && found.is_disjoint(&began_with));
        }
    }
}
