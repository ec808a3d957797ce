//! Which policies become mappings: granted, without conflict, and with room in their shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::credentials::{CredentialShard, Credentials};
use crate::load::Files;
use crate::mapping::{Mapping, MappingShard};
use crate::reason::PolicyFault;
use crate::shard::shard_of;
use crate::validate::{Candidate, Finding, Resolved, ValidPolicy, settle};

/// How many bytes the mappings, or the credentials, of one shard may have. A ConfigMap or Secret holds 1 MiB.
pub const SHARD_ROOM: usize = 900_000;

/// Namespace and name of a policy.
pub type PolicyKey = (String, String);

/// A valid policy that wants to become a mapping.
#[derive(Clone, Debug)]
pub struct Applicant<'a> {
    /// The policy.
    pub policy: &'a ValidPolicy,
    /// The policy with what it refers to.
    pub resolved: Resolved,
    /// `creationTimestamp` in seconds since 1970.
    pub created: Option<i64>,
    /// A grant covers it, or it needs none.
    pub granted: bool,
}

/// Who is in and who is not.
#[derive(Debug, Default)]
pub struct Admitted {
    /// The mappings, in the order of their claims.
    pub mappings: Vec<Arc<Mapping>>,
    /// Their credentials by the id that they name, as far as they are there.
    pub credentials: BTreeMap<String, Credentials>,
    /// Those that are not among the mappings yet, because it is not their shard's turn.
    pub waiting: BTreeSet<PolicyKey>,
    /// Why the others are not accepted.
    pub refused: BTreeMap<PolicyKey, Finding>,
    /// What is missing for those that are.
    pub lacking: BTreeMap<PolicyKey, Vec<Finding>>,
    /// What may have changed for those that are, and could not be got.
    pub outdated: BTreeMap<PolicyKey, Vec<Finding>>,
}

/// The policies that are among the mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incumbents {
    /// By mapping.
    mappings: BTreeMap<String, PolicyKey>,
    policies: BTreeSet<PolicyKey>,
}

impl Incumbents {
    /// Those in the files that agents have. What cannot be read counts as absent.
    #[must_use]
    pub fn of(files: &Files) -> Self {
        let text = |mapping: &Value, pointer: &str| Some(mapping.pointer(pointer)?.as_str()?.to_owned());
        let shards = files.mappings.values();
        let mappings = shards
            .filter_map(|bytes| serde_json::from_slice::<MappingShard>(bytes).ok())
            .flat_map(|shard| shard.mappings)
            .filter_map(|mapping| {
                let policy = (
                    text(&mapping, "/policy/namespace")?,
                    text(&mapping, "/policy/name")?,
                );
                Some((text(&mapping, "/id")?, policy))
            });
        Self::from_iter(mappings)
    }

    /// Those of these mappings.
    #[must_use]
    pub fn among(mappings: &[Arc<Mapping>]) -> Self {
        let mappings = mappings.iter();
        mappings
            .map(|mapping| (mapping.id.0.clone(), key(mapping)))
            .collect()
    }

    /// Whether neither this mapping nor another one of its policy is among them.
    #[must_use]
    pub fn is_new(&self, mapping: &Mapping) -> bool {
        !self.mappings.contains_key(&mapping.id.0) && !self.policies.contains(&key(mapping))
    }

    fn has(&self, mapping: &Mapping) -> bool {
        self.mappings.get(&mapping.id.0) == Some(&key(mapping))
    }
}

impl FromIterator<(String, PolicyKey)> for Incumbents {
    fn from_iter<I: IntoIterator<Item = (String, PolicyKey)>>(mappings: I) -> Self {
        let mappings: BTreeMap<String, PolicyKey> = mappings.into_iter().collect();
        let policies = mappings.values().cloned().collect();
        Self { mappings, policies }
    }
}

