//! Whose turn it is: while many policies are new and writing is slow, each round takes up the new ones of some shards alone. So
//! a policy that is changed does not wait for the mappings of all.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::admit::{Admitted, Incumbents, key};
use crate::mapping::{Mapping, SHARDS};

/// How long a round is to write at most. Whatever is written costs agents, too: each reads every shard that changed.
const ROUND: Duration = Duration::from_millis(200);

/// In every round at least so many shards take up what is new: no policy waits for more than four rounds.
const FEWEST: usize = SHARDS / 4;

/// In which shards new policies are taken up next, and in how many.
#[derive(Debug)]
pub struct Turns {
    next: usize,
    width: usize,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            next: 0,
            width: SHARDS,
        }
    }
}

impl Turns {
    /// Takes this round's turn: new policies of other shards wait, those that `incumbents` shows never do. A new one that is left
    /// out is as one that is applied later: it ends nobody's claim, and nothing of it runs yet. Only a container must not be left
    /// to a policy for its whole account, which would work on it meanwhile.
    pub fn take(&mut self, admitted: &mut Admitted, incumbents: &Incumbents) {
        let sources = admitted.mappings.iter().map(|mapping| &mapping.source);
        let whole = sources.filter(|source| source.is_account_wide());
        let whole: BTreeSet<String> = whole.map(|source| source.account.clone()).collect();
        let shard_of_new = |mapping: &Mapping| {
            let source = &mapping.source;
            let is_carved_out = !source.is_account_wide() && whole.contains(&source.account);
            let shard = mapping.id.shard()?.parse::<usize>().ok()?;
            (incumbents.is_new(mapping) && !is_carved_out).then_some(shard)
        };
        let mappings = admitted.mappings.iter();
        let shards: BTreeSet<usize> = mappings.filter_map(|mapping| shard_of_new(mapping)).collect();
        let in_order = shards.range(self.next..).chain(shards.range(..self.next));
        let in_order: Vec<usize> = in_order.copied().collect();
        let Some(next) = in_order.get(self.width) else {
            return;
        };
        self.next = *next;
        let turn = &in_order[..self.width];

        let Admitted {
            mappings,
            credentials,
            waiting,
            ..
        } = admitted;
        mappings.retain(|mapping| {
            let waits = shard_of_new(mapping).is_some_and(|shard| !turn.contains(&shard));
            if waits {
                waiting.insert(key(mapping));
            }
            !waits
        });
        let used: BTreeSet<&str> = mappings
            .iter()
            .map(|mapping| mapping.target.credential.0.as_str())
            .collect();
        credentials.retain(|id, _| used.contains(id.as_str()));
    }

