//! From a SyncPolicy to a mapping, or to everything that is wrong with it.
//!
//! What one object shows by itself (patterns, lengths, the rules between its fields) is checked before, by the
//! schema of the CRD: by the API server, or offline by the command line with the same rules. Here is what a schema
//! cannot check, the defaults, and the identity of the mapping.

mod bounds;
mod conflict;
mod endpoint;
mod identity;
mod references;
mod selection;
mod unsupported;

use std::fmt;
use std::sync::Arc;

use onespace_crds::{EncryptionType, SyncPolicy, SyncPolicySpec, Toggle};

pub use conflict::{Candidate, Clash, Conflict, settle};
pub use endpoint::Endpoint;
pub use references::{ConfigMapObject, Reference, Resolved, SecretObject, look_up, resolve};

use crate::mapping::{
    ALL_CONTAINERS, CredentialRef, Encryption, Mapping, MappingState, Mode, PolicyRef, Source, Target,
    Triggers,
};
use crate::reason::PolicyFault;
use crate::select::Selector;
use crate::shard::credential_id;
use crate::status::json_length;

/// The region that requests are signed for unless the policy names one.
pub const DEFAULT_REGION: &str = "us-east-1";

/// Segments smaller than this are joined unless the policy says otherwise: the least part that S3 takes, in bytes.
pub const DEFAULT_MIN_SEGMENT_SIZE: u64 = 5 << 20;

/// The annotation whose value, when it changes, has all held rows tried again.
pub const RETRY: &str = "onespace.dev/retry";

/// The annotation whose value releases the batch of held deletes of that id.
pub const RELEASE_DELETES: &str = "onespace.dev/release-deletes";

/// The longest token of a trigger, in bytes of JSON: its echo must fit into the status.
const MAX_TOKEN: usize = 256;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field, `spec.target.bucket`.
    pub path: String,
    /// The stable word.
    pub reason: PolicyFault,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(path: impl Into<String>, reason: PolicyFault, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path, self.reason, self.message)
    }
}

/// A policy that can be run, and what must be there for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidPolicy {
    /// The mapping. Its `ca_bundle` is filled by [`resolve`].
    pub mapping: Arc<Mapping>,
    /// Name of the Secret, in the policy's own namespace.
    pub secret: String,
    /// Name and key of the ConfigMap with certificates, in the policy's own namespace.
    pub ca_bundle: Option<(String, String)>,
    /// The remote's address for comparisons.
    pub endpoint: Endpoint,
}

impl ValidPolicy {
    /// The policy behind a mapping that agents have, when the policy itself cannot be read: what it refers to is not known.
    /// None for an endpoint that no version of onespace writes.
    #[must_use]
    pub fn behind(mapping: Mapping) -> Option<Self> {
        let endpoint = match &mapping.target.endpoint {
            None => Endpoint::Aws,
            Some(text) => Endpoint::parse(text)?,
        };
        Some(Self {
            mapping: Arc::new(mapping),
            secret: String::new(),
            ca_bundle: None,
            endpoint,
        })
    }
}

