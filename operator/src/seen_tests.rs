use super::*;

const OWN: &str = "swift";

fn policy(namespace: &str) -> Change<Box<SeenPolicy>> {
    let object = serde_json::json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": namespace, "uid": namespace},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_a", "container": namespace},
            "target": {"protocol": "S3", "bucket": "b", "prefix": namespace, "credentials": {"secretRef": {"name": "keys"}}}},
    });
    let policy = read_policy(serde_json::from_value(object).unwrap());
    Change::Listed((namespace.to_owned(), "photos".to_owned()), Box::new(policy))
}

/// Every watch has shown everything, but for those of `tenant`, which is watched, too.
fn seen_without_tenant() -> Seen {
    let names = Names {
        namespace: OWN.to_owned(),
    };
    let scopes = Scopes::new(OWN, &[OWN.to_owned(), "tenant".to_owned()]);
    let mut seen = Seen::new(&scopes, names);
    let own: Scope = Some(OWN.to_owned());
    seen.take(Event::Policy(own.clone(), Change::Restart));
    seen.take(Event::Policy(own.clone(), policy(OWN)));
    seen.take(Event::Policy(own.clone(), Change::Complete));
    seen.take(Event::Secret(own.clone(), Change::Complete));
    seen.take(Event::ConfigMap(own.clone(), Change::Complete));
    seen.take(Event::Pod(own, Change::Complete));
    seen.take(Event::Grant(None, Change::Complete));
    seen.take(Event::Namespace(None, Change::Restart));
    seen
}

fn namespace(name: &str) -> Event {
    let key = (String::new(), name.to_owned());
    Event::Namespace(None, Change::Listed(key, Labels::default()))
}

#[test]
fn a_watched_namespace_that_is_not_there_keeps_nobody_waiting() {
    let mut seen = seen_without_tenant();
    assert!(!seen.is_complete(), "the namespaces were not seen yet");
    seen.take(namespace(OWN));
    assert!(!seen.is_complete());
    seen.take(Event::Namespace(None, Change::Complete));
    assert!(seen.is_complete());
}

#[test]
fn a_watched_namespace_that_is_there_is_waited_for_and_its_policies_go_with_it() {
    let tenant: Scope = Some("tenant".to_owned());
    let mut seen = seen_without_tenant();
    seen.take(namespace(OWN));
    seen.take(namespace("tenant"));
    seen.take(Event::Namespace(None, Change::Complete));
    assert!(!seen.is_complete(), "what is in it was not seen yet");
    seen.take(Event::Policy(tenant.clone(), Change::Restart));
    seen.take(Event::Policy(tenant.clone(), policy("tenant")));
    seen.take(Event::Policy(tenant.clone(), Change::Complete));
    seen.take(Event::Secret(tenant.clone(), Change::Complete));
    seen.take(Event::ConfigMap(tenant, Change::Complete));
    assert!(seen.is_complete());
    assert_eq!(seen.policies.iter().count(), 2);

    // The right to watch it went first: nothing says that its policy is gone.
    let gone = (String::new(), "tenant".to_owned());
    let effect = seen.take(Event::Namespace(None, Change::Gone(gone)));
    assert!(effect.inputs);
    let left: Vec<_> = seen
        .policies
        .iter()
        .map(|((namespace, _), _)| namespace)
        .collect();
    assert_eq!(left, [OWN]);
    assert!(seen.is_complete());
}

#[test]
fn a_watched_namespace_that_is_refused_keeps_nobody_waiting_and_is_told_while_it_is_there() {
    let tenant: Scope = Some("tenant".to_owned());
    let mut seen = seen_without_tenant();
    seen.take(namespace(OWN));
    seen.take(namespace("tenant"));
    seen.take(Event::Namespace(None, Change::Complete));
    assert!(seen.take(Event::Policy(tenant.clone(), Change::Refused)).inputs);
    assert!(!seen.is_complete(), "Secrets may just be late");
    seen.take(Event::Secret(tenant.clone(), Change::Refused));
    seen.take(Event::ConfigMap(tenant.clone(), Change::Refused));
    assert!(seen.is_complete());
    assert!(seen.unreadable().eq(["tenant"]));
    let key = |namespace: &str| (namespace.to_owned(), "photos".to_owned());
    assert!(seen.may_be_hidden(&key("tenant")) && !seen.may_be_hidden(&key("another")));

    // All as usual once it can be read.
    seen.take(Event::Policy(tenant.clone(), Change::Restart));
    assert!(seen.take(Event::Policy(tenant.clone(), Change::Complete)).inputs);
    assert!(!seen.may_be_hidden(&key("tenant")), "there is none");
    assert!(seen.unreadable().eq(["tenant"]), "its Secrets are not shown");
    seen.take(Event::Secret(tenant.clone(), Change::Complete));
    seen.take(Event::ConfigMap(tenant.clone(), Change::Complete));
    assert_eq!(seen.unreadable().count(), 0);

    // One that is deleted is not hidden: its policies are gone.
    seen.take(Event::Policy(tenant, Change::Refused));
    assert!(seen.may_be_hidden(&key("tenant")));
    seen.take(Event::Namespace(
        None,
        Change::Gone((String::new(), "tenant".to_owned())),
    ));
    assert!(!seen.may_be_hidden(&key("tenant")));
    assert_eq!(seen.unreadable().count(), 0);
}

#[test]
fn without_the_operators_own_namespace_nothing_goes_on() {
    let names = Names {
        namespace: OWN.to_owned(),
    };
    let own: Scope = Some(OWN.to_owned());
    let mut seen = Seen::new(&Scopes::new(OWN, &[]), names);
    seen.take(Event::Policy(own.clone(), Change::Refused));
    seen.take(Event::Secret(own.clone(), Change::Refused));
    seen.take(Event::ConfigMap(own.clone(), Change::Refused));
    seen.take(Event::Pod(own, Change::Refused));
    assert!(!seen.is_complete());
}
