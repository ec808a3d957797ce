use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::credentials::{AccessKeys, Login, PasswordLogin};
use crate::loader::Lacking;
use crate::mapping::{CredentialRef, Encryption, MappingShard, PolicyRef, Source, Target, Triggers};
use crate::select::{Match, Select};
use crate::shard::{fold, shard_of};

fn keys(secret: &str) -> Credentials {
    Credentials {
        login: Login::Keys(AccessKeys {
            access_key_id: "AKIA".into(),
            secret_access_key: secret.to_owned().into(),
            session_token: None,
        }),
        proxy: Some(PasswordLogin {
            username: "p".into(),
            password: secret.to_owned().into(),
        }),
    }
}

fn mapping(id: &str, account: &str, container: &str) -> Mapping {
    Mapping {
        id: MappingId(id.into()),
        starts_over: "0".into(),
        policy: PolicyRef {
            namespace: "swift".into(),
            name: "p".into(),
            generation: 1,
        },
        state: MappingState::Active,
        requires: vec!["sync".into()],
        mode: Mode::Sync,
        source: Source {
            account: account.into(),
            container: container.into(),
        },
        carved_out: Vec::new(),
        target: Target {
            protocol: Protocol::S3,
            endpoint: None,
            region: "us-east-1".into(),
            bucket: "b".into(),
            prefix: None,
            credential: CredentialRef("c0".into()),
            ca_bundle: None,
            http_proxy: None,
            path_style: None,
            request_checksums: None,
            encryption: Encryption::KMS {
                kms_key_id: Some("k".into()),
            },
            storage_class: None,
        },
        copy_after: 5,
        retain_local_segments: true,
        propagate_delete: true,
        delete_budget: None,
        exclude: Some("tmp/".into()),
        select: Some(Select {
            matcher: Some(Match::Not(Box::new(Match::Metadata {
                name: "a".into(),
                value: "b".into(),
            }))),
            ..Select::default()
        }),
        min_segment_size: 5 << 20,
        limits: None,
        objective: None,
        triggers: Triggers::default(),
    }
}

fn credentials() -> BTreeMap<String, Credentials> {
    [("c0".to_owned(), keys("verysecret"))].into()
}

fn folded(mappings: &[Mapping]) -> Files {
    fold(mappings, &credentials(), &Files::default(), "fresh").unwrap()
}

/// The files after `change` of the raw mappings, with an index that matches.
fn refolded(mappings: Vec<Value>) -> Files {
    let mut files = folded(&[]);
    let content = MappingShard {
        format_version: FORMAT_VERSION,
        revision: "r".into(),
        mappings,
    };
    let bytes = serde_json::to_vec(&content).unwrap();
    let mut index: Index = serde_json::from_slice(&files.index).unwrap();
    let sha256 = Some(hex::encode(Sha256::digest(&bytes)));
    index.mappings.insert(
        "00".into(),
        crate::mapping::ShardEntry {
            revision: "r".into(),
            sha256,
        },
    );
    files.index = serde_json::to_vec(&index).unwrap();
    files.mappings.insert("00".into(), bytes.into());
    files
}

fn plain(mappings: Vec<Arc<Mapping>>) -> Vec<Mapping> {
    mappings.into_iter().map(Arc::unwrap_or_clone).collect()
}

fn refused(change: impl Fn(&mut Value)) -> Refused {
    let mut value = serde_json::to_value(mapping("0a", "A", "bad")).unwrap();
    change(&mut value);
    let good = serde_json::to_value(mapping("0b", "A", "good")).unwrap();
    let mut set = load(&refolded(vec![value, good])).unwrap();
    assert_eq!(set.mappings.len(), 1, "the other one runs");
    assert_eq!(set.refused.len(), 1);
    set.refused.remove(0)
}

#[test]
fn what_was_folded_is_loaded() {
    let mappings = [mapping("0a", "A", "one"), mapping("fb", "A", "two")];
    let set = load(&folded(&mappings)).unwrap();
    assert_eq!(plain(set.mappings), mappings);
    assert!(set.refused.is_empty());
    assert_eq!(set.credentials["c0"].keys().unwrap().access_key_id, "AKIA");
}

#[test]
fn containers_with_a_policy_of_their_own_are_taken_out_of_account_wide_mappings() {
    let mut removing = mapping("0d", "A", "removing");
    removing.state = MappingState::Removing;
    let mappings = [
        mapping("0a", "A", "/*"),
        mapping("0b", "A", "two"),
        mapping("0c", "A", "one"),
        removing,
        mapping("0e", "B", "other"),
    ];
    let set = load(&folded(&mappings)).unwrap();
    assert_eq!(set.mappings[0].carved_out, ["one", "two"]);
    assert!(
        set.mappings[1..]
            .iter()
            .all(|mapping| mapping.carved_out.is_empty())
    );
}

