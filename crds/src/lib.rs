//! The Kubernetes API of onespace: group `onespace.dev`, version `v1alpha1`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// What the remote speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// AWS S3, an S3 clone, or Google Cloud Storage through its XML API.
    S3,
    /// Another Swift cluster.
    Swift,
}
