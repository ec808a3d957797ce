//! Which objects a policy selects.

use serde::{Deserialize, Serialize};

/// The selection of a mapping: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Select {
    /// Object names start with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Least size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Greatest size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// A condition on metadata.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matcher: Option<Match>,
}

/// A tree over metadata `name = value`; names are case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Match {
    /// Every branch holds.
    All(Vec<Match>),
    /// At least one branch holds.
    Any(Vec<Match>),
    /// The branch does not hold.
    Not(Box<Match>),
    /// The object has this user metadata with exactly this value.
    Metadata {
        /// Name without `X-Object-Meta-`.
        name: String,
        /// Value.
        value: String,
    },
}
