//! Which policies cannot be together, and which of them wins.

use std::collections::HashMap;

use super::{Endpoint, ValidPolicy};
use crate::mapping::{Mapping, Mode, PolicyRef};
use crate::naming::Namespace;

/// A valid policy that wants to become a mapping.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The policy.
    pub policy: ValidPolicy,
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

/// The keys of an accepted policy, and its place among the accepted.
type Claim = (Vec<Keys>, usize);

/// Settles who may be together. A policy that is among the mappings wins, then the older one, then the one whose
/// namespace and name come first.
#[must_use]
pub fn settle(mut candidates: Vec<Candidate>) -> (Vec<ValidPolicy>, Vec<Conflict>) {
    candidates.sort_by_cached_key(|candidate| {
        let policy = &candidate.policy.mapping.policy;
        let created = candidate.created.unwrap_or(i64::MAX);
        (
            !candidate.incumbent,
            created,
            policy.namespace.clone(),
            policy.name.clone(),
        )
    });

    let mut accepted: Vec<ValidPolicy> = Vec::new();
    let mut conflicts = Vec::new();
    let mut buckets: HashMap<(Endpoint, String), Vec<Claim>> = HashMap::new();
    let mut sources: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for Candidate { policy, .. } in candidates {
        let mapping = &policy.mapping;
        let keys = keys_of(mapping);
        let bucket = buckets
            .entry((policy.endpoint.clone(), mapping.target.bucket.clone()))
            .or_default();
        let source = sources
            .entry((mapping.source.account.clone(), mapping.source.container.clone()))
            .or_default();

        let by_keys = bucket.iter().find_map(|(others, index)| {
            let other: &Mapping = &accepted[*index].mapping;
            let mixed = keys
                .iter()
                .any(|keys| others.iter().any(|other| keys.meets(other)));
            if other.id == mapping.id {
                Some((*index, Clash::Same))
            } else if mixed && !taken_out(mapping, other) && !taken_out(other, mapping) {
                Some((*index, Clash::Keys))
            } else {
                None
            }
        });
        let by_mode = || {
            let mut others = source.iter().map(|index| (*index, accepted[*index].mapping.mode));
            others
                .find(|(_, mode)| exclusive(mapping.mode, *mode))
                .map(|(index, _)| (index, Clash::Modes))
        };
        if let Some((index, clash)) = by_keys.or_else(by_mode) {
            let winner = accepted[index].mapping.policy.clone();
            conflicts.push(Conflict {
                loser: mapping.policy.clone(),
                winner,
                clash,
            });
            continue;
        }
        bucket.push((keys, accepted.len()));
        source.push(accepted.len());
        accepted.push(policy);
    }
    (accepted, conflicts)
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
