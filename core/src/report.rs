//! What an agent reports on `/status`, and how reports of several agents add up.
//!
//! Counts add, `oldest` takes the minimum, `ringNodes` unite. Times are RFC 3339.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::mapping::{MappingId, PolicyRef};
use crate::timestamp::Timestamp;

/// A time as reports show it: RFC 3339, UTC, whole seconds.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    let seconds = i64::try_from(time.unix_seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// Reads what [`rfc3339`] writes.
#[must_use]
pub fn unix_seconds(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_second)
}

/// The whole answer of `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Who reports.
    pub agent: AgentInfo,
    /// What configuration runs.
    pub config: ConfigReport,
    /// `BOOT:N`: grows with every change; a revision of another boot gets a full answer. Of an answer in pages the
    /// first page's is the one to go on from: a mapping of an earlier page may change before a later page is read.
    pub revision: String,
    /// Whether every mapping stands here, or only those that changed since the revision that was asked for.
    pub full: bool,
    /// Ask again from this mapping id for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Mappings that are gone since the revision that was asked for.
    #[serde(default)]
    pub removed: Vec<MappingId>,
    /// The mappings.
    pub mappings: Vec<MappingReport>,
}

/// The agent itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    /// This node as the ring names it.
    pub node: String,
    /// Version of the program.
    pub version: String,
    /// Versions of the mapping files that it reads.
    pub format_versions: Vec<u32>,
    /// What mappings may require of it.
    pub features: Vec<String>,
}

/// The configuration that an agent runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigReport {
    /// Revision of the set of mappings.
    pub revision: String,
    /// When it was loaded.
    pub loaded_at: Option<String>,
    /// Why a newer set was not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Mappings that are refused alone.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// A mapping that this agent cannot honour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its id, as far as it could be read.
    pub id: String,
    /// A [`crate::reason::RefuseReason`].
    pub reason: String,
    /// What to do.
    pub message: String,
}

/// What an agent does with a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// At work, or waiting for rows.
    #[default]
    Running,
    /// The policy says so.
    Suspended,
    /// The remote or the source does not work.
    Paused,
    /// It cannot be honoured.
    Refused,
    /// Its policy is gone.
    Removing,
}

/// One mapping on one agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MappingReport {
    /// Identity.
    pub id: String,
    /// The policy.
    pub policy: Option<PolicyRef>,
    /// State.
    pub state: RunState,
    /// Stable reason of the state, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Nodes that the ring names for it, `ip:port`.
    pub ring_nodes: BTreeSet<String>,
    /// Container databases.
    pub databases: Databases,
    /// Every database's first pass is complete.
    pub initial_pass_complete: bool,
    /// The backlog.
    pub pending: Pending,
    /// What is still to be verified.
    pub verify: Verify,
    /// Rows that wait.
    pub held: HeldReport,
    /// A batch of deletes that waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_deletes: Option<HeldDeletes>,
    /// The passes that find copies whose deletes were never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<ReconcileReport>,
    /// How many rows were in step in time; absent = the policy has no objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveReport>,
    /// The limits in force; absent = the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsReport>,
    /// Triggers that were acted on.
    #[serde(default)]
    pub handled: Handled,
    /// Since the state was made.
    pub totals: Totals,
    /// The remote.
    pub remote: RemoteReport,
    /// Nothing that is due is left, and every row that time may mend had its tries. For `--once`; not on the wire.
    #[serde(skip)]
    pub idle: bool,
}

/// How many container databases are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Databases {
    /// That could be read.
    pub open: u64,
    /// That could not.
    pub unreadable: u64,
}

/// Rows that are not done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// How many.
    pub rows: u64,
    /// Counted, or estimated from ROWIDs.
    pub exact: bool,
    /// Time of the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

/// Rows that are not verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// How many.
    pub rows: u64,
    /// Time of the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

/// Held rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldReport {
    /// How many of this agent's own.
    pub rows: u64,
    /// How many that it verifies for others: they count as rows to be verified. Not on the wire.
    #[serde(skip)]
    pub of_others: u64,
    /// How many of this agent's own are on their way to the remote, and the oldest of them: they count as pending. Not
    /// on the wire.
    #[serde(skip)]
    pub transferring: (u64, Option<crate::timestamp::Timestamp>),
    /// The set is full: the watermark stands still.
    pub full: bool,
    /// Up to five of the latest.
    pub latest: Vec<HeldRow>,
}

/// One held row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldRow {
    /// `container/object`, cut at 256 bytes.
    pub object: String,
    /// A [`crate::reason::HoldReason`].
    pub reason: String,
    /// What to do.
    #[serde(default)]
    pub message: String,
    /// Tries so far.
    pub attempts: u32,
    /// First failure.
    pub since: String,
    /// When it is tried again by itself; absent = when a person asks for it, or the policy changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
}

/// A batch of deletes that waits until a person releases it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldDeletes {
    /// Names the batch when it is released.
    pub id: String,
    /// How many.
    pub rows: u64,
    /// A [`crate::reason::StallReason`].
    #[serde(default)]
    pub reason: String,
}

/// Reconciling passes over all databases of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileReport {
    /// When the oldest of the last complete passes began; the first pass, which copies, counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<String>,
    /// Databases with a pass under way.
    pub running: u64,
    /// Databases over which no pass goes, though one is due.
    pub refused: u64,
    /// Why: a [`crate::reason::PassRefusal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Objects without a mark that the last passes met where no row is: they stay.
    pub unmarked: u64,
}

/// Rows that count for the policy's objective. Counts add, `since` takes the minimum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectiveReport {
    /// How many.
    #[serde(flatten)]
    pub rows: crate::objective::Counts,
    /// Since when they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// How fast the mapping may work at the moment, on this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// Bytes a second; absent = as many as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Requests a second; absent = as many as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u64>,
    /// The window of the policy's `limits` whose time it is, counted from 0; absent = none's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
}

impl From<crate::limits::InForce> for LimitsReport {
    fn from(in_force: crate::limits::InForce) -> Self {
        let crate::limits::InForce { rates, window } = in_force;
        Self {
            bytes_per_second: rates.bytes,
            requests_per_second: rates.requests,
            window,
        }
    }
}

/// Triggers by token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// `onespace.dev/retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// `onespace.dev/release-deletes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_deletes: Option<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Objects sent, or re-posted, or found in step.
    pub objects: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Deletes carried out.
    pub deletes: u64,
    /// Local copies released.
    pub released: u64,
    /// Rows verified for other nodes.
    pub verified: u64,
    /// Of these, repaired.
    pub repaired: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        let Self {
            objects,
            bytes,
            deletes,
            released,
            verified,
            repaired,
        } = other;
        self.objects += objects;
        self.bytes += bytes;
        self.deletes += deletes;
        self.released += released;
        self.verified += verified;
        self.repaired += repaired;
    }
}

/// The remote as this agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteReport {
    /// The last request came back with an answer that was not a failure of the remote, or nothing is asked of it.
    pub reachable: bool,
    /// Known error code or HTTP status of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Operation -> allowed.
    #[serde(default)]
    pub permissions: BTreeMap<String, bool>,
    /// Capability -> there.
    #[serde(default)]
    pub capabilities: BTreeMap<String, bool>,
    /// When these were found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_at: Option<String>,
}
