//! The CustomResourceDefinition as it is applied to a cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{AccountGrant, SyncPolicy};

/// The types do not make a CRD. No input leads here: a test makes it.
#[derive(Debug)]
pub struct CrdError(String);

impl std::fmt::Display for CrdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the types of the API do not make a CRD ({}): report this as a bug of onespace",
            self.0
        )
    }
}

impl std::error::Error for CrdError {}

impl From<serde_json::Error> for CrdError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// The definition of SyncPolicy.
///
/// # Errors
/// Never with the types as they are.
pub fn sync_policy_crd() -> Result<CustomResourceDefinition, CrdError> {
    let mut crd = serde_json::to_value(stripped(&SyncPolicy::crd())?)?;
    let status = crd
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| CrdError("no status in it".to_owned()))?;
    // No generation: whoever waits for a policy, as kstatus does, sees that nobody has looked at it yet.
    status.insert("default".to_owned(), json!({"observedGeneration": -1}));
    Ok(serde_json::from_value(crd)?)
}

/// The definition of AccountGrant.
///
/// # Errors
/// Never with the types as they are.
pub fn account_grant_crd() -> Result<CustomResourceDefinition, CrdError> {
    stripped(&AccountGrant::crd())
}

/// The structural schema of SyncPolicy, with its CEL rules: what the API server checks, and the command line, too.
///
/// # Errors
/// Never with the types as they are.
pub fn sync_policy_schema() -> Result<Value, CrdError> {
    schema_of(&sync_policy_crd()?)
}

/// The structural schema of a definition.
///
/// # Errors
/// When there is none in it.
pub fn schema_of(crd: &CustomResourceDefinition) -> Result<Value, CrdError> {
    let crd = serde_json::to_value(crd)?;
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
        .cloned()
        .ok_or_else(|| CrdError("no schema in it".to_owned()))
}

fn stripped(crd: &CustomResourceDefinition) -> Result<CustomResourceDefinition, CrdError> {
    let mut crd = serde_json::to_value(crd)?;
    strip(&mut crd);
    Ok(serde_json::from_value(crd)?)
}

/// Takes out what the derive macros put in and we do not mean:
/// `nullable`, since an empty `prefix:` in YAML must be an error instead of silently another layout of keys;
/// `default`, since nothing is ever written into an object but by its author;
/// `format` of unsigned numbers, which Kubernetes does not know and warns about.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if map.get("default").is_some_and(|default| !default.is_object()) {
                map.remove("default");
            }
            if map.get("type").is_some_and(|kind| kind == "integer") {
                map.retain(|key, format| key != "format" || format == "int64" || format == "int32");
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