#[test]
fn a_refused_mapping_is_still_taken_out_of_the_account_wide_one() {
    let mut broken = serde_json::to_value(mapping("0b", "A", "broken")).unwrap();
    broken["copyAfter"] = json!("soon");
    let wide = serde_json::to_value(mapping("0a", "A", "/*")).unwrap();
    let set = load(&refolded(vec![broken, wide])).unwrap();
    assert_eq!(set.mappings[0].carved_out, ["broken"]);
    assert_eq!(set.refused[0].id.0, "0b");
}

#[test]
fn one_bad_mapping_is_refused_alone() {
    for (change, reason) in [
        (json!({"copyAfter": "soon"}), RefuseReason::Unparseable),
        (json!({"exclude": "("}), RefuseReason::Unparseable),
        (json!({"mode": "Banana"}), RefuseReason::Unparseable),
        (json!({"mode": "Archive"}), RefuseReason::FeatureUnknown),
        (
            json!({"requires": ["sync", "teleport"]}),
            RefuseReason::FeatureUnknown,
        ),
    ] {
        let refused = refused(|mapping| {
            for (name, value) in change.as_object().unwrap() {
                mapping[name] = value.clone();
            }
        });
        assert_eq!(
            (refused.id.0.as_str(), refused.reason),
            ("0a", reason),
            "{}",
            refused.message
        );
    }
}

#[test]
fn an_unknown_feature_is_named_even_if_the_rest_cannot_be_read() {
    let refused =
        refused(|mapping| *mapping = json!({"id": "0a", "requires": ["v2"], "mode": {"new": true}}));
    assert_eq!(refused.reason, RefuseReason::FeatureUnknown);
    assert!(refused.message.contains("v2"));
}

#[test]
fn a_mapping_without_its_keys_is_refused() {
    let refused = refused(|mapping| mapping["target"]["credential"] = json!("c1"));
    assert_eq!(refused.reason, RefuseReason::CredentialsMissing);
}

#[test]
fn a_file_of_another_set_is_not_loaded() {
    let old = folded(&[mapping("0a", "A", "one"), mapping("fb", "A", "two")]);
    let mut changed = mapping("0a", "A", "one");
    changed.copy_after = 6;
    let new = fold(
        &[changed, mapping("fb", "A", "two")],
        &[("c0".to_owned(), keys("other"))].into(),
        &old,
        "fresher",
    )
    .unwrap();

    let mut files = old.clone();
    files.mappings.insert("00".into(), new.mappings["00"].clone());
    assert_eq!(
        load(&files).unwrap_err(),
        LoadError::Mismatch {
            file: "mappings/00.json".into(),
            what: "sha256"
        }
    );

    let mut files = old.clone();
    files.credentials = new.credentials.clone();
    assert_eq!(
        load(&files).unwrap_err(),
        LoadError::Mismatch {
            file: "credentials/12.json".into(),
            what: "revision"
        }
    );

    let mut files = old.clone();
    files.mappings.remove("15");
    assert_eq!(
        load(&files).unwrap_err(),
        LoadError::Missing {
            file: "mappings/15.json".into()
        }
    );

    let mut files = old;
    files.index.truncate(30);
    let message = load(&files).unwrap_err().to_string();
    assert!(
        message.contains("mappings/index.json")
            && message.contains("line")
            && message.contains("onespace render")
    );
}

#[test]
fn files_of_another_version_are_not_loaded() {
    let mut files = folded(&[]);
    let mut index: Value = serde_json::from_slice(&files.index).unwrap();
    index["formatVersion"] = json!(2);
    files.index = serde_json::to_vec(&index).unwrap();
    assert!(matches!(load(&files), Err(LoadError::Version { found: 2, .. })));
}

#[test]
fn a_shard_outside_of_its_folder_is_never_asked_for() {
    let index = json!({"formatVersion": 1, "revision": "r", "mappings": {"../../etc/passwd": {"revision": "r"}}, "credentials": {}});
    assert!(matches!(
        load_index(&serde_json::to_vec(&index).unwrap()),
        Err(LoadError::ShardName { .. })
    ));
}

