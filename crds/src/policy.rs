//! The SyncPolicy itself.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Duration, Limits, Migrate, Objective, Quantity, Select, Shunt, SyncPolicyStatus, Target};

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Copy, and keep the local object.
    Sync,
    /// Copy, verify, then release the local object.
    Archive,
    /// Pull from the target into Swift.
    Migrate,
}

/// What is copied where, and how.
#[allow(clippy::duplicated_attributes, reason = "columns may have the same type")]
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "onespace.dev",
    version = "v1alpha1",
    kind = "SyncPolicy",
    plural = "syncpolicies",
    shortname = "syncpol",
    category = "onespace",
    namespaced,
    status = "SyncPolicyStatus",
    derive = "PartialEq",
    doc = "A SyncPolicy connects one Swift container, or all containers of an account, with a bucket of an S3 store or a container of another Swift cluster.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Lag",
        type_ = "date",
        description = "Since when the oldest row waits.",
        json_path = ".status.progress.oldestPending"
    ),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.progress.pending"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed.count"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.mode == oldSelf.mode")
    .message("mode cannot be changed: make a new policy").field_path(".mode"))]
#[x_kube(validation = Rule::new("self.source == oldSelf.source")
    .message("source cannot be changed: make a new policy").field_path(".source"))]
#[x_kube(validation = Rule::new("self.target.protocol == oldSelf.target.protocol")
    .message("target.protocol cannot be changed: make a new policy").field_path(".target.protocol"))]
#[x_kube(validation = Rule::new("self.mode == 'Sync' || self.target.bucket == oldSelf.target.bucket")
    .message("target.bucket cannot be changed in mode Archive or Migrate: the objects are there; make a new policy")
    .field_path(".target.bucket"))]
#[x_kube(validation = Rule::new(
        "self.mode == 'Sync' || (has(self.target.prefix) ? has(oldSelf.target.prefix) && self.target.prefix == oldSelf.target.prefix : !has(oldSelf.target.prefix))"
    )
    .message("target.prefix cannot be changed in mode Archive or Migrate: the objects are there; make a new policy")
    .field_path(".target.prefix"))]
#[x_kube(validation = Rule::new(
        "self.mode == 'Sync' || (has(self.target.swift) && has(self.target.swift.account) ? has(oldSelf.target.swift) && has(oldSelf.target.swift.account) && self.target.swift.account == oldSelf.target.swift.account : !(has(oldSelf.target.swift) && has(oldSelf.target.swift.account)))"
    )
    .message("target.swift.account cannot be changed in mode Archive or Migrate: the objects are there; make a new policy")
    .field_path(".target.swift"))]
#[x_kube(validation = Rule::new("self.source.container != '/*' || !has(self.target.prefix)")
    .message("an account-wide policy takes no target.prefix, its containers would overwrite each other: remove it, keys then start with a hash, the account and the container")
    .field_path(".target.prefix"))]
#[x_kube(validation = Rule::new("self.target.bucket != '/*' || self.mode == 'Migrate'")
    .message("target.bucket /* is for mode Migrate: name one bucket").field_path(".target.bucket"))]
#[x_kube(validation = Rule::new("self.target.bucket != '/*' || self.source.container == '/*'")
    .message("target.bucket /* needs source.container /*: every remote container goes to the local one of its name")
    .field_path(".target.bucket"))]
#[x_kube(validation = Rule::new("self.mode == 'Migrate' || !has(self.migrate)")
    .message("migrate is for mode Migrate: remove it").field_path(".migrate"))]
#[x_kube(validation = Rule::new(
        "!has(self.expirationOffset) || (has(self.propagateExpiration) && self.propagateExpiration)"
    )
    .message("expirationOffset needs propagateExpiration: true").field_path(".expirationOffset"))]
#[x_kube(validation = Rule::new("!has(self.segmentsDeleteAfterAddition) || has(self.remoteDeleteAfter)")
    .message("segmentsDeleteAfterAddition needs remoteDeleteAfter").field_path(".segmentsDeleteAfterAddition"))]
