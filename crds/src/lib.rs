//! The Kubernetes API of onespace: group `onespace.dev`, version `v1alpha1`.
//!
//! The doc comments of these types are the user's documentation: they become the descriptions in
//! `crds/*.yaml`, which `kubectl explain syncpol.spec` shows. What can be checked in one
//! object is part of the schema (patterns, lengths, CEL rules), so that the API server and the command line refuse
//! the same things with the same words.

mod duration;
mod grant;
mod limits;
mod manifest;
mod migrate;
mod policy;
mod quantity;
mod select;
mod status;
mod target;

pub use duration::{BadDuration, Duration};
pub use grant::{AccountGrant, AccountGrantSpec, LabelOperator, LabelRequirement, NamespaceSelector};
pub use limits::{Day, Limits, LimitsWindow, Objective};
pub use manifest::{CrdError, account_grant_crd, schema_of, sync_policy_crd, sync_policy_schema};
pub use migrate::{Migrate, OnRemoteUnavailable, Shunt};
pub use policy::{DeleteBudget, DeleteBudgetMax, Mode, Source, SyncPolicy, SyncPolicySpec};
pub use quantity::{BadQuantity, Quantity};
pub use select::{Match, MetadataMatch, Select, SubMatch, SubSubMatch};
pub use status::{
    Agents, Condition, ConditionStatus, FailedRow, FailedRows, HeldDeletes, Progress, Remote,
    SyncPolicyStatus,
};
pub use target::{
    Ambient, CaBundle, ConfigMapKeyRef, Credentials, Encryption, EncryptionType, Protocol, SecretRef, Swift,
    SwiftAuth, SwiftAuthType, Target, Toggle,
};

/// The API group.
pub const GROUP: &str = "onespace.dev";

/// The API version.
pub const VERSION: &str = "v1alpha1";
