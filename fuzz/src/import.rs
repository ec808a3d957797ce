//! 1space's `sync.json`.

use std::sync::OnceLock;

use onespace_cli::admission::Admission;
use onespace_cli::import::translate;
use onespace_core::validate::validate;
use serde::Deserialize as _;
use serde_json::Value;

thread_local! {
    static ADMISSION: OnceLock<Admission> = const { OnceLock::new() };
}

/// A `sync.json`. What is printed is YAML, whatever the values hold; what is printed without asking for corrections
/// would be accepted; and no secret is on the side that people paste into tickets.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    ADMISSION.with(|admission| {
        check(
            admission.get_or_init(|| Admission::new().expect("the CRD's rules compile")),
            text,
        );
    });
}

fn check(admission: &Admission, text: &str) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let Ok(clean) = translate("sync.json", text, Some("swift"), admission, &mut out, &mut err) else {
        return;
    };
    let out = String::from_utf8(out).expect("YAML is text");
    let mut policies = 0;
    for document in serde_yaml::Deserializer::from_str(&out) {
        let document = Value::deserialize(document).expect("what is printed is YAML");
        if document["kind"] != "SyncPolicy" {
            assert!(document.is_null() || document["kind"] == "Secret", "{document}");
            continue;
        }
        policies += 1;
        if clean {
            let policy = admission.decode(&document, None);
            let policy = policy.unwrap_or_else(|findings| panic!("refused: {findings:?}"));
            assert!(validate(&policy).is_ok(), "{document}");
        }
    }
    assert!(policies > 0, "something was translated");
    let err = String::from_utf8(err).expect("messages are text");
    for secret in secrets(text) {
        assert!(!err.contains(&secret), "a secret is in a message: {err}");
    }
}

/// The secrets of the file that are long enough to be told from other words.
fn secrets(text: &str) -> Vec<String> {
    let config: Value = serde_json::from_str(text).unwrap_or_default();
    let entries = ["containers", "migrations"]
        .iter()
        .filter_map(|list| config.get(list)?.as_array());
    entries
        .flatten()
        .filter_map(|entry| entry.get("aws_secret")?.as_str())
        .filter(|secret| secret.len() >= 8 && secret.contains("hush"))
        .map(str::to_owned)
        .collect()
}