#[x_kube(validation = Rule::new(
        "!has(self.remoteDeleteAfter) || self.target.protocol != 'S3' || !has(self.target.prefix) || !self.target.prefix.matches('^/*$')"
    )
    .message("remoteDeleteAfter with an empty target.prefix would let the whole bucket expire: give a prefix")
    .field_path(".remoteDeleteAfter"))]
#[x_kube(validation = Rule::new(
        "!has(self.minSegmentSize) || self.target.protocol != 'S3' || !isQuantity(string(self.minSegmentSize)) || (quantity(string(self.minSegmentSize)).compareTo(quantity('5Mi')) >= 0 && quantity(string(self.minSegmentSize)).compareTo(quantity('5Gi')) <= 0)"
    )
    .message("minSegmentSize must be between 5Mi and 5Gi, the sizes that S3 takes for a part")
    .field_path(".minSegmentSize"))]
#[x_kube(validation = Rule::new(
        "!has(self.shunt) || !has(self.shunt.restore) || !self.shunt.restore || self.mode == 'Migrate' || (has(self.shunt.merge) && self.shunt.merge)"
    )
    .message("shunt.restore needs shunt.merge: true").field_path(".shunt"))]
pub struct SyncPolicySpec {
    /// What the policy does. It cannot be changed.
    pub mode: Mode,
    /// Agents stop at the next row; what they have reached stays. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The local side. It cannot be changed.
    pub source: Source,
    /// The remote side. In mode Sync it may change: copying starts over, old copies stay.
    pub target: Target,
    /// Act on a change only so long after it. Default 0s. Deletes do not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_after: Option<Duration>,
    /// The segments of a released large object stay. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_local_segments: Option<bool>,
    /// What users delete is deleted at the remote. Default true in mode Sync, false in mode Archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagate_delete: Option<bool>,
    /// At most so many deletes; more are held until the annotation `onespace.dev/release-deletes` releases them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_budget: Option<DeleteBudget>,
    /// A regular expression in Rust's syntax, matched at the start of an object's name. What matches is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub exclude: Option<String>,
    /// Which objects are copied at all; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Carry X-Delete-At to a Swift remote. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagate_expiration: Option<bool>,
    /// Remote copies expire so much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_offset: Option<Duration>,
    /// Remote copies expire so long after they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_delete_after: Option<Duration>,
    /// Segments at a Swift remote expire so much later than their object. Default 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments_delete_after_addition: Option<Duration>,
    /// Carry the container's own metadata to the remote. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_metadata: Option<bool>,
    /// Carry the container's read and write ACLs to the remote. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_acl: Option<bool>,
    /// Dynamic large objects become static ones at a Swift remote. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convert_dlo: Option<bool>,
    /// Segments smaller than this are joined. Default 5Mi, the least that S3 takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_segment_size: Option<Quantity>,
    /// What the shunt does for this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shunt: Option<Shunt>,
    /// Options of mode Migrate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<Migrate>,
    /// How fast it is meant to be; drives the condition ObjectiveMet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// How fast it may work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// The local side of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// The account, as in the path of Swift's API: `AUTH_test`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("!self.contains('/')").message("an account's name holds no slash"))]
    pub account: String,
    /// The container; `/*` stands for every container of the account.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self == '/*' || !self.contains('/')")
        .message("a container's name holds no slash (/* stands for every container of the account)"))]
    pub container: String,
}

/// How many deletes are carried out in which time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteBudget {
    /// A number, or a share of the live rows: `5%`.
    #[schemars(schema_with = "delete_budget_max")]
    pub max: DeleteBudgetMax,
    /// The time in which so many are carried out; 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

/// A number of deletes, or a share as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DeleteBudgetMax {
    /// So many.
    Count(u32),
    /// `5%` of the live rows, or a number written as text.
    Text(String),
}

fn delete_budget_max(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maximum": 999_999_999,
        "pattern": "^([0-9]{1,9}|(100|[0-9]{1,2}(\\.[0-9]{1,3})?)%)$",
    })
}