#[test]
fn an_error_in_a_credential_file_does_not_quote_it() {
    let mut files = folded(&[mapping("0a", "A", "one")]);
    files.credentials.insert(
        "12".into(),
        br#"{"revision": "fresh", "credentials": {"c0": "verysecret"}}"#
            .to_vec()
            .into(),
    );
    let error = load(&files).unwrap_err();
    assert!(!error.to_string().contains("verysecret"), "{error}");
    assert!(!format!("{files:?}").contains("115"), "bytes of a file in Debug");
}

#[test]
fn folding_again_changes_nothing() {
    let mappings = [mapping("0a", "A", "one"), mapping("fb", "A", "two")];
    let first = folded(&mappings);
    let again = fold(&mappings, &credentials(), &first, "another").unwrap();
    assert!(first == again);
}

#[test]
fn a_new_password_gets_a_revision_that_says_nothing_about_it() {
    let first = folded(&[]);
    let second = fold::<Mapping>(&[], &[("c0".to_owned(), keys("new"))].into(), &first, "second").unwrap();
    let index = load_index(&second.index).unwrap();
    assert_eq!(
        index.credentials["12"],
        crate::mapping::ShardEntry {
            revision: "second".into(),
            sha256: None
        }
    );
    assert!(load(&first).unwrap().revision != load(&second).unwrap().revision);
}

#[test]
fn one_changed_mapping_touches_one_shard() {
    let mut mappings = [mapping("0a", "A", "one"), mapping("fb", "A", "/*")];
    let first = folded(&mappings);
    mappings[0].copy_after = 7;
    let second = folded(&mappings);
    assert!(first.mappings["00"] != second.mappings["00"]);
    assert!(first.mappings["15"] == second.mappings["15"]);
}

#[test]
fn two_mappings_of_one_id_are_not_folded() {
    let mappings = [mapping("0a", "A", "one"), mapping("0a", "A", "two")];
    assert!(fold(&mappings, &credentials(), &Files::default(), "fresh").is_err());
}

/// The files of a set that a loader does not know from the one before.
fn lacking(loader: &Loader, files: &Files) -> Files {
    let Lacking {
        mappings,
        credentials,
    } = loader.lacking(&load_index(&files.index).unwrap());
    let mut lacking = files.clone();
    lacking.mappings.retain(|shard, _| mappings.contains(shard));
    lacking.credentials.retain(|shard, _| credentials.contains(shard));
    lacking
}

#[test]
fn of_the_next_set_only_what_changed_is_read_and_the_rest_stays_what_it_is() {
    let mappings = [
        mapping("0a", "A", "one"),
        mapping("0b", "A", "two"),
        mapping("fb", "A", "/*"),
    ];
    let first = folded(&mappings);
    let mut loader = Loader::default();
    assert!(lacking(&loader, &first) == first, "nothing is known yet");
    let before = loader.load(&first).unwrap();

    let mut changed = mappings.clone();
    changed[0].copy_after = 6;
    let second = fold(&changed, &credentials(), &first, "fresher").unwrap();
    let few = lacking(&loader, &second);
    assert_eq!(few.mappings.keys().collect::<Vec<_>>(), ["00"]);
    assert!(few.credentials.is_empty());

    // A file of it is broken: what is known stays, and is enough for what is whole.
    let mut broken = few.clone();
    broken.mappings.insert("00".into(), first.mappings["00"].clone());
    assert!(matches!(loader.load(&broken), Err(LoadError::Mismatch { .. })));
    broken.mappings.clear();
    assert!(matches!(loader.load(&broken), Err(LoadError::Missing { .. })));

    let after = loader.load(&few).unwrap();
    assert_eq!(after.mappings[0].copy_after, 6);
    assert!(
        Arc::ptr_eq(&before.mappings[1], &after.mappings[1]),
        "of a file that changed"
    );
    assert_eq!(after.mappings[2].carved_out, ["one", "two"]);
    assert!(Arc::ptr_eq(&before.credentials["c0"], &after.credentials["c0"]));
}

#[test]
fn keys_that_come_go_and_change_are_noticed_though_no_mapping_file_changed() {
    let mappings = [mapping("0a", "A", "one")];
    let mut loader = Loader::default();
    let mut previous = Files::default();
    for (number, secret) in [Some("one"), None, Some("one"), Some("two")]
        .into_iter()
        .enumerate()
    {
        let credentials = secret.map(|secret| ("c0".to_owned(), keys(secret)));
        let credentials = credentials.into_iter().collect();
        let files = fold(&mappings, &credentials, &previous, &number.to_string()).unwrap();
        let few = lacking(&loader, &files);
        assert_eq!(few.mappings.len(), usize::from(number == 0));
        let set = loader.load(&few).unwrap();
        assert_eq!(set.mappings.len(), usize::from(secret.is_some()));
        let missing = set.refused.iter().map(|refused| refused.reason);
        let expected = secret.is_none().then_some(RefuseReason::CredentialsMissing);
        assert_eq!(
            missing.collect::<Vec<_>>(),
            expected.into_iter().collect::<Vec<_>>()
        );
        let loaded = set
            .credentials
            .get("c0")
            .map(|loaded| loaded.is_same(&keys(secret.unwrap_or_default())));
        assert_eq!(loaded, secret.map(|_| true));
        previous = files;
    }
}

