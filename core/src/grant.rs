//! What a namespace's policies may do: an AccountGrant, parsed once.
//!
//! The internal endpoint of a Swift cluster knows no users, so a policy is power over an account.

use std::collections::BTreeMap;

use onespace_crds::{AccountGrantSpec, LabelOperator, LabelRequirement, Mode, NamespaceSelector};

use crate::validate::{Endpoint, ValidPolicy};

/// The credential that stands for those of the agents' surroundings.
const AMBIENT: &str = "ambient";

/// The labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// An AccountGrant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    selector: NamespaceSelector,
    accounts: Vec<String>,
    modes: Vec<Mode>,
    endpoints: Option<Vec<Endpoint>>,
    ambient: bool,
}

impl Grant {
    /// Reads a grant. An endpoint that is no address covers nothing.
    #[must_use]
    pub fn new(spec: &AccountGrantSpec) -> Self {
        let AccountGrantSpec {
            namespace_selector,
            accounts,
            modes,
            endpoints,
            ambient,
        } = spec;
        let endpoint = |text: &String| match text.as_str() {
            "AWS" => Some(Endpoint::Aws),
            url => Endpoint::parse(url),
        };
        Self {
            selector: namespace_selector.clone(),
            accounts: accounts.clone(),
            modes: modes.clone().unwrap_or_else(|| vec![Mode::Sync]),
            endpoints: endpoints
                .as_ref()
                .map(|endpoints| endpoints.iter().filter_map(endpoint).collect()),
            ambient: ambient.unwrap_or(false),
        }
    }

    /// Whether it lets a policy in a namespace with these labels be.
    #[must_use]
    pub fn covers(&self, policy: &ValidPolicy, namespace: &Labels) -> bool {
        let Self {
            selector,
            accounts,
            modes,
            endpoints,
            ambient,
        } = self;
        let mapping = &policy.mapping;
        selects(selector, namespace)
            && accounts
                .iter()
                .any(|account| covers_account(account, &mapping.source.account))
            && modes.contains(&mapping.mode)
            && endpoints.as_ref().is_none_or(|granted| {
                // What goes through a proxy goes to the proxy.
                let proxy = mapping.target.http_proxy.as_deref().map(Endpoint::parse);
                let covered =
                    |endpoint: &Endpoint| granted.iter().any(|granted| covers_endpoint(granted, endpoint));
                covered(&policy.endpoint) && proxy.is_none_or(|proxy| proxy.as_ref().is_some_and(covered))
            })
            && (*ambient || mapping.target.credential.0 != AMBIENT)
    }
}

/// `AUTH_test`, or `AUTH_test*` for all that start so.
fn covers_account(granted: &str, account: &str) -> bool {
    match granted.strip_suffix('*') {
        Some(start) => account.starts_with(start),
        None => granted == account,
    }
}

/// Host and port are equal, and so is the path, unless none is granted.
fn covers_endpoint(granted: &Endpoint, wanted: &Endpoint) -> bool {
    match (granted, wanted) {
        (
            Endpoint::Host { host, port, path },
            Endpoint::Host {
                host: wanted_host,
                port: wanted_port,
                path: wanted_path,
            },
        ) => host == wanted_host && port == wanted_port && (path.is_empty() || path == wanted_path),
        (granted, wanted) => granted == wanted,
    }
}

