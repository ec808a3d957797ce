//! Which namespaces may have policies for which accounts.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Mode;

/// What the policies of some namespaces may do. A policy must be covered by one grant as a whole.
#[allow(clippy::duplicated_attributes, reason = "columns may have the same type")]
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "onespace.dev",
    version = "v1alpha1",
    kind = "AccountGrant",
    plural = "accountgrants",
    shortname = "acctgrant",
    category = "onespace",
    derive = "PartialEq",
    doc = "An AccountGrant lets the SyncPolicies of some namespaces work on some Swift accounts. Policies in the operator's own namespace need none. Withdrawing a grant withdraws the policies that need it.",
    printcolumn(name = "Accounts", type_ = "string", json_path = ".spec.accounts"),
    printcolumn(name = "Modes", type_ = "string", json_path = ".spec.modes"),
    printcolumn(name = "Endpoints", type_ = "string", json_path = ".spec.endpoints"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountGrantSpec {
    /// The namespaces that this is for, by their labels. Empty (`{}`): every namespace. By name: the label
    /// `kubernetes.io/metadata.name`.
    pub namespace_selector: NamespaceSelector,
    /// The accounts that policies may name as their source: `AUTH_test`, or `AUTH_test*` for all that start so.
    #[schemars(
        length(min = 1, max = 128),
        inner(length(min = 1, max = 256), regex(pattern = "^[^/*]*[*]?$"))
    )]
    pub accounts: Vec<String>,
    /// The modes that policies may have. Absent: Sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub modes: Option<Vec<Mode>>,
    /// The remotes that policies may name as their target: `AWS`, or a URL as in `target.endpoint`; one without a path
    /// covers every path. Absent: every remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        inner(
            length(min = 1, max = 1024),
            regex(
                pattern = "^(AWS|https?://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?(/[!-~]*)?)$"
            )
        )
    )]
    pub endpoints: Option<Vec<String>>,
    /// Policies may use the credentials of the agents' surroundings. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambient: Option<bool>,
}

/// Namespaces by their labels. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSelector {
    /// Labels with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub match_expressions: Option<Vec<LabelRequirement>>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(self.operator == 'In' || self.operator == 'NotIn') == has(self.values)")
    .message("operators In and NotIn need values, the others take none").field_path(".values"))]
pub struct LabelRequirement {
    /// The label's name.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// What is required of it.
    pub operator: LabelOperator,
    /// For In and NotIn: the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 63)))]
    pub values: Option<Vec<String>>,
}

/// What is required of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It is absent or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}
