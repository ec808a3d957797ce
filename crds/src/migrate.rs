//! Reading back through Swift: what the shunt does, and pulling from the remote into Swift.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Quantity};

/// What the shunt, the proxy in front of Swift, does for this policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shunt {
    /// The shunt serves objects that are remote only, and merges them into listings. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<bool>,
    /// A complete GET through the shunt also writes the object back to Swift. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<bool>,
    /// What a listing answers while the remote cannot be reached. Default `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_remote_unavailable: Option<OnRemoteUnavailable>,
}

/// What a merged listing answers while the remote cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnRemoteUnavailable {
    /// 503.
    #[default]
    Fail,
    /// The local part, with a response header that says so.
    Partial,
}

/// Options of mode `Migrate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
        "!has(self.segmentSize) || !isQuantity(string(self.segmentSize)) || (quantity(string(self.segmentSize)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self.segmentSize)).compareTo(quantity('5Gi')) <= 0)"
    )
    .message("migrate.segmentSize must be between 1Mi and 5Gi, the sizes that Swift takes for a segment")
    .field_path(".segmentSize"))]
pub struct Migrate {
    /// Only remote names that start with this are pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// Only objects that are older than this are pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Duration>,
    /// Metadata of the account are pulled, too. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_metadata: Option<bool>,
    /// Objects larger than Swift takes are cut into segments of this size; 5Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<Quantity>,
}