proptest! {
    #[test]
    fn a_set_after_others_is_loaded_as_it_is_alone(
        sets in prop::collection::vec(
            prop::collection::btree_map(0_u8..24, (0_u64..3, any::<bool>(), 0_u8..3), 0..12),
            1..6,
        ),
    ) {
        let mut loader = Loader::default();
        let mut previous = Files::default();
        for (number, set) in sets.iter().enumerate() {
            let mut used = BTreeMap::new();
            let mappings: Vec<Mapping> = set.iter().map(|(id, (copy_after, wide, credential))| {
                let container = if *wide { "/*".to_owned() } else { format!("c{id}") };
                let mut mapping = mapping(&format!("{:02x}", id.wrapping_mul(11)), "A", &container);
                mapping.target.prefix = (!wide).then(|| "p".to_owned());
                mapping.copy_after = *copy_after;
                mapping.target.credential = CredentialRef(format!("c{credential}"));
                // Those of the third are never there.
                if *credential < 2 {
                    used.insert(format!("c{credential}"), keys(&format!("{copy_after}")));
                }
                mapping
            }).collect();
            let files = fold(&mappings, &used, &previous, &number.to_string()).unwrap();
            let after = loader.load(&lacking(&loader, &files));
            let alone = load(&files);
            let (after, alone) = (after.unwrap(), alone.unwrap());
            prop_assert_eq!(after.revision, alone.revision);
            prop_assert_eq!(after.mappings, alone.mappings);
            prop_assert_eq!(after.refused, alone.refused);
            prop_assert!(after.credentials.keys().eq(alone.credentials.keys()));
            let mut both = after.credentials.values().zip(alone.credentials.values());
            prop_assert!(both.all(|(after, alone)| after.is_same(alone)));
            previous = files;
        }
    }
}

proptest! {
    #[test]
    fn any_set_survives_the_files(
        ids in proptest::collection::btree_set("[0-9a-f]{32}", 0..40),
        names in proptest::collection::vec("\\PC{1,12}", 40),
        copy_after in any::<u64>(),
        encryption in 0..3,
    ) {
        let mappings: Vec<Mapping> = ids.iter().zip(&names).map(|(id, name)| {
            let mut mapping = mapping(id, "A", &name.replace('/', "-"));
            mapping.copy_after = copy_after;
            mapping.exclude = Some(regex::escape(name));
            mapping.target.prefix = Some(name.clone());
            mapping.target.encryption = match encryption {
                0 => Encryption::None,
                1 => Encryption::AES256,
                _ => Encryption::KMS { kms_key_id: None },
            };
            mapping
        }).collect();
        let files = folded(&mappings);
        for id in &ids {
            prop_assert!(files.mappings.contains_key(&shard_of(id).unwrap()));
        }
        let set = load(&files).unwrap();
        prop_assert_eq!(plain(set.mappings), mappings);
        prop_assert!(set.refused.is_empty());
    }

    #[test]
    fn no_bytes_panic(index in any::<Vec<u8>>(), shard in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut files = folded(&[mapping("0a", "A", "/*"), mapping("0b", "A", "b")]);
        let bytes = files.index.len();
        files.index[at.index(bytes)] = byte;
        let _ = load(&files);
        files.index = index;
        let _ = load(&files);
        let mut files = folded(&[mapping("0a", "A", "/*")]);
        files.credentials.insert("12".into(), shard.as_slice().into());
        let _ = load(&files);
        let _ = serde_json::from_slice::<Value>(&shard).map(|value| load(&refolded(vec![value])));
    }

    #[test]
    fn no_mapping_panics(field in "[a-zA-Z]{1,12}|source|target|requires|state|id|exclude|select", value in prop_oneof![
        Just(json!(null)), Just(json!(-1)), Just(json!([1, [2]])), Just(json!({"account": 1, "container": "/*"})), "\\PC{0,9}".prop_map(Value::from),
    ]) {
        let mut mapping = serde_json::to_value(mapping("0a", "A", "/*")).unwrap();
        mapping[field] = value;
        let _ = load(&refolded(vec![mapping]));
    }
}
