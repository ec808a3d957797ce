//! `onespace render`

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::{Ran, onespace, text};
use onespace_core::load::{Files, LoadError, LoadedSet, load};

struct Rendered {
    folder: tempfile::TempDir,
}

impl Rendered {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn input(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path("in")).unwrap();
        fs::write(self.path("in").join(name), content).unwrap();
    }

    fn render(&self) -> Ran {
        self.render_from(&self.path("in"))
    }

    fn render_from(&self, input: &Path) -> Ran {
        let (mappings, credentials) = (self.path("mappings"), self.path("credentials"));
        onespace(&[
            "render",
            "-f",
            text(input),
            "--mappings",
            text(&mappings),
            "--credentials",
            text(&credentials),
        ])
    }

    /// Every file of the output by its path.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in ["mappings", "credentials"] {
            for entry in fs::read_dir(self.path(folder)).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                if !name.starts_with('.') {
                    files.insert(format!("{folder}/{name}"), fs::read(path).unwrap());
                }
            }
        }
        files
    }

    fn load(&self) -> Result<LoadedSet, LoadError> {
        loaded(&self.files())
    }
}

fn loaded(all: &BTreeMap<String, Vec<u8>>) -> Result<LoadedSet, LoadError> {
    let mut files = Files::default();
    for (path, bytes) in all {
        let (folder, name) = path.split_once('/').unwrap();
        let shard = name.strip_suffix(".json").unwrap().to_owned();
        match (folder, shard.as_str()) {
            ("mappings", "index") => files.index = bytes.clone(),
            ("mappings", _) => drop(files.mappings.insert(shard, bytes.as_slice().into())),
            _ => drop(files.credentials.insert(shard, bytes.as_slice().into())),
        }
    }
    load(&files)
}

fn policy(name: &str, container: &str) -> String {
    format!(
        "
apiVersion: onespace.dev/v1alpha1
kind: SyncPolicy
metadata: {{name: {name}}}
spec:
  mode: Sync
  source: {{account: AUTH_test, container: {container}}}
  target: {{protocol: S3, bucket: backup, credentials: {{secretRef: {{name: keys}}}}}}
---
"
    )
}

fn secret(name: &str, key: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{AWS_ACCESS_KEY_ID: AKIA, AWS_SECRET_ACCESS_KEY: {key}}}
---
"
    )
}

/// The folder with the examples.
fn examples() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[test]
fn the_examples_become_files_that_load() {
    let rendered = Rendered::new();
    let ran = rendered.render_from(&examples());
    assert!(ran.ok, "{}", ran.err);
    assert!(ran.out.contains("mappings written to"), "{}", ran.out);
    let set = rendered.load().unwrap();
    assert!(set.refused.is_empty(), "{:?}", set.refused);
    let wide = set
        .mappings
        .iter()
        .find(|mapping| mapping.source.is_account_wide())
        .unwrap();
    assert!(wide.carved_out.contains(&"logs".to_owned()));
    assert!(
        set.mappings
            .iter()
            .any(|mapping| mapping.target.ca_bundle.is_some())
    );
}

