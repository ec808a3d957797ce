//! How fast a policy may work, and how fast it is meant to be.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Quantity};

/// What share of the rows is to be done within what time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objective {
    /// The share, `99.9%`.
    #[schemars(length(max = 10), regex(pattern = "^(100|[0-9]{1,2}(\\.[0-9]{1,4})?)%$"))]
    pub ratio: String,
    /// The time from a row's newest timestamp until it is done.
    pub within: Duration,
    /// The time over which the share is taken; 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Duration>,
}

/// Limits of this policy, for each agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Bytes a second, to and from the remote; at least 64Ki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Quantity>,
    /// Requests a second to the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: Option<u32>,
    /// Times of the week in which other limits hold. The first that fits counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub windows: Option<Vec<LimitsWindow>>,
}

/// A time of the week with limits of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.bytesPerSecond) || has(self.requestsPerSecond)")
    .message("a window needs bytesPerSecond or requestsPerSecond"))]
#[x_kube(validation = Rule::new("self.start != self.end")
    .message("start and end of a window are the same: for a whole day write 00:00 and 24:00")
    .field_path(".end"))]
pub struct LimitsWindow {
    /// The days on which it starts; every day when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7))]
    pub days: Option<Vec<Day>>,
    /// When it starts, `20:00`.
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// When it ends, `06:00`; at or before the start = on the next day. `24:00` is the end of the day.
    #[schemars(length(max = 5), regex(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub end: String,
    /// The IANA name of the time zone, `Europe/Berlin`; UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    pub time_zone: Option<String>,
    /// Bytes a second in this time; as outside of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Quantity>,
    /// Requests a second in this time; as outside of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: Option<u32>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}