    /// A round has written so many files in this time: that tells how many the next one can.
    pub fn wrote(&mut self, files: usize, took: Duration) {
        let Ok(files) = u32::try_from(files) else { return };
        if files == 0 {
            return;
        }
        let each = (took / files).as_millis().max(1);
        let width = usize::try_from(ROUND.as_millis() / each).unwrap_or(SHARDS);
        self.width = width.clamp(FEWEST, SHARDS);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admit::tests::{applicant, policy};
    use crate::admit::{SHARD_ROOM, admit};
    use crate::load::Files;
    use crate::shard::fold;
    use crate::validate::ValidPolicy;

    /// Policies of these names, each with a container and a credential of its own.
    fn policies(names: impl IntoIterator<Item = u32>) -> Vec<ValidPolicy> {
        let names: BTreeSet<u32> = names.into_iter().collect();
        let named = |number| {
            let [namespace, name, container] = ["n", "p", "c"].map(|letter| format!("{letter}{number}"));
            policy(&namespace, &name, &container, &name)
        };
        names.into_iter().map(named).collect()
    }

    /// One round over files: what becomes mappings now, and the files then.
    fn round(turns: &mut Turns, policies: &[ValidPolicy], files: &Files) -> (Admitted, Files) {
        let incumbents = Incumbents::of(files);
        let mut admitted = admit(policies.iter().map(applicant).collect(), &incumbents, SHARD_ROOM);
        turns.take(&mut admitted, &incumbents);
        let files = fold(&admitted.mappings, &admitted.credentials, files, "1").unwrap();
        (admitted, files)
    }

    fn names(admitted: &Admitted) -> BTreeSet<String> {
        let names = admitted
            .mappings
            .iter()
            .map(|mapping| mapping.policy.name.clone());
        names.collect()
    }

    fn slow() -> Turns {
        let mut turns = Turns::default();
        turns.wrote(17, Duration::from_secs(17));
        turns
    }

    #[test]
    fn nobody_waits_while_writing_is_quick() {
        let mut turns = Turns::default();
        for took in [0, 10, 200] {
            let (admitted, _) = round(&mut turns, &policies(0..100), &Files::default());
            assert_eq!(admitted.mappings.len(), 100);
            assert!(admitted.waiting.is_empty());
            turns.wrote(17, Duration::from_millis(took));
        }
    }

    #[test]
    fn the_slower_writing_is_the_fewer_shards_have_their_turn_but_never_too_few() {
        let mut turns = Turns::default();
        for (files, milliseconds, width) in
            [(17, 400, 8), (2, 80, 5), (3, 60_000, 4), (0, 0, 4), (17, 200, 16)]
        {
            turns.wrote(files, Duration::from_millis(milliseconds));
            assert_eq!(turns.width, width, "{files} files in {milliseconds} ms");
        }
    }

    #[test]
    fn no_container_is_left_to_the_policy_of_its_account_until_its_own_has_its_turn() {
        let whole = &policies([1_000])[0].mapping;
        let mut whole = Mapping::clone(whole);
        whole.source.container = "/*".to_owned();
        let (mut turns, mut incumbents) = (slow(), Incumbents::default());
        for _ in 0..4 {
            let all = policies(0..100);
            let mut admitted = admit(all.iter().map(applicant).collect(), &incumbents, SHARD_ROOM);
            admitted.mappings.push(whole.clone().into());
            turns.take(&mut admitted, &incumbents);
            let names = names(&admitted);
            assert!(!names.contains("p1000") || names.len() == 101, "{names:?}");
            incumbents = Incumbents::among(&admitted.mappings);
        }
        assert!(!incumbents.is_new(&whole));
    }

    #[test]
    fn a_few_new_policies_never_wait() {
        let (admitted, _) = round(&mut slow(), &policies(0..4), &Files::default());
        assert!(admitted.waiting.is_empty());
    }

    #[test]
    fn who_takes_the_place_of_another_or_moves_to_another_container_does_not_wait() {
        let mut turns = slow();
        let (_, files) = round(&mut Turns::default(), &policies(0..2), &Files::default());
        // p0 went, and another policy has its mapping; p1 follows another container.
        let mut others = policies(100..200);
        others.push(policy("n0", "successor", "c0", "p0"));
        others.push(policy("n1", "p1", "moved", "p1"));
        for _ in 0..4 {
            let (admitted, _) = round(&mut turns, &others, &files);
            assert!(!admitted.waiting.is_empty());
            let names = names(&admitted);
            assert!(names.contains("successor") && names.contains("p1"), "{names:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn who_is_in_stays_in_and_who_is_new_is_in_after_four_rounds_with_its_credentials(
            before in proptest::collection::vec(0_u32..300, 0..60),
            more in proptest::collection::vec(0_u32..300, 0..200),
            first in 0..SHARDS,
        ) {
            let mut turns = slow();
            turns.next = first;
            let all = policies(before.iter().chain(&more).copied());
            let (admitted, mut files) = round(&mut Turns::default(), &policies(before), &Files::default());
            let mut there = names(&admitted);
            for left in (0..4).rev() {
                let (admitted, next) = round(&mut turns, &all, &files);
                let now = names(&admitted);
                prop_assert!(now.is_superset(&there), "{there:?} became {now:?}");
                prop_assert_eq!(now.len() + admitted.waiting.len(), all.len());
                let shards = |mapping: &&ValidPolicy| !there.contains(&mapping.mapping.policy.name);
                let taken: BTreeSet<_> = all
                    .iter()
                    .filter(shards)
                    .filter(|policy| now.contains(&policy.mapping.policy.name))
                    .map(|policy| policy.mapping.id.shard())
                    .collect();
                prop_assert!(taken.len() <= FEWEST, "{taken:?}");
                let used: BTreeSet<&String> = admitted.mappings.iter().map(|mapping| &mapping.target.credential.0).collect();
                prop_assert_eq!(admitted.credentials.keys().collect::<BTreeSet<_>>(), used);
                prop_assert!(left > 0 || admitted.waiting.is_empty(), "{:?}", admitted.waiting);
                (there, files) = (now, next);
            }
        }
    }
}
