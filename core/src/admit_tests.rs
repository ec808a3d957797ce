use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::shard::fold;
use crate::validate::{ConfigMapObject, Reference, SecretObject, look_up, validate};

pub(crate) fn policy(namespace: &str, name: &str, container: &str, prefix: &str) -> ValidPolicy {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": container},
            "target": {
                "protocol": "S3", "bucket": "backup", "prefix": prefix,
                "credentials": {"secretRef": {"name": "keys"}},
                "caBundle": {"configMapRef": {"name": "ca", "key": "ca.crt"}},
            },
        },
    });
    validate(&serde_json::from_value(policy).unwrap()).unwrap()
}

fn secret() -> SecretObject {
    let secret = json!({"stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}});
    serde_json::from_value(secret).unwrap()
}

fn certificates() -> ConfigMapObject {
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    serde_json::from_value(json!({"data": {"ca.crt": text}})).unwrap()
}

pub(crate) fn applicant(policy: &ValidPolicy) -> Applicant<'_> {
    Applicant {
        policy,
        resolved: look_up(
            policy,
            Reference::There(&secret()),
            Reference::There(&certificates()),
        ),
        created: None,
        granted: true,
    }
}

fn names(admitted: &Admitted) -> Vec<&str> {
    let names = admitted
        .mappings
        .iter()
        .map(|mapping| mapping.policy.name.as_str());
    names.collect()
}

fn reason(admitted: &Admitted, namespace: &str, name: &str) -> Option<PolicyFault> {
    let key = (namespace.to_owned(), name.to_owned());
    admitted.refused.get(&key).map(|finding| finding.reason)
}

#[test]
fn a_policy_without_a_grant_reaches_no_agent_and_takes_no_place() {
    let (tenant, own) = (
        policy("tenant", "a", "one", "p"),
        policy("swift", "b", "one", "p"),
    );
    let mut ungranted = applicant(&tenant);
    ungranted.granted = false;
    let admitted = admit(
        vec![ungranted, applicant(&own)],
        &Incumbents::default(),
        SHARD_ROOM,
    );
    assert_eq!(names(&admitted), ["b"]);
    assert_eq!(reason(&admitted, "tenant", "a"), Some(PolicyFault::NotGranted));
}

#[test]
fn who_is_in_the_files_wins_until_it_goes() {
    let (a, b) = (policy("swift", "a", "one", "p"), policy("swift", "b", "one", "p"));
    let alone = admit(vec![applicant(&b)], &Incumbents::default(), SHARD_ROOM);
    let files = fold(&alone.mappings, &alone.credentials, &Files::default(), "1").unwrap();
    let incumbents = Incumbents::of(&files);
    let both = admit(vec![applicant(&a), applicant(&b)], &incumbents, SHARD_ROOM);
    assert_eq!(names(&both), ["b"], "though a comes first by name");
    assert_eq!(reason(&both, "swift", "a"), Some(PolicyFault::Conflict));
    let after = admit(vec![applicant(&a)], &incumbents, SHARD_ROOM);
    assert_eq!(names(&after), ["a"]);
}

#[test]
fn a_policy_that_moves_onto_anothers_target_is_no_incumbent_there() {
    let (a, b) = (policy("swift", "a", "one", "p"), policy("swift", "b", "one", "q"));
    let first = admit(
        vec![applicant(&a), applicant(&b)],
        &Incumbents::default(),
        SHARD_ROOM,
    );
    let files = fold(&first.mappings, &first.credentials, &Files::default(), "1").unwrap();
    let moved = policy("swift", "a", "one", "q");
    let after = admit(
        vec![applicant(&moved), applicant(&b)],
        &Incumbents::of(&files),
        SHARD_ROOM,
    );
    assert_eq!(names(&after), ["b"]);
}

#[test]
fn what_cannot_be_read_of_the_files_keeps_nobody_out() {
    let files = Files {
        mappings: BTreeMap::from([
            ("00".to_owned(), b"{".to_vec().into()),
            (
                "01".to_owned(),
                br#"{"formatVersion": 1, "revision": "", "mappings": [{"id": 5}]}"#
                    .to_vec()
                    .into(),
            ),
        ]),
        ..Files::default()
    };
    assert_eq!(Incumbents::of(&files), Incumbents::default());
}

#[test]
fn a_mapping_whose_secret_is_missing_keeps_its_place_without_credentials() {
    let policy = policy("swift", "a", "one", "p");
    let mut applicant = applicant(&policy);
    applicant.resolved = look_up(&policy, Reference::Absent, Reference::There(&certificates()));
    let admitted = admit(vec![applicant], &Incumbents::default(), SHARD_ROOM);
    assert_eq!(names(&admitted), ["a"]);
    assert!(admitted.credentials.is_empty());
    let lacking: Vec<_> = admitted
        .lacking
        .values()
        .flatten()
        .map(|finding| finding.reason)
        .collect();
    assert_eq!(lacking, [PolicyFault::SecretNotFound]);
}

#[test]
fn a_mapping_whose_certificates_are_missing_is_suspended() {
    let policy = policy("swift", "a", "one", "p");
    let resolved = look_up(&policy, Reference::There(&secret()), Reference::Absent);
    assert_eq!(resolved.mapping.state, crate::mapping::MappingState::Suspended);
    assert_eq!(resolved.findings.len(), 1);
}

#[test]
fn a_loser_takes_over_when_the_winner_does_not_fit() {
    let (a, b) = (
        policy("swift", "a", &"x".repeat(200), "p"),
        policy("swift", "b", "y", "p"),
    );
    let size = in_a_file(&*applicant(&b).resolved.mapping);
    let admitted = admit(
        vec![applicant(&a), applicant(&b)],
        &Incumbents::default(),
        size + 50,
    );
    assert_eq!(names(&admitted), ["b"]);
    assert_eq!(reason(&admitted, "swift", "a"), Some(PolicyFault::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_shard_is_larger_than_its_room_and_the_first_are_in(
        lengths in proptest::collection::vec(1_usize..200, 1..40),
        room in 2_000_usize..6_000,
    ) {
        let policies: Vec<ValidPolicy> = lengths
            .iter()
            .enumerate()
            .map(|(n, length)| policy("swift", &format!("p{n:02}"), &"x".repeat(*length), &format!("p{n:02}")))
            .collect();
        let admitted = admit(policies.iter().map(applicant).collect(), &Incumbents::default(), room);
        prop_assert_eq!(admitted.mappings.len() + admitted.refused.len(), policies.len());
        let files = fold(&admitted.mappings, &admitted.credentials, &Files::default(), "1").unwrap();
        // What stands around the entries of a file.
        let frame = 100;
        for bytes in files.mappings.values().chain(files.credentials.values()) {
            prop_assert!(bytes.len() <= room + frame, "{} of {room}", bytes.len());
        }
        for (_, name) in admitted.refused.keys() {
            let shard = |name: &str| {
                let policy = policies.iter().find(|policy| policy.mapping.policy.name == name).unwrap();
                policy.mapping.id.shard()
            };
            prop_assert!(
                admitted.mappings.iter().any(|mapping| mapping.id.shard() == shard(name)),
                "{name} was refused though its shard is empty"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn on_the_way_from_one_set_to_another_no_mixture_loads(
        before in proptest::collection::vec(0_usize..30, 0..8),
        after in proptest::collection::vec(0_usize..30, 0..8),
    ) {
        let files = |numbers: &[usize], previous: &Files, fresh: &str| {
            let policies: Vec<ValidPolicy> = numbers
                .iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|n| policy("swift", &format!("p{n}"), "one", &format!("p{n}")))
                .collect();
            let admitted = admit(policies.iter().map(applicant).collect(), &Incumbents::default(), SHARD_ROOM);
            fold(&admitted.mappings, &admitted.credentials, previous, fresh).unwrap()
        };
        let old = files(&before, &Files::default(), "1");
        let new = files(&after, &old, "2");
        let mut now = old.clone();
        for step in crate::shard::steps(&old, &new) {
            let put = |shards: &mut crate::load::Shards, shard: &str, bytes: Option<&[u8]>| match bytes {
                Some(bytes) => drop(shards.insert(shard.to_owned(), bytes.into())),
                None => drop(shards.remove(shard)),
            };
            match step {
                crate::shard::Step::Credentials(shard, bytes) => put(&mut now.credentials, shard, bytes),
                crate::shard::Step::Mappings(shard, bytes) => put(&mut now.mappings, shard, bytes),
                crate::shard::Step::Index(bytes) => now.index = bytes.to_vec(),
            }
            if let Ok(loaded) = crate::load::load(&now) {
                let ids = |files: &Files| -> Vec<String> {
                    crate::load::load(files).unwrap().mappings.iter().map(|mapping| mapping.id.0.clone()).collect()
                };
                let seen: Vec<String> = loaded.mappings.iter().map(|mapping| mapping.id.0.clone()).collect();
                prop_assert!(seen == ids(&old) || seen == ids(&new));
            }
        }
        prop_assert!(now == new);
    }
}