#[test]
fn credentials_are_for_their_owner_only_and_never_among_the_mappings() {
    let rendered = Rendered::new();
    rendered.input("all.yaml", &(policy("a", "one") + &secret("keys", "hush-hush")));
    assert!(rendered.render().ok);
    let folder = rendered.path("credentials");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        assert_eq!(
            entry.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    for (path, bytes) in rendered.files() {
        let content = String::from_utf8(bytes).unwrap();
        assert_eq!(
            content.contains("hush"),
            path.starts_with("credentials/"),
            "{path}"
        );
    }
}

#[test]
fn rendering_again_changes_no_byte() {
    let rendered = Rendered::new();
    rendered.input(
        "all.yaml",
        &(policy("a", "one") + &policy("b", "two") + &secret("keys", "hush")),
    );
    assert!(rendered.render().ok);
    let first = rendered.files();
    assert!(rendered.render().ok);
    assert!(rendered.files() == first);
}

#[test]
fn an_invalid_policy_is_named_and_nothing_is_written() {
    let rendered = Rendered::new();
    rendered.input("all.yaml", &(policy("a", "one") + &secret("keys", "hush")));
    assert!(rendered.render().ok);
    let before = rendered.files();

    for (content, message) in [
        (
            policy("b", "two/three"),
            "default/b: spec.source.container: Invalid",
        ),
        (policy("b", "one"), "default/b: spec.target: Conflict"),
        (
            policy("b", "two").replace("name: keys", "name: others"),
            "default/b: spec.target.credentials.secretRef: SecretNotFound",
        ),
        (
            policy("b", "two").replace("name: keys", "name: poor") + &secret("poor", "''"),
            "SecretInvalid",
        ),
    ] {
        rendered.input("more.yaml", &content);
        let ran = rendered.render();
        assert!(!ran.ok && ran.err.contains(message), "{}", ran.err);
        assert!(
            ran.err.contains("more.yaml") && ran.err.contains("nothing was written"),
            "{}",
            ran.err
        );
        assert!(rendered.files() == before);
    }
}

#[test]
fn a_first_invalid_render_leaves_no_folder() {
    let rendered = Rendered::new();
    rendered.input("all.yaml", &policy("a", "one"));
    assert!(!rendered.render().ok);
    assert!(!rendered.path("mappings").exists() && !rendered.path("credentials").exists());
}

#[test]
fn files_of_policies_that_are_gone_are_removed() {
    let rendered = Rendered::new();
    rendered.input("keys.yaml", &secret("keys", "hush"));
    let many: String = (0..40)
        .map(|n| policy(&format!("p{n}"), &format!("c{n}")))
        .collect();
    rendered.input("all.yaml", &many);
    assert!(rendered.render().ok);
    assert!(rendered.files().len() > 10);
    rendered.input("all.yaml", &policy("p0", "c0"));
    assert!(rendered.render().ok);
    // One mapping, one credential, the index.
    assert_eq!(rendered.files().len(), 3);
    assert_eq!(rendered.load().unwrap().mappings.len(), 1);
    rendered.input("all.yaml", "");
    let ran = rendered.render();
    assert!(ran.ok && ran.err.contains("nothing to do"), "{}", ran.err);
    assert_eq!(rendered.load().unwrap().mappings.len(), 0);
    assert_eq!(rendered.files().len(), 1);
}

/// Whatever a reader finds while a set is replaced: it loads the old set, the new set, or nothing.
#[test]
fn no_mixture_of_two_sets_loads() {
    let (old, new) = (Rendered::new(), Rendered::new());
    let policies =
        |containers: &[&str]| -> String { containers.iter().map(|name| policy(name, name)).collect() };
    old.input(
        "all.yaml",
        &(policies(&["a", "b", "c", "d"]) + &secret("keys", "old")),
    );
    new.input(
        "all.yaml",
        &(policies(&["b", "c", "e", "f"]).replace("backup", "other") + &secret("keys", "new")),
    );
    assert!(old.render().ok && new.render().ok);
    let (old, new) = (old.files(), new.files());
    let revisions = [loaded(&old).unwrap().revision, loaded(&new).unwrap().revision];

    // The order in which the writer goes: credentials, mappings, index, removals. A reader may also read each file at
    // another step: every combination of old and new shards with either index.
    let names: Vec<&String> = old
        .keys()
        .chain(new.keys().filter(|name| !old.contains_key(*name)))
        .collect();
    for choice in 0u32..1 << names.len() {
        let mut mixed = BTreeMap::new();
        for (bit, name) in names.iter().enumerate() {
            let from = if choice >> bit & 1 == 1 { &new } else { &old };
            if let Some(bytes) = from.get(*name) {
                mixed.insert((*name).clone(), bytes.clone());
            }
        }
        if let Ok(set) = loaded(&mixed) {
            assert!(revisions.contains(&set.revision));
            let whole = if set.revision == revisions[0] { &old } else { &new };
            let same = loaded(whole).unwrap();
            assert_eq!(set.mappings, same.mappings);
        }
    }
}

#[test]
fn two_writers_at_once_are_refused() {
    let rendered = Rendered::new();
    rendered.input("all.yaml", &(policy("a", "one") + &secret("keys", "hush")));
    assert!(rendered.render().ok);
    let lock = fs::File::open(rendered.path("mappings/.lock")).unwrap();
    lock.lock().unwrap();
    let ran = rendered.render();
    assert!(
        !ran.ok && ran.err.contains("another `onespace render`"),
        "{}",
        ran.err
    );
    lock.unlock().unwrap();
    assert!(rendered.render().ok);
}

#[test]
fn one_folder_for_both_is_refused() {
    let rendered = Rendered::new();
    rendered.input("all.yaml", &(policy("a", "one") + &secret("keys", "hush")));
    let (input, folder) = (rendered.path("in"), rendered.path("both"));
    let ran = onespace(&[
        "render",
        "-f",
        text(&input),
        "--mappings",
        text(&folder),
        "--credentials",
        text(&folder),
    ]);
    assert!(!ran.ok && ran.err.contains("give two folders"), "{}", ran.err);
}