/// Validates one policy and applies the defaults.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validate(policy: &SyncPolicy) -> Result<ValidPolicy, Vec<Finding>> {
    let mut findings = unsupported::findings(&policy.spec);

    let SyncPolicySpec {
        mode,
        suspend,
        source,
        target,
        copy_after,
        retain_local_segments,
        propagate_delete,
        exclude,
        select,
        min_segment_size,
        delete_budget,
        limits,
        objective,
        // Refused above whenever they are set.
        propagate_expiration: _,
        expiration_offset: _,
        remote_delete_after: _,
        segments_delete_after_addition: _,
        container_metadata: _,
        container_acl: _,
        convert_dlo: _,
        shunt: _,
        migrate: _,
    } = &policy.spec;

    if let Some(exclude) = exclude
        && let Err(error) = Selector::new(Some(exclude), None)
    {
        findings.push(Finding::new(
            "spec.exclude",
            PolicyFault::InvalidPattern,
            error.to_string(),
        ));
    }
    let endpoint = match &target.endpoint {
        None => Some(Endpoint::Aws),
        Some(text) => Endpoint::parse(text),
    };
    if endpoint.is_none() {
        findings.push(Finding::new(
            "spec.target.endpoint",
            PolicyFault::InvalidEndpoint,
            "the endpoint is no address: write http:// or https://, a host, and at most a port (1 to 65535) and a path",
        ));
    }
    // The schema refuses these two as well. Here they would mean lost objects, or a mapping without keys.
    if source.container == ALL_CONTAINERS && target.prefix.is_some() {
        findings.push(Finding::new(
            "spec.target.prefix",
            PolicyFault::Invalid,
            "an account-wide policy takes no prefix, its containers would overwrite each other: remove it",
        ));
    }
    if target.credentials.secret_ref.is_none() && target.credentials.ambient.is_none() {
        findings.push(Finding::new(
            "spec.target.credentials",
            PolicyFault::Invalid,
            "name a Secret in secretRef",
        ));
    }
    let delete_budget = delete_budget
        .as_ref()
        .and_then(|budget| bounds::delete_budget(budget, &mut findings));
    let limits = limits
        .as_ref()
        .map(|limits| bounds::limits(limits, &mut findings));
    let objective = objective
        .as_ref()
        .and_then(|objective| bounds::objective(objective, &mut findings));
    let triggers = triggers(policy, &mut findings);
    let policy_ref = reference(policy, &mut findings);

    let (Some(endpoint), Some(secret)) = (endpoint, target.credentials.secret_ref.as_ref()) else {
        return Err(findings);
    };
    if !findings.is_empty() {
        return Err(findings);
    }

    let sync = *mode == Mode::Sync;
    let aws = endpoint.is_aws();
    let mut mapping = Mapping {
        id: identity::mapping_id(source, target, &endpoint),
        starts_over: String::new(),
        state: if suspend.unwrap_or(false) {
            MappingState::Suspended
        } else {
            MappingState::Active
        },
        requires: Vec::new(),
        mode: *mode,
        source: Source {
            account: source.account.clone(),
            container: source.container.clone(),
        },
        carved_out: Vec::new(),
        target: Target {
            protocol: target.protocol,
            endpoint: target.endpoint.clone(),
            region: target.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            bucket: target.bucket.clone(),
            prefix: target
                .prefix
                .as_deref()
                .map(|prefix| prefix.trim_matches('/').to_owned()),
            credential: CredentialRef(credential_id(&policy_ref.namespace, &secret.name)),
            ca_bundle: None,
            http_proxy: target.http_proxy.clone(),
            path_style: toggle(target.path_style),
            request_checksums: toggle(target.request_checksums),
            encryption: match &target.encryption {
                None if aws => Encryption::AES256,
                None => Encryption::None,
                Some(encryption) => match encryption.kind {
                    EncryptionType::None => Encryption::None,
                    EncryptionType::AES256 => Encryption::AES256,
                    EncryptionType::KMS => Encryption::KMS {
                        kms_key_id: encryption.kms_key_id.clone(),
                    },
                },
            },
            storage_class: target.storage_class.clone(),
        },
        policy: policy_ref,
        copy_after: copy_after.as_ref().map_or(0, onespace_crds::Duration::seconds),
        retain_local_segments: retain_local_segments.unwrap_or(true),
        propagate_delete: propagate_delete.unwrap_or(sync),
        delete_budget,
        exclude: exclude.clone(),
        select: select.as_ref().map(selection::selection),
        min_segment_size: min_segment_size
            .as_ref()
            .map_or(DEFAULT_MIN_SEGMENT_SIZE, onespace_crds::Quantity::bytes),
        limits,
        objective,
        triggers,
    };
    mapping.requires = requires(&mapping);
    mapping.starts_over = identity::starts_over(&mapping);
    Ok(ValidPolicy {
        mapping: Arc::new(mapping),
        secret: secret.name.clone(),
        ca_bundle: target.ca_bundle.as_ref().map(|bundle| {
            (
                bundle.config_map_ref.name.clone(),
                bundle.config_map_ref.key.clone(),
            )
        }),
        endpoint,
    })
}

fn toggle(toggle: Option<Toggle>) -> Option<bool> {
    match toggle.unwrap_or_default() {
        Toggle::Auto => None,
        Toggle::Always => Some(true),
        Toggle::Never => Some(false),
    }
}

/// What an agent must know in order to run this mapping.
fn requires(mapping: &Mapping) -> Vec<String> {
    let wanted = [
        ("sync", mapping.mode == Mode::Sync),
        ("account-wide", mapping.source.is_account_wide()),
        ("select", mapping.select.is_some()),
        ("exclude", mapping.exclude.is_some()),
        ("copy-after", mapping.copy_after > 0),
        ("delete-budget", mapping.delete_budget.is_some()),
        ("limits", mapping.limits.is_some()),
        ("objective", mapping.objective.is_some()),
    ];
    wanted
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(feature, _)| feature.to_owned())
        .collect()
}

fn reference(policy: &SyncPolicy, findings: &mut Vec<Finding>) -> PolicyRef {
    let name = policy.metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        findings.push(Finding::new(
            "metadata.name",
            PolicyFault::Invalid,
            "the policy has no name: give one",
        ));
    }
    PolicyRef {
        // Where kubectl puts an object that names no namespace.
        namespace: policy
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
        name,
        generation: policy.metadata.generation.unwrap_or(1),
    }
}

fn triggers(policy: &SyncPolicy, findings: &mut Vec<Finding>) -> Triggers {
    let mut token = |name: &str| {
        let token = policy
            .metadata
            .annotations
            .as_ref()?
            .get(name)
            .filter(|token| !token.is_empty())?;
        if json_length(token) > MAX_TOKEN {
            findings.push(Finding::new(
                format!("metadata.annotations[{name}]"),
                PolicyFault::Invalid,
                format!("the token is longer than {MAX_TOKEN} bytes: shorten it"),
            ));
        }
        Some(token.clone())
    };
    Triggers {
        retry: token(RETRY),
        release_deletes: token(RELEASE_DELETES),
    }
}

#[cfg(test)]
mod tests;
