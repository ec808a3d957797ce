use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use crate::validate::validate;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";

fn policy() -> ValidPolicy {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift"},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}},
                "caBundle": {"configMapRef": {"name": "ca", "key": "ca.crt"}}}},
    });
    validate(&serde_json::from_value(policy).unwrap()).unwrap()
}

fn secret(key: &str) -> SecretObject {
    let data = json!({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": key});
    serde_json::from_value(json!({"stringData": data})).unwrap()
}

fn config_map(text: &str) -> ConfigMapObject {
    serde_json::from_value(json!({"data": {"ca.crt": text}})).unwrap()
}

fn reasons(findings: &[Finding]) -> Vec<PolicyFault> {
    findings.iter().map(|finding| finding.reason).collect()
}

#[test]
fn what_could_not_be_got_is_not_called_absent() {
    let resolved = look_up(&policy(), Reference::Unknown, Reference::Unknown);
    assert_eq!(
        reasons(&resolved.findings),
        [PolicyFault::ConfigMapUnavailable, PolicyFault::SecretUnavailable]
    );
    assert_eq!(resolved.mapping.state, MappingState::Suspended);
    for (finding, name) in resolved
        .findings
        .iter()
        .zip(["ConfigMap \"ca\"", "Secret \"keys\""])
    {
        let message = &finding.message;
        assert!(
            message.contains(name) && message.contains("tried again"),
            "{message}"
        );
        assert!(!message.contains("create it"), "{message}");
        assert!(finding.reason.is_tried_again());
    }
    let resolved = look_up(&policy(), Reference::Absent, Reference::Absent);
    assert!(
        resolved
            .findings
            .iter()
            .all(|finding| !finding.reason.is_tried_again())
    );
}

#[test]
fn an_outdated_object_is_used_and_one_that_cannot_be_used_is_waited_for() {
    let (keys, good, empty) = (secret("old"), config_map(PEM), config_map(""));
    let resolved = look_up(&policy(), Reference::Outdated(&keys), Reference::Outdated(&good));
    assert!(resolved.findings.is_empty());
    assert_eq!(
        reasons(&resolved.outdated),
        [PolicyFault::ConfigMapUnavailable, PolicyFault::SecretUnavailable]
    );
    assert_eq!(resolved.mapping.target.ca_bundle.as_deref(), Some(PEM));
    assert_eq!(resolved.mapping.state, MappingState::Active);
    // Perhaps it was corrected: nobody is told to do it.
    let resolved = look_up(&policy(), Reference::There(&keys), Reference::Outdated(&empty));
    assert_eq!(reasons(&resolved.findings), [PolicyFault::ConfigMapUnavailable]);
    assert_eq!(resolved.mapping.state, MappingState::Suspended);
}

#[test]
fn what_agents_have_is_kept_only_in_the_place_of_what_could_not_be_got() {
    let policy = policy();
    let (keys, good) = (secret("new"), config_map(PEM));
    let old = look_up(&policy, Reference::There(&secret("old")), Reference::There(&good)).credentials;
    let kept = |secret, config_map| {
        let mut resolved = look_up(&policy, secret, config_map);
        resolved.keep_credentials(old.as_ref());
        resolved.keep_certificates(&policy, Some(&"kept".to_owned()));
        resolved
    };
    let resolved = kept(Reference::Unknown, Reference::Unknown);
    assert!(resolved.findings.is_empty());
    assert_eq!(resolved.outdated.len(), 2);
    assert_eq!(resolved.mapping.state, MappingState::Active);
    assert_eq!(resolved.mapping.target.ca_bundle.as_deref(), Some("kept"));
    assert!(resolved.credentials.unwrap().is_same(old.as_ref().unwrap()));

    let resolved = kept(Reference::There(&keys), Reference::There(&good));
    assert!(resolved.outdated.is_empty());
    assert_eq!(resolved.mapping.target.ca_bundle.as_deref(), Some(PEM));
    let key = resolved
        .credentials
        .unwrap()
        .keys()
        .unwrap()
        .secret_access_key
        .clone();
    assert_eq!(key.expose_secret(), "new");

    // Taken away on purpose.
    let resolved = kept(Reference::Absent, Reference::Absent);
    assert!(resolved.credentials.is_none() && resolved.mapping.target.ca_bundle.is_none());
    assert_eq!(resolved.findings.len(), 2);
}
