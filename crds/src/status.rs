//! What the operator reports of a policy. Nothing of it is ever written by a user.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The state of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncPolicyStatus {
    /// The generation that this status is about; -1 while no operator has seen the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The source in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    pub source: Option<String>,
    /// The target in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub target: Option<String>,
    /// The agents that work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Agents>,
    /// How far it is. Each row counts once, at the agent that it is assigned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Rows that cannot be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedRows>,
    /// Deletes that exceed the budget and wait for a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_deletes: Option<HeldDeletes>,
    /// What was found out about the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// The last value of the annotation `onespace.dev/retry` that every agent that answers has acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_retry: Option<String>,
    /// Accepted, CredentialsReady, Ready, Reconciling, Stalled, InitialSyncComplete, ObjectiveMet, Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The agents that work on a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agents {
    /// Container servers that the ring names for its containers: each may hold a part. Unknown while no agent reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u32>,
    /// Of these, how many have an agent that answers.
    #[serde(default)]
    pub reporting: u32,
    /// Of these, how many have one that runs the observed generation.
    #[serde(default)]
    pub current: u32,
}

/// How far a policy is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// When these numbers were true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub as_of: Option<Time>,
    /// Rows that wait.
    #[serde(default)]
    pub pending: u64,
    /// The newest timestamp of the row that waits longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub oldest_pending: Option<Time>,
    /// Objects copied so far.
    #[serde(default)]
    pub objects: u64,
    /// Bytes copied so far.
    #[serde(default)]
    pub bytes: u64,
    /// Deletes carried out so far.
    #[serde(default)]
    pub deletes: u64,
    /// Local objects released so far.
    #[serde(default)]
    pub released: u64,
}

/// Rows that cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedRows {
    /// How many.
    #[serde(default)]
    pub count: u64,
    /// The latest of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub latest: Vec<FailedRow>,
}

/// A row that cannot be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedRow {
    /// The object's name, cut at 256 bytes.
    #[schemars(length(max = 256))]
    pub object: String,
    /// Why: a word that SEMANTICS.md explains.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Tries so far.
    pub attempts: u32,
    /// Since when.
    #[schemars(schema_with = "time")]
    pub since: Time,
}

/// Deletes that wait for a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldDeletes {
    /// The batch: the value for the annotation `onespace.dev/release-deletes`.
    #[schemars(length(max = 64))]
    pub id: String,
    /// How many.
    pub count: u64,
}

/// What was found out about the remote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// What the remote can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub capabilities: Vec<String>,
    /// When this was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub probed_at: Option<Time>,
}

/// One aspect of a policy's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z]+$"))]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status changed last.
    #[schemars(schema_with = "time")]
    pub last_transition_time: Time,
    /// A word for programs: one of a closed list that SEMANTICS.md explains.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z]+$"))]
    pub reason: String,
    /// A sentence for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows yet.
    Unknown,
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}
