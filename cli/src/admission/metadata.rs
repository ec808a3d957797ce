//! The metadata of an object, as far as an author writes it.

use onespace_core::reason::PolicyFault;
use onespace_core::validate::Finding;
use serde_json::Value;

/// The fields of Kubernetes' ObjectMeta.
const KNOWN: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Checks `metadata`.
pub(super) fn check(object: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |path: &str, message: &str| {
        findings.push(Finding::new(
            format!("metadata{path}"),
            PolicyFault::Invalid,
            message,
        ));
    };
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        add("", "metadata is missing: give the policy a name");
        return findings;
    };
    for field in metadata.keys().filter(|field| !KNOWN.contains(&field.as_str())) {
        add(&format!(".{field}"), "unknown field");
    }
    for field in ["labels", "annotations"] {
        let texts = metadata.get(field).is_none_or(|map| {
            map.is_null()
                || map
                    .as_object()
                    .is_some_and(|map| map.values().all(Value::is_string))
        });
        if !texts {
            add(
                &format!(".{field}"),
                "names and values must be texts: put numbers and yes/no into quotes",
            );
        }
    }
    match metadata.get("name").map(Value::as_str) {
        Some(Some(name)) if is_subdomain(name) => {}
        None => add(".name", "the policy has no name: give one"),
        Some(_) => add(
            ".name",
            "a name is at most 253 lower-case letters, digits, hyphens and dots; letters or digits are at the ends of what dots separate",
        ),
    }
    match metadata.get("namespace").map(Value::as_str) {
        Some(Some(name)) if name.len() <= 63 && is_label(name) => {}
        None => {}
        Some(_) => add(
            ".namespace",
            "a namespace is at most 63 lower-case letters, digits and hyphens, with letters or digits at its ends",
        ),
    }
    findings
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}
