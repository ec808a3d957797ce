//! Which policies cannot be together, and which of them wins.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use super::{Endpoint, ValidPolicy};
use crate::mapping::{Mapping, Mode, PolicyRef};
use crate::naming::Namespace;

/// A valid policy that wants to become a mapping. `P` is the policy or a reference to it.
#[derive(Clone, Debug)]
pub struct Candidate<P = ValidPolicy> {
    /// The policy.
    pub policy: P,
    /// It is among the mappings already.
    pub incumbent: bool,
    /// `creationTimestamp` in seconds since 1970; files have none.
    pub created: Option<i64>,
}

/// What two policies clash over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Equal source and target.
    Same,
    /// Their keys would mix.
    Keys,
    /// Two policies that both release the local objects of one container, or one that releases and one that fills.
    Modes,
}

/// A policy that lost against another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Not accepted; tried again when the winner goes.
    pub loser: PolicyRef,
    /// Accepted.
    pub winner: PolicyRef,
    /// Over what.
    pub clash: Clash,
}

impl Conflict {
    /// What to tell the author of the losing policy. A policy of another namespace is not named.
    #[must_use]
    pub fn message(&self) -> String {
        let other = if self.winner.namespace == self.loser.namespace {
            format!("policy {}/{}", self.winner.namespace, self.winner.name)
        } else {
            "a policy of another namespace".to_owned()
        };
        match self.clash {
            Clash::Same => format!("{other} has the same source and target: remove one of them"),
            Clash::Keys => {
                format!(
                    "{other} writes equal or nested keys in the same bucket: give this one another target.prefix or bucket"
                )
            }
            Clash::Modes => {
                format!(
                    "{other} has the same source, and of two policies at most one may have mode Archive or Migrate: remove one of them"
                )
            }
        }
    }
}

/// Settles who may be together. A policy that is among the mappings wins, then the older one, then the one whose
/// namespace and name come first. The accepted come in this order, too.
#[must_use]
pub fn settle<P: Borrow<ValidPolicy>>(mut candidates: Vec<Candidate<P>>) -> (Vec<P>, Vec<Conflict>) {
    candidates.sort_by_cached_key(|candidate| {
        let policy = &candidate.policy.borrow().mapping.policy;
        let created = candidate.created.unwrap_or(i64::MAX);
        (
            !candidate.incumbent,
            created,
            policy.namespace.clone(),
            policy.name.clone(),
        )
    });

    let mut accepted: Vec<P> = Vec::new();
    let mut conflicts = Vec::new();
    let mut buckets: HashMap<(Endpoint, String), Claims> = HashMap::new();
    let mut sources: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for Candidate {
        policy: candidate, ..
    } in candidates
    {
        let policy: &ValidPolicy = candidate.borrow();
        let mapping = &policy.mapping;
        let keys = keys_of(mapping);
        let bucket = buckets
            .entry((policy.endpoint.of_buckets(), mapping.target.bucket.clone()))
            .or_default();
        let source = sources
            .entry((mapping.source.account.clone(), mapping.source.container.clone()))
            .or_default();
        let other = |index: usize| &accepted[index].borrow().mapping;

        let by_keys = bucket
            .first_meeting(&keys, |index| {
                !taken_out(mapping, other(index)) && !taken_out(other(index), mapping)
            })
            .map(|index| match other(index).id == mapping.id {
                true => (index, Clash::Same),
                false => (index, Clash::Keys),
            });
        let by_mode = || {
            let mut others = source.iter().copied();
            others
                .find(|index| exclusive(mapping.mode, other(*index).mode))
                .map(|index| (index, Clash::Modes))
        };
        if let Some((index, clash)) = by_keys.or_else(by_mode) {
            conflicts.push(Conflict {
                loser: mapping.policy.clone(),
                winner: other(index).policy.clone(),
                clash,
            });
            continue;
        }
        bucket.add(keys, accepted.len());
        source.push(accepted.len());
        accepted.push(candidate);
    }
    (accepted, conflicts)
}

/// The keys that accepted policies claim in one bucket, each with its policy's place among the accepted. Claims of
/// plain text are found by their place in the tree of keys, so that thousands of policies share a bucket cheaply.
#[derive(Default)]
struct Claims {
    /// Claims of single containers: their segments.
    narrow: BTreeMap<Vec<String>, usize>,
    /// Claims of account-wide policies.
    wide: Vec<(Keys, usize)>,
}

