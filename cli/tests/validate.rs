//! `onespace validate`

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{onespace, text};

const POLICY: &str = "
apiVersion: onespace.dev/v1alpha1
kind: SyncPolicy
metadata: {name: photos, namespace: swift}
spec:
  mode: Sync
  source: {account: AUTH_test, container: photos}
  target:
    protocol: S3
    endpoint: http://s3.example.com:9000
    bucket: backup
    credentials: {secretRef: {name: keys}}
";

/// Validates one file.
fn validate(content: &str) -> common::Ran {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, content).unwrap();
    onespace(&["validate", "-f", text(&file)])
}

/// The folder with the examples.
fn examples() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[test]
fn every_example_is_valid() {
    let folder = examples();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let ran = onespace(&["validate", "-f", text(&path)]);
        assert!(ran.ok, "{}", ran.err);
        assert!(ran.out.contains(": valid"), "{}", ran.out);
    }
}

#[test]
fn the_examples_go_together() {
    let ran = onespace(&["validate", "-f", text(&examples())]);
    assert!(ran.ok, "{}", ran.err);
}

#[test]
fn a_valid_policy_is_called_valid() {
    let ran = validate(POLICY);
    assert!(ran.ok && ran.err.is_empty(), "{}", ran.err);
    assert!(
        ran.out.ends_with("policy.yaml: swift/photos: valid\n"),
        "{}",
        ran.out
    );
}

#[test]
fn everything_that_is_wrong_is_said_with_file_policy_field_and_reason() {
    let ran =
        validate(&(POLICY.replace("bucket: backup", "bucket: b/c\n    colour: red") + "  copyAfter: soon\n"));
    assert!(!ran.ok);
    for (field, message) in [
        ("spec.copyAfter", "Invalid: \"soon\" should match "),
        ("spec.target.colour", "Invalid: unknown field"),
        (
            "spec.target.bucket",
            "Invalid: target.bucket is no bucket name of S3",
        ),
    ] {
        let line = format!("policy.yaml: swift/photos: {field}: {message}");
        assert!(ran.err.contains(&line), "{line}\n{}", ran.err);
    }
}

#[test]
fn an_option_that_is_not_supported_yet_is_refused() {
    let ran = validate(&format!("{POLICY}  containerAcl: true\n"));
    assert!(!ran.ok);
    assert!(
        ran.err.contains("spec.containerAcl: NotYetSupported: "),
        "{}",
        ran.err
    );
}

#[test]
fn an_empty_prefix_in_yaml_is_an_error_and_not_another_layout() {
    let ran = validate(&POLICY.replace("bucket: backup", "bucket: backup\n    prefix:"));
    assert!(
        ran.err
            .contains("spec.target.prefix: Invalid: must be of type string, but is null"),
        "{}",
        ran.err
    );
}

#[test]
fn a_pattern_that_rust_does_not_know_is_named() {
    let ran = validate(&format!("{POLICY}  exclude: '(?!keep)'\n"));
    assert!(ran.err.contains("spec.exclude: InvalidPattern: "), "{}", ran.err);
}

#[test]
fn policies_in_conflict_are_named_both() {
    let ran = validate(&format!(
        "{POLICY}---{}",
        POLICY.replace("name: photos", "name: pictures")
    ));
    assert!(!ran.ok);
    assert!(
        ran.err.contains("swift/pictures: spec.target: Conflict: ") && ran.err.contains("swift/photos"),
        "{}",
        ran.err
    );
    assert!(ran.out.contains("swift/photos: valid"));
}

#[test]
fn what_kubectl_prints_can_be_validated() {
    let status = format!("{POLICY}status: {{source: AUTH_test/photos, anything: 1}}\n");
    assert!(validate(&status).ok);
    let items = POLICY
        .replace('\n', "\n    ")
        .replacen("    apiVersion", "  - apiVersion", 1);
    let ran = validate(&format!("apiVersion: v1\nkind: List\nitems:{items}\n"));
    assert!(ran.ok && ran.out.contains("swift/photos: valid"), "{}", ran.err);
}

#[test]
fn what_is_no_policy_is_passed_over_with_a_note_or_an_error() {
    let ran = validate(&format!(
        "{POLICY}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: swift}}\n"
    ));
    assert!(
        ran.ok && ran.err.contains("v1 Namespace swift is passed over"),
        "{}",
        ran.err
    );
    for (content, message) in [
        (
            "apiVersion: onespace.dev/v1alpha1\nkind: SynkPolicy\n",
            "SynkPolicy is unknown",
        ),
        (
            "apiVersion: onespace.dev/v2\nkind: SyncPolicy\n",
            "write onespace.dev/v1alpha1 SyncPolicy",
        ),
        ("- 1\n", "no Kubernetes object"),
        ("{", "not YAML"),
        ("a: 1\na: 2\n", "not YAML"),
    ] {
        let ran = validate(content);
        assert!(!ran.ok && ran.err.contains(message), "{content}: {}", ran.err);
        assert!(ran.err.contains("document 1"), "{}", ran.err);
    }
    let ran = onespace(&["validate", "-f", "/does/not/exist"]);
    assert!(
        !ran.ok && ran.err.contains("/does/not/exist cannot be read"),
        "{}",
        ran.err
    );
}

#[test]
fn one_policy_in_two_files_is_an_error() {
    let ran = validate(&format!("{POLICY}---{POLICY}"));
    assert!(
        !ran.ok && ran.err.contains("SyncPolicy swift/photos is also in"),
        "{}",
        ran.err
    );
}
