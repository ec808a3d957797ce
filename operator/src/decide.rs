//! What is decided about all policies together: who is among the mappings, with what they refer to.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use onespace_core::admit::{Admitted, Applicant, Incumbents, SHARD_ROOM, admit};
use onespace_core::credentials::{CredentialShard, Credentials};
use onespace_core::load::Files;
use onespace_core::mapping::{Mapping, MappingId, MappingShard};
use onespace_core::validate::{Resolved, ValidPolicy, look_up};

use crate::fetch::{References, Wanted};
use crate::seen::{Seen, SeenPolicy};

/// What has to be got first: the objects that policies name which may become mappings.
#[must_use]
pub fn wanted(seen: &Seen) -> Wanted {
    let granted = valid(seen).filter(|(_, policy)| seen.is_granted(policy));
    Wanted::by(granted.map(|(_, policy)| policy))
}

/// Decides. `files` are those that agents have, with the mappings of these `incumbents`.
#[must_use]
pub fn decide(seen: &Seen, references: &References, files: &Files, incumbents: &Incumbents) -> Admitted {
    let before = LazyCell::new(|| Before::in_files(files));
    let hidden = match seen.unreadable().next() {
        Some(_) => before.hidden(seen),
        None => Vec::new(),
    };
    let applicants = valid(seen).map(|(policy, valid)| {
        let mut resolved = look_up(
            valid,
            references.secret(valid, &seen.secrets),
            references.config_map(valid, &seen.config_maps),
        );
        if resolved
            .findings
            .iter()
            .any(|finding| finding.reason.is_tried_again())
        {
            before.keep(valid, &mut resolved);
        }
        Applicant {
            policy: valid,
            resolved,
            created: policy.created,
            granted: seen.is_granted(valid),
        }
    });
    // They hold their places against others, and a grant that is withdrawn ends them as it ends any other.
    let hidden = hidden.iter().map(|policy| Applicant {
        policy,
        resolved: before.unchanged(policy),
        created: None,
        granted: seen.is_granted(policy),
    });
    let applicants = applicants.chain(hidden).collect();
    admit(applicants, incumbents, SHARD_ROOM)
}

/// Policies that may become mappings, as far as one object shows.
fn valid(seen: &Seen) -> impl Iterator<Item = (&SeenPolicy, &ValidPolicy)> {
    let there = seen.policies.iter().filter(|(_, policy)| !policy.is_leaving());
    there.filter_map(|(_, policy)| Some((policy.as_ref(), policy.verdict.as_ref().ok()?)))
}

/// What agents have: where something cannot be got, they go on with it.
struct Before {
    credentials: BTreeMap<String, Credentials>,
    mappings: BTreeMap<MappingId, Mapping>,
}

impl Before {
    fn in_files(files: &Files) -> Self {
        let credentials = files.credentials.values();
        let credentials =
            credentials.filter_map(|bytes| serde_json::from_slice::<CredentialShard>(bytes).ok());
        let mappings = files.mappings.values();
        let mappings = mappings
            .filter_map(|bytes| serde_json::from_slice::<MappingShard>(bytes).ok())
            .flat_map(|shard| shard.mappings)
            .filter_map(|mapping| serde_json::from_value::<Mapping>(mapping).ok());
        Self {
            credentials: credentials.flat_map(|shard| shard.credentials).collect(),
            mappings: mappings.map(|mapping| (mapping.id.clone(), mapping)).collect(),
        }
    }

    fn keep(&self, policy: &ValidPolicy, resolved: &mut Resolved) {
        let Mapping {
            id,
            policy: reference,
            target,
            ..
        } = &*policy.mapping;
        resolved.keep_credentials(self.credentials.get(&target.credential.0));
        // Another generation may name other certificates.
        let mapping = self.mappings.get(id);
        let mapping = mapping.filter(|mapping| mapping.policy == *reference);
        let certificates = mapping.and_then(|mapping| mapping.target.ca_bundle.as_ref());
        resolved.keep_certificates(policy, certificates);
    }

    /// Policies that nobody shows us, from the mappings that were made of them.
    fn hidden(&self, seen: &Seen) -> Vec<ValidPolicy> {
        let mappings = self.mappings.values().filter(|mapping| {
            let policy = &mapping.policy;
            seen.may_be_hidden(&(policy.namespace.clone(), policy.name.clone()))
        });
        mappings.cloned().filter_map(ValidPolicy::behind).collect()
    }

    fn unchanged(&self, policy: &ValidPolicy) -> Resolved {
        let mapping = policy.mapping.clone();
        Resolved {
            credentials: self.credentials.get(&mapping.target.credential.0).cloned(),
            mapping,
            findings: Vec::new(),
            outdated: Vec::new(),
        }
    }
}