impl Claims {
    fn add(&mut self, keys: Vec<Keys>, index: usize) {
        for keys in keys {
            match keys.plain() {
                Some(segments) => drop(self.narrow.insert(segments, index)),
                None => self.wide.push((keys, index)),
            }
        }
    }

    /// The first accepted policy that claims one of the keys, of those that count.
    fn first_meeting(&self, keys: &[Keys], counts: impl Fn(usize) -> bool) -> Option<usize> {
        let of_one = |keys: &Keys| {
            let wide = self.wide.iter().filter(|(other, _)| keys.meets(other));
            let wide = wide.map(|(_, index)| *index);
            let narrow: Vec<usize> = match keys.plain() {
                Some(segments) => {
                    let above = (0..segments.len()).filter_map(|end| self.narrow.get(&segments[..end]));
                    let within = self
                        .narrow
                        .range(segments.clone()..)
                        .take_while(|(other, _)| other.starts_with(&segments))
                        .map(|(_, index)| index);
                    above.chain(within).copied().collect()
                }
                None => {
                    let all = self.narrow.iter();
                    all.filter(|(other, _)| keys.meets(&Keys::of_texts(other)))
                        .map(|(_, index)| *index)
                        .collect()
                }
            };
            wide.chain(narrow).filter(|index| counts(*index)).min()
        };
        keys.iter().filter_map(of_one).min()
    }
}

/// Two policies on one container where one releases local objects: only Sync goes with anything.
fn exclusive(one: Mode, other: Mode) -> bool {
    one != Mode::Sync && other != Mode::Sync
}

/// Whether `single`'s container is taken out of the account-wide `wide`, so that only one of them writes its keys.
fn taken_out(single: &Mapping, wide: &Mapping) -> bool {
    wide.source.is_account_wide()
        && !single.source.is_account_wide()
        && single.source.account == wide.source.account
        && single.target.prefix.is_none()
}

/// A set of keys: all that start with these path segments.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Keys(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// This text.
    Text(String),
    /// The hash that starts the keys of an account-wide policy, a different one for each container.
    AnyHash,
}

impl Keys {
    fn of_texts(texts: &[String]) -> Self {
        Self(texts.iter().cloned().map(Segment::Text).collect())
    }

    /// The segments, if all are known.
    fn plain(&self) -> Option<Vec<String>> {
        let text = |segment: &Segment| match segment {
            Segment::Text(text) => Some(text.clone()),
            Segment::AnyHash => None,
        };
        self.0.iter().map(text).collect()
    }

    /// Whether some key may be in both sets: equal, or one within the other.
    fn meets(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(one, other)| match (one, other) {
                (Segment::Text(one), Segment::Text(other)) => one == other,
                (Segment::AnyHash, Segment::AnyHash) => true,
                (Segment::AnyHash, Segment::Text(text)) | (Segment::Text(text), Segment::AnyHash) => {
                    is_hash(text)
                }
            })
    }
}

/// At most six lower-case hex digits without leading zeros.
fn is_hash(text: &str) -> bool {
    (1..=6).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (text == "0" || !text.starts_with('0'))
}

fn keys_of(mapping: &Mapping) -> Vec<Keys> {
    let text = |text: &str| Segment::Text(text.to_owned());
    let account = &mapping.source.account;
    match &mapping.target.prefix {
        Some(prefix) => {
            vec![Keys(
                prefix
                    .split('/')
                    .filter(|_| !prefix.is_empty())
                    .map(text)
                    .collect(),
            )]
        }
        None if mapping.source.is_account_wide() => vec![
            Keys(vec![Segment::AnyHash, text(account)]),
            Keys(vec![Segment::AnyHash, text(".manifests"), text(account)]),
        ],
        None => {
            let container = &mapping.source.container;
            let objects = Namespace::new(account, container, None).listing_prefix();
            let hash = objects.split('/').next().unwrap_or_default();
            vec![
                Keys(vec![text(hash), text(account), text(container)]),
                Keys(vec![
                    text(hash),
                    text(".manifests"),
                    text(account),
                    text(container),
                ]),
            ]
        }
    }
}