/// Decides about all policies together. `room` is how many bytes a shard may have, mostly [`SHARD_ROOM`].
#[must_use]
pub fn admit(applicants: Vec<Applicant<'_>>, incumbents: &Incumbents, room: usize) -> Admitted {
    let mut admitted = Admitted::default();
    let (granted, others): (Vec<_>, Vec<_>) = applicants.into_iter().partition(|applicant| applicant.granted);
    for applicant in others {
        let message = format!(
            "no AccountGrant lets this namespace have a {:?} policy for account {:?} with this endpoint and these credentials: ask an administrator for one",
            applicant.policy.mapping.mode, applicant.policy.mapping.source.account
        );
        let finding = Finding::new("metadata.namespace", PolicyFault::NotGranted, message);
        admitted.refused.insert(key(&applicant.policy.mapping), finding);
    }

    let mut contenders: BTreeMap<PolicyKey, Applicant<'_>> = granted
        .into_iter()
        .map(|applicant| (key(&applicant.policy.mapping), applicant))
        .collect();
    // Who does not fit leaves, and those who had lost against it are heard again.
    loop {
        let candidates = contenders.values().map(|applicant| Candidate {
            policy: applicant.policy,
            incumbent: incumbents.has(&applicant.policy.mapping),
            created: applicant.created,
        });
        let (accepted, conflicts) = settle(candidates.collect());
        let order: Vec<PolicyKey> = accepted.into_iter().map(|policy| key(&policy.mapping)).collect();
        let too_large = without_room(&order, &contenders, room);
        if too_large.is_empty() {
            for conflict in conflicts {
                let message = conflict.message();
                let loser = (conflict.loser.namespace, conflict.loser.name);
                let finding = Finding::new("spec.target", PolicyFault::Conflict, message);
                admitted.refused.insert(loser, finding);
            }
            for policy in order {
                let Some(Applicant { resolved, .. }) = contenders.remove(&policy) else {
                    continue;
                };
                let Resolved {
                    mapping,
                    credentials,
                    findings,
                    outdated,
                } = resolved;
                if let Some(credentials) = credentials {
                    admitted
                        .credentials
                        .insert(mapping.target.credential.0.clone(), credentials);
                }
                if !outdated.is_empty() {
                    admitted.outdated.insert(policy.clone(), outdated);
                }
                if !findings.is_empty() {
                    admitted.lacking.insert(policy, findings);
                }
                admitted.mappings.push(mapping);
            }
            return admitted;
        }
        for policy in too_large {
            contenders.remove(&policy);
            let message = "the shard of files that this policy belongs to is full: remove policies, or shorten their options and certificates";
            let finding = Finding::new("spec", PolicyFault::TooLarge, message);
            admitted.refused.insert(policy, finding);
        }
    }
}

/// Those for which their shard has no room, if all are taken in this order.
fn without_room(
    order: &[PolicyKey],
    applicants: &BTreeMap<PolicyKey, Applicant<'_>>,
    room: usize,
) -> Vec<PolicyKey> {
    let mut mappings: BTreeMap<String, usize> = BTreeMap::new();
    let mut credentials: BTreeMap<String, usize> = BTreeMap::new();
    let mut written: BTreeSet<&str> = BTreeSet::new();
    let mut too_large = Vec::new();
    for policy in order {
        let Some(Resolved {
            mapping,
            credentials: login,
            ..
        }) = applicants.get(policy).map(|applicant| &applicant.resolved)
        else {
            continue;
        };
        let id = mapping.target.credential.0.as_str();
        let login = login.as_ref().filter(|_| !written.contains(id));
        let (Some(shard), Some(login_shard)) = (mapping.id.shard(), shard_of(id)) else {
            continue;
        };
        let taken = mappings.entry(shard).or_default();
        let login_taken = credentials.entry(login_shard).or_default();
        let size = in_a_file(&**mapping);
        let login_size = login.map_or(0, |login| {
            let alone = CredentialShard {
                revision: String::new(),
                credentials: BTreeMap::from([(id.to_owned(), login.clone())]),
            };
            in_a_file(&alone)
        });
        if *taken + size > room || *login_taken + login_size > room {
            too_large.push(policy.clone());
            continue;
        }
        *taken += size;
        *login_taken += login_size;
        if login.is_some() {
            written.insert(id);
        }
    }
    too_large
}

/// What a value adds to a file at most: pretty-printed, two levels deep.
fn in_a_file(value: &impl serde::Serialize) -> usize {
    let text = serde_json::to_vec_pretty(value).unwrap_or_default();
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    text.len() + 4 * lines + 2
}

/// The policy of a mapping.
pub(crate) fn key(mapping: &Mapping) -> PolicyKey {
    (mapping.policy.namespace.clone(), mapping.policy.name.clone())
}

#[cfg(test)]
#[path = "admit_tests.rs"]
pub(crate) mod tests;
