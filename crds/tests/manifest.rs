//! The generated manifest: up to date, small enough, and bounded everywhere.

use serde_json::Value;

const MANIFEST: &str = include_str!("../syncpolicies.onespace.dev.yaml");

#[test]
fn the_manifest_is_what_the_types_say() {
    let made = serde_json::to_value(onespace_crds::sync_policy_crd().unwrap()).unwrap();
    let written: Value = serde_yaml::from_str(MANIFEST).unwrap();
    assert!(
        made == written,
        "out of date: run cargo run -p onespace-crds --example write-manifests"
    );
}

#[test]
fn the_manifest_fits_into_an_annotation_of_client_side_apply() {
    assert!(MANIFEST.len() < 200_000, "{} bytes", MANIFEST.len());
}

/// Calls `check` with every schema below `schema` and its path.
fn walk(schema: &Value, path: &str, check: &mut impl FnMut(&Value, &str)) {
    check(schema, path);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            walk(property, &format!("{path}.{name}"), check);
        }
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), check);
    }
}

#[test]
fn every_text_and_list_is_bounded() {
    let schema = onespace_crds::sync_policy_schema().unwrap();
    for root in ["spec", "status"] {
        walk(&schema["properties"][root], root, &mut |schema, path| {
            let bounded = match schema.get("type").and_then(Value::as_str) {
                Some("string") => schema.get("maxLength").is_some() || schema.get("enum").is_some(),
                Some("array") => schema.get("maxItems").is_some(),
                Some("object") => {
                    schema.get("additionalProperties").is_none() || schema.get("maxProperties").is_some()
                }
                _ => true,
            };
            assert!(bounded, "{path}: {schema}");
        });
    }
}

#[test]
fn every_field_is_described_and_every_rule_has_a_message() {
    let schema = onespace_crds::sync_policy_schema().unwrap();
    walk(&schema["properties"]["spec"], "spec", &mut |schema, path| {
        assert!(
            path.ends_with("[]") || schema.get("description").is_some(),
            "{path}"
        );
        for rule in schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            assert!(rule.get("message").is_some(), "{path}: {rule}");
        }
    });
}

#[test]
fn nothing_is_defaulted_into_the_spec_and_null_is_no_value() {
    let schema = onespace_crds::sync_policy_schema().unwrap();
    walk(&schema["properties"]["spec"], "spec", &mut |schema, path| {
        assert!(
            schema.get("default").is_none() && schema.get("nullable").is_none(),
            "{path}: {schema}"
        );
    });
}
