//! SEMANTICS.md promises nothing that no test shows, and explains every reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use onespace_core::plan::mends_itself;
use onespace_core::reason::{
    ConditionReason, HoldReason, Notice, PassRefusal, PauseReason, PolicyFault, RefuseReason, StallReason,
};

/// Sections that say what is not promised: they need no tests.
const NO_PROMISES: [&str; 2] = ["Not yet", "Never tested"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    std::fs::read_to_string(workspace().join("SEMANTICS.md")).unwrap()
}

/// Every text between backticks that names a test, as `crate::file::test`.
fn tests_named_in(text: &str) -> Vec<&str> {
    let crates = ["core", "crds", "stores", "node_agent", "operator", "cli", "e2e"];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| crates.iter().any(|name| quoted.starts_with(&format!("{name}::"))))
        .collect()
}

/// Whether the file that a name points at has a test of that name. Inline `mod tests` are left out of names.
fn exists(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split("::").collect();
    let (Some(test), package) = (parts.pop(), parts.remove(0).replace('_', "-")) else {
        return false;
    };
    let folder = workspace().join(package);
    // These have a list of their own in place of attributes.
    let listed = || {
        let list = std::fs::read_to_string(folder.join("tests/cluster/main.rs")).unwrap();
        list.contains(&format!("{}::{test},", parts[1]))
    };
    if parts.len() == 2 && parts[0] == "cluster" {
        return listed();
    }
    let path = parts.join("/");
    let files = [
        format!("src/{path}.rs"),
        format!("src/{path}/mod.rs"),
        format!("tests/{path}.rs"),
    ];
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(folder.join(file)).ok())
        .any(|source| is_a_test(&source, test))
}

/// Whether a function of this name stands below an attribute that makes it a test.
fn is_a_test(source: &str, test: &str) -> bool {
    let head = format!("fn {test}(");
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let Some(at) = lines
        .iter()
        .position(|line| line.trim_start_matches("async ").starts_with(&head))
    else {
        return false;
    };
    lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

#[test]
fn every_test_that_is_named_exists() {
    let document = document();
    let named = tests_named_in(&document);
    assert!(
        named.len() > 50,
        "names are not found any more: {} of them",
        named.len()
    );
    let missing: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn a_test_that_does_not_exist_is_noticed() {
    assert!(exists("core::semantics::a_test_that_does_not_exist_is_noticed"));
    assert!(exists("core::row::no_row_panics"));
    assert!(!exists("core::semantics::workspace"), "a function, not a test");
    assert!(!exists("core::row::no_such_test"));
    assert!(!exists("core::nowhere::no_row_panics"));
}

#[test]
fn every_promise_names_a_test() {
    let document = document();
    for section in document.split("\n## ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        if NO_PROMISES.iter().any(|prefix| title.starts_with(prefix)) {
            continue;
        }
        for promise in body.split("\n- ").skip(1) {
            let promise = promise.split("\n\n").next().unwrap();
            assert!(
                !tests_named_in(promise).is_empty(),
                "without a test, in {title:?}: {promise}"
            );
        }
    }
}

#[test]
fn every_reason_is_explained() {
    let document = document();
    let row = |word: &str| {
        document
            .lines()
            .find(|line| line.starts_with(&format!("| `{word}` |")))
            .unwrap_or_else(|| panic!("SEMANTICS.md has no row for the reason {word}"))
            .to_owned()
    };
    for reason in HoldReason::ALL {
        assert_eq!(
            row(reason.as_str()).contains("| by itself |"),
            mends_itself(*reason),
            "whether {reason} is tried again by itself"
        );
    }
    PauseReason::ALL
        .iter()
        .for_each(|reason| drop(row(reason.as_str())));
    PassRefusal::ALL
        .iter()
        .for_each(|reason| drop(row(reason.as_str())));
    StallReason::ALL
        .iter()
        .for_each(|reason| drop(row(reason.as_str())));
    Notice::ALL.iter().for_each(|reason| drop(row(reason.as_str())));
    RefuseReason::ALL
        .iter()
        .for_each(|reason| drop(row(reason.as_str())));
    ConditionReason::ALL
        .iter()
        .for_each(|reason| drop(row(reason.as_str())));
    PolicyFault::ALL
        .iter()
        .for_each(|reason| drop(row(reason.as_str())));
}
