//! Which objects a policy selects. A CRD cannot be recursive: the tree has three levels of distinct types.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;

/// Which objects are copied at all. Everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
        "!has(self.minSize) || !has(self.maxSize) || !isQuantity(string(self.minSize)) || !isQuantity(string(self.maxSize)) || quantity(string(self.minSize)).compareTo(quantity(string(self.maxSize))) <= 0"
    )
    .message("select.minSize is greater than select.maxSize: nothing would be selected")
    .field_path(".minSize"))]
pub struct Select {
    /// Object names start with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// Objects are at least this large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Quantity>,
    /// Objects are at most this large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Quantity>,
    /// A condition on the object's metadata.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matcher: Option<Match>,
}

/// A condition on metadata. Exactly one of `all`, `any`, `not` and `metadata` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
        "[has(self.all), has(self.any), has(self.not), has(self.metadata)].filter(given, given).size() == 1"
    ).message("give exactly one of all, any, not and metadata"))]
pub struct Match {
    /// Every one of these holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub all: Option<Vec<SubMatch>>,
    /// At least one of these holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub any: Option<Vec<SubMatch>>,
    /// This does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<SubMatch>,
    /// The object has this metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataMatch>,
}

/// The second level of a condition. Exactly one of `all`, `any`, `not` and `metadata` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
        "[has(self.all), has(self.any), has(self.not), has(self.metadata)].filter(given, given).size() == 1"
    ).message("give exactly one of all, any, not and metadata"))]
pub struct SubMatch {
    /// Every one of these holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub all: Option<Vec<SubSubMatch>>,
    /// At least one of these holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub any: Option<Vec<SubSubMatch>>,
    /// This does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<SubSubMatch>,
    /// The object has this metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataMatch>,
}

/// The third level of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubSubMatch {
    /// The object has this metadata.
    pub metadata: MetadataMatch,
}

/// User metadata that an object has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetadataMatch {
    /// The name without `X-Object-Meta-`; upper and lower case are the same.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The exact value.
    #[schemars(length(max = 256))]
    pub value: String,
}
