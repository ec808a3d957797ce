//! A mapping: a policy after validation and defaulting, with credentials by reference. The files that carry
//! mappings and credentials to agents, shunt and connector.
//!
//! Shape of the files: `mappings/NN.json`, `mappings/index.json`, `credentials/NN.json`, NN = 00..15 by the first
//! hex digit of the mapping's id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use onespace_crds::{Mode, Protocol};

/// The version of the file formats that this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The container that stands for every container of an account.
pub const ALL_CONTAINERS: &str = "/*";

/// How many shards the mappings (and credentials) are spread over.
pub const SHARDS: usize = 16;

/// The features that a mapping may require and that this version knows.
pub const FEATURES: &[&str] = &[
    "sync",
    "account-wide",
    "select",
    "exclude",
    "copy-after",
    "slo",
    "delete-budget",
    "limits",
    "objective",
];

/// The identity of a mapping: 32 hex digits over source and target, never over a resource's name or uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MappingId(pub String);

/// Which container or account is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Swift account.
    pub account: String,
    /// Container, or `/*` for all containers of the account.
    pub container: String,
}

impl Source {
    /// Whether every container of the account is meant.
    #[must_use]
    pub fn is_account_wide(&self) -> bool {
        self.container == ALL_CONTAINERS
    }
}

/// The policy that a mapping was made from: its name is shown and labels metrics; identity is [`MappingId`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// Namespace of the SyncPolicy.
    pub namespace: String,
    /// Name of the SyncPolicy.
    pub name: String,
    /// Its `metadata.generation` (1 when rendered from files).
    pub generation: i64,
}

/// What agents do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappingState {
    /// Work on it.
    Active,
    /// Stop at the next row; cursors stay.
    Suspended,
    /// The policy is gone: take back what was set at the remote, then report it gone.
    Removing,
}

/// Encryption at the remote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Encryption {
    /// No header: the bucket's default.
    None,
    /// `x-amz-server-side-encryption: AES256`.
    AES256,
    /// `aws:kms`, with a key or the account's default key.
    KMS {
        /// Key id or ARN.
        #[serde(rename = "kmsKeyID", default, skip_serializing_if = "Option::is_none")]
        kms_key_id: Option<String>,
    },
}

/// Where the credentials are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CredentialRef(pub String);

/// The remote of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// S3 or Swift.
    pub protocol: Protocol,
    /// Base URL; absent = AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Key prefix without slashes at its ends; absent = the hashed namespace; empty = keys as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// An entry of the credential files, or `ambient`.
    pub credential: CredentialRef,
    /// Extra trusted certificates, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Forward proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<String>,
    /// Bucket in the path rather than in the host name. Absent = Auto: yes where an endpoint is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Send the SDK's checksums with requests. Absent = Auto: only at AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_checksums: Option<bool>,
    /// Server-side encryption.
    pub encryption: Encryption,
    /// Storage class of copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
}

/// The one-time triggers of a policy, by their token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Triggers {
    /// Try all held rows again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// Release this batch of held deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_deletes: Option<String>,
}

/// One policy, validated, defaulted: all that an agent needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// Identity.
    pub id: MappingId,
    /// Digest of the fields whose change makes the mapping start over.
    pub starts_over: String,
    /// The policy it came from.
    pub policy: PolicyRef,
    /// What to do with it.
    pub state: MappingState,
    /// Features without which this mapping must not be run.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Sync, Archive or Migrate.
    pub mode: Mode,
    /// What is followed.
    pub source: Source,
    /// Containers that have a policy of their own and are taken out of this account-wide one. Derived when
    /// loading; never in a file.
    #[serde(skip)]
    pub carved_out: Vec<String>,
    /// Where it goes.
    pub target: Target,
    /// Act on a row only so many seconds after its newest timestamp.
    #[serde(default)]
    pub copy_after: u64,
    /// Segments of a released large object stay.
    pub retain_local_segments: bool,
    /// User deletes are carried out at the remote.
    pub propagate_delete: bool,
    /// At most so many deletes in a window; more are held as a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_budget: Option<crate::budget::DeleteBudget>,
    /// Regular expression, matched at the start of the object name; what matches is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// What is copied at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<crate::select::Select>,
    /// Segments smaller than this many bytes are joined.
    pub min_segment_size: u64,
    /// How fast it may work, on each agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<crate::limits::Limits>,
    /// How fast it is meant to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<crate::objective::Objective>,
    /// One-time triggers.
    #[serde(default)]
    pub triggers: Triggers,
}

impl Mapping {
    /// Whether work that goes on under the other may go on under this one: they differ in triggers and the policy's
    /// generation at most.
    #[must_use]
    pub fn is_same_work(&self, other: &Self) -> bool {
        let under_this = Self {
            triggers: self.triggers.clone(),
            policy: PolicyRef {
                generation: self.policy.generation,
                ..other.policy.clone()
            },
            ..other.clone()
        };
        *self == under_this
    }
}

/// The content of `mappings/NN.json`. Mappings are kept as values: one that does not parse is refused alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MappingShard {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Revision of this shard's content.
    pub revision: String,
    /// Each a [`Mapping`].
    pub mappings: Vec<serde_json::Value>,
}

/// One shard in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardEntry {
    /// The revision that stands inside the shard's file.
    pub revision: String,
    /// sha256 of the mapping file's bytes, hex. Never there for credentials: it would be a guessable hash of a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The content of `mappings/index.json`: agents load no mixture that does not match it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Revision of the whole set.
    pub revision: String,
    /// Mapping shards by their two digits.
    pub mappings: BTreeMap<String, ShardEntry>,
    /// Credential shards by their two digits.
    pub credentials: BTreeMap<String, ShardEntry>,
}