/// As Kubernetes' own label selectors: everything that is given must hold.
fn selects(selector: &NamespaceSelector, labels: &Labels) -> bool {
    let NamespaceSelector {
        match_labels,
        match_expressions,
    } = selector;
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    match_labels.iter().flatten().all(equal)
        && match_expressions
            .iter()
            .flatten()
            .all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelRequirement, labels: &Labels) -> bool {
    let LabelRequirement {
        key,
        operator,
        values,
    } = requirement;
    let found = labels.get(key);
    let one_of = || found.is_some_and(|found| values.iter().flatten().any(|value| value == found));
    match operator {
        LabelOperator::In => one_of(),
        LabelOperator::NotIn => !one_of(),
        LabelOperator::Exists => found.is_some(),
        LabelOperator::DoesNotExist => found.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::validate::validate;

    fn policy(endpoint: Option<&str>) -> ValidPolicy {
        let mut target =
            json!({"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}});
        if let Some(endpoint) = endpoint {
            target["endpoint"] = json!(endpoint);
        }
        let policy = json!({
            "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
            "metadata": {"name": "photos", "namespace": "tenant"},
            "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"}, "target": target},
        });
        validate(&serde_json::from_value(policy).unwrap()).unwrap()
    }

    /// Whether a grant with this changed covers the policy, in a namespace that is labelled `team: red`.
    fn covers(field: &str, value: Value, endpoint: Option<&str>) -> bool {
        let mut spec = json!({
            "namespaceSelector": {"matchLabels": {"team": "red"}},
            "accounts": ["AUTH_test"],
        });
        spec[field] = value;
        let grant = Grant::new(&serde_json::from_value(spec).unwrap());
        let labels = Labels::from([("team".to_owned(), "red".to_owned())]);
        grant.covers(&policy(endpoint), &labels)
    }

    #[test]
    fn a_grant_covers_the_namespaces_that_it_selects() {
        let expression = |operator: &str, values: Value| {
            let mut requirement = json!({"key": "team", "operator": operator});
            if !values.is_null() {
                requirement["values"] = values;
            }
            json!({"matchExpressions": [requirement]})
        };
        for (selector, selected) in [
            (json!({}), true),
            (json!({"matchLabels": {"team": "red"}}), true),
            (json!({"matchLabels": {"team": "blue"}}), false),
            (json!({"matchLabels": {"team": "red", "stage": "test"}}), false),
            (expression("In", json!(["blue", "red"])), true),
            (expression("In", json!(["blue"])), false),
            (expression("NotIn", json!(["blue"])), true),
            (expression("NotIn", json!(["red"])), false),
            (expression("Exists", Value::Null), true),
            (expression("DoesNotExist", Value::Null), false),
        ] {
            assert_eq!(
                covers("namespaceSelector", selector.clone(), None),
                selected,
                "{selector}"
            );
        }
    }

    #[test]
    fn accounts_are_named_whole_or_by_their_beginning() {
        for (account, covered) in [
            ("AUTH_test", true),
            ("AUTH_tes", false),
            ("AUTH_tes*", true),
            ("AUTH_test*", true),
            ("*", true),
            ("AUTH_b*", false),
        ] {
            assert_eq!(covers("accounts", json!([account]), None), covered, "{account}");
        }
    }

    #[test]
    fn a_grant_that_names_no_mode_is_for_sync_alone() {
        assert!(covers("modes", json!(["Archive", "Sync"]), None));
        assert!(!covers("modes", json!(["Archive"]), None));
        let spec = json!({"namespaceSelector": {}, "accounts": ["*"]});
        let grant = Grant::new(&serde_json::from_value(spec).unwrap());
        let mut archive = policy(None);
        assert!(grant.covers(&archive, &Labels::new()));
        Arc::make_mut(&mut archive.mapping).mode = Mode::Archive;
        assert!(!grant.covers(&archive, &Labels::new()));
    }

    #[test]
    fn endpoints_are_compared_by_host_port_and_path() {
        let s3 = Some("https://s3.example.com/a");
        for (granted, endpoint, covered) in [
            ("AWS", None, true),
            ("AWS", s3, false),
            ("https://S3.example.com", s3, true),
            ("https://s3.example.com:443/", s3, true),
            ("https://s3.example.com/a", s3, true),
            ("https://s3.example.com/b", s3, false),
            ("http://s3.example.com", s3, false),
            ("https://s3.example.com", None, false),
        ] {
            assert_eq!(
                covers("endpoints", json!([granted]), endpoint),
                covered,
                "{granted} {endpoint:?}"
            );
        }
    }

    #[test]
    fn a_proxy_is_granted_as_endpoints_are() {
        let mut through_a_proxy = policy(None);
        Arc::make_mut(&mut through_a_proxy.mapping).target.http_proxy =
            Some("http://proxy.example.com:3128".to_owned());
        for (endpoints, covered) in [
            (json!(null), true),
            (json!(["AWS"]), false),
            (json!(["http://proxy.example.com:3128"]), false),
            (json!(["AWS", "http://proxy.example.com"]), false),
            (json!(["AWS", "http://proxy.example.com:3128"]), true),
        ] {
            let spec = json!({"namespaceSelector": {}, "accounts": ["*"], "endpoints": endpoints});
            let grant = Grant::new(&serde_json::from_value(spec).unwrap());
            assert_eq!(
                grant.covers(&through_a_proxy, &Labels::new()),
                covered,
                "{endpoints}"
            );
        }
    }

    #[test]
    fn ambient_credentials_need_a_grant_that_says_so() {
        let mut ambient = policy(None);
        Arc::make_mut(&mut ambient.mapping).target.credential.0 = AMBIENT.to_owned();
        for (allowed, covered) in [(json!(true), true), (json!(false), false)] {
            let spec = json!({"namespaceSelector": {}, "accounts": ["*"], "ambient": allowed});
            let grant = Grant::new(&serde_json::from_value(spec).unwrap());
            assert_eq!(grant.covers(&ambient, &Labels::new()), covered);
        }
    }
}
