//! What is decided about all policies together: who is among the mappings, with what they refer to.

use std::collections::BTreeMap;

use onespace_core::admit::{Admitted, Applicant, Incumbents, SHARD_ROOM, admit};
use onespace_core::credentials::{CredentialShard, Credentials};
use onespace_core::load::Files;
use onespace_core::reason::PolicyFault;
use onespace_core::validate::{Resolved, ValidPolicy, look_up};

use crate::fetch::{Reference, References, Wanted};
use crate::seen::{Seen, SeenPolicy};

/// What has to be got first: the objects that policies name which may become mappings.
#[must_use]
pub fn wanted(seen: &Seen) -> Wanted {
    let granted = valid(seen).filter(|(_, policy)| seen.is_granted(policy));
    Wanted::by(granted.map(|(_, policy)| policy))
}

/// Decides. `files` are those that agents have.
#[must_use]
pub fn decide(seen: &Seen, references: &References, files: &Files) -> Admitted {
    let mut before: Option<BTreeMap<String, Credentials>> = None;
    let applicants = valid(seen).map(|(policy, valid)| {
        let config_map = match references.config_map(valid, &seen.config_maps) {
            Reference::Known(config_map) => config_map,
            Reference::Unknown => None,
        };
        let resolved = match references.secret(valid, &seen.secrets) {
            Reference::Known(secret) => look_up(valid, secret, config_map),
            Reference::Unknown => {
                let before = before.get_or_insert_with(|| credentials_in(files));
                keep_credentials(look_up(valid, None, config_map), before)
            }
        };
        Applicant {
            policy: valid,
            resolved,
            created: policy.created,
            granted: seen.is_granted(valid),
        }
    });
    admit(applicants.collect(), &Incumbents::of(files), SHARD_ROOM)
}

/// Policies that may become mappings, as far as one object shows.
fn valid(seen: &Seen) -> impl Iterator<Item = (&SeenPolicy, &ValidPolicy)> {
    let there = seen.policies.iter().filter(|(_, policy)| !policy.is_leaving());
    there.filter_map(|(_, policy)| Some((policy.as_ref(), policy.verdict.as_ref().ok()?)))
}

/// Where a Secret is there but cannot be got now, agents keep the credentials that they have.
fn keep_credentials(mut resolved: Resolved, before: &BTreeMap<String, Credentials>) -> Resolved {
    let id = &resolved.mapping.target.credential.0;
    resolved.credentials = before.get(id).cloned();
    if resolved.credentials.is_some() {
        resolved
            .findings
            .retain(|finding| finding.reason != PolicyFault::SecretNotFound);
    }
    resolved
}

fn credentials_in(files: &Files) -> BTreeMap<String, Credentials> {
    let shards = files.credentials.values();
    let shards = shards.filter_map(|bytes| serde_json::from_slice::<CredentialShard>(bytes).ok());
    shards.flat_map(|shard| shard.credentials).collect()
}
