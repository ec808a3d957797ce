//! The generated manifests: up to date, small enough, and bounded everywhere.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

/// Each manifest as it is written, and as the types make it.
fn manifests() -> [(&'static str, Value); 2] {
    let made = |crd| serde_json::to_value(crd).unwrap();
    [
        (
            include_str!("../syncpolicies.onespace.dev.yaml"),
            made(onespace_crds::sync_policy_crd().unwrap()),
        ),
        (
            include_str!("../accountgrants.onespace.dev.yaml"),
            made(onespace_crds::account_grant_crd().unwrap()),
        ),
    ]
}

/// The schema of each resource.
fn schemas() -> [Value; 2] {
    [
        onespace_crds::sync_policy_schema().unwrap(),
        onespace_crds::schema_of(&onespace_crds::account_grant_crd().unwrap()).unwrap(),
    ]
}

#[test]
fn the_manifests_are_what_the_types_say() {
    for (written, made) in manifests() {
        let written: Value = serde_yaml::from_str(written).unwrap();
        assert!(
            made == written,
            "out of date: run cargo run -p onespace-crds --example write-manifests"
        );
    }
}

#[test]
fn the_manifests_fit_into_an_annotation_of_client_side_apply() {
    for (written, _) in manifests() {
        assert!(written.len() < 200_000, "{} bytes", written.len());
    }
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
    let with_roots = schemas()
        .into_iter()
        .flat_map(|schema| ["spec", "status"].map(|root| (root, schema["properties"][root].clone())));
    for (root, schema) in with_roots {
        walk(&schema, root, &mut |schema, path| {
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
    for schema in schemas() {
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
}

#[test]
fn nothing_is_defaulted_into_the_spec_and_null_is_no_value() {
    for schema in schemas() {
        walk(&schema["properties"]["spec"], "spec", &mut |schema, path| {
            assert!(
                schema.get("default").is_none() && schema.get("nullable").is_none(),
                "{path}: {schema}"
            );
        });
    }
}
