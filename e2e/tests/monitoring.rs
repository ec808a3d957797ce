//! Alerts, runbooks and dashboard: they name what there is, and alerts fire when they should, as the real promtool finds.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use onespace_e2e::chart::{self, named, objects, rendered, run};
use onespace_e2e::tools::workspace;
use serde_json::{Value, json};

/// Names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !word(c))
        .filter(|word| word.starts_with("onespace_"))
        // A histogram's buckets are its own.
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

fn text(file: impl AsRef<Path>) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn rules() -> Value {
    objects(&text(chart::folder().join("files/rules.yaml")))
        .unwrap()
        .remove(0)
}

fn alerts() -> BTreeSet<String> {
    let rules = rules();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| rule["alert"].as_str().unwrap().to_owned())
        .collect()
}

fn promtool(arguments: &[&str]) -> String {
    let output = run(Path::new("promtool"), arguments, "").unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "promtool {}: {said}",
        arguments.join(" ")
    );
    said
}

#[test]
fn alerts_and_panels_name_metrics_that_exist_and_every_alert_has_its_runbook() {
    let known = metrics_in(&text(workspace().join("docs/metrics.md")));
    for file in ["files/rules.yaml", "files/dashboards/onespace.json"] {
        let used = metrics_in(&text(chart::folder().join(file)));
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(!used.is_empty() && unknown.is_empty(), "{file}: {unknown:?}");
    }

    for group in rules()["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let alert = rule["alert"].as_str().unwrap();
            assert_eq!(rule["annotations"]["runbook_url"], format!("RUNBOOKS/{alert}.md"));
        }
    }
    let runbooks = std::fs::read_dir(workspace().join("docs/runbooks")).unwrap();
    let runbooks: BTreeSet<String> = runbooks
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let wanted: BTreeSet<String> = alerts().iter().map(|alert| format!("{alert}.md")).collect();
    assert_eq!(wanted, runbooks);
}

#[test]
fn every_operator_metric_that_can_tell_of_trouble_is_watched_by_an_alert() {
    let known = metrics_in(&text(workspace().join("docs/metrics.md")));
    let watched = metrics_in(&text(chart::folder().join("files/rules.yaml")));
    let unwatched = known
        .difference(&watched)
        .filter(|name| name.starts_with("onespace_operator_"));
    let unwatched: Vec<&String> = unwatched.collect();
    // How much, and how long: for the dashboard. Refused policies are Stalled, too.
    let told = [
        "onespace_operator_file_writes_total",
        "onespace_operator_policies",
        "onespace_operator_round_seconds",
    ];
    assert_eq!(unwatched, told);
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    let (rules, tests) = (
        chart::folder().join("files/rules.yaml"),
        workspace().join("e2e/tests/rules.yaml"),
    );
    promtool(&["check", "rules", &rules.display().to_string()]);
    promtool(&["test", "rules", &tests.display().to_string()]);

    // Each was seen to fire, and to keep quiet.
    let tests = &objects(&text(tests)).unwrap()[0];
    let (mut fired, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for test in tests["tests"].as_array().unwrap() {
        for case in test["alert_rule_test"].as_array().unwrap() {
            let alert = case["alertname"].as_str().unwrap().to_owned();
            let expected = case["exp_alerts"].as_array().unwrap();
            if expected.is_empty() {
                &mut quiet
            } else {
                &mut fired
            }
            .insert(alert);
        }
    }
    assert_eq!(fired, alerts());
    // Another node's agent is well all the time.
    quiet.extend(["OnespaceNothingLoaded", "OnespaceRowsHeld"].map(str::to_owned));
    assert_eq!(quiet, alerts());
}

#[test]
fn prometheus_understands_every_panel() {
    let dashboard: Value =
        serde_json::from_str(&text(chart::folder().join("files/dashboards/onespace.json"))).unwrap();
    let mut places = BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = &panel["gridPos"];
        assert!(
            places.insert(format!("{}/{}", place["x"], place["y"])),
            "two panels in one place: {panel}"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            // What Grafana puts in.
            let expression = target["expr"].as_str().unwrap();
            expressions.push(expression.replace("$__rate_interval", "5m"));
        }
    }
    assert!(expressions.len() > 15, "{expressions:?}");
    let rules = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| json!({"record": format!("panel:{number}"), "expr": expression}));
    let group = json!({"groups": [{"name": "panels", "rules": rules.collect::<Vec<_>>()}]});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), group.to_string()).unwrap();
    promtool(&["check", "rules", &file.path().display().to_string()]);
}

#[test]
fn monitors_find_the_metrics_of_every_component_under_its_own_name() {
    let labels = |object: &Value| object.pointer("/spec/template/metadata/labels").unwrap().clone();
    let selects = |selector: &Value, labels: &Value| {
        let mut wanted = selector["matchLabels"].as_object().unwrap().iter();
        wanted.all(|(name, value)| labels.get(name) == Some(value))
    };
    let port = |object: &Value, port: &str| {
        let containers = object
            .pointer("/spec/template/spec/containers")
            .unwrap()
            .as_array()
            .unwrap();
        let mut ports = containers
            .iter()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten());
        ports.any(|named| named["name"] == port)
    };
    let full = rendered("full", &[]).unwrap();
    let monitor = &named(&full, "PodMonitor", "onespace").unwrap()["spec"];
    for (kind, name) in [
        ("Deployment", "onespace-operator"),
        ("DaemonSet", "onespace-node-agent-disks"),
        ("DaemonSet", "onespace-node-agent-flash"),
    ] {
        let object = named(&full, kind, name).unwrap();
        assert!(selects(&monitor["selector"], &labels(object)), "{name}");
        assert!(
            port(
                object,
                monitor["podMetricsEndpoints"][0]["port"].as_str().unwrap()
            ),
            "{name}"
        );
    }

    let services = rendered("namespaces", &[]).unwrap();
    let monitor = named(&services, "ServiceMonitor", "onespace").unwrap();
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let monitor = &monitor["spec"];
    for (name, kind, pods) in [
        ("onespace-operator", "Deployment", "onespace-operator"),
        ("onespace-node-agent", "DaemonSet", "onespace-node-agent-default"),
    ] {
        let service = named(&services, "Service", name).unwrap();
        assert!(
            selects(&monitor["selector"], &service["metadata"]["labels"]),
            "{name}"
        );
        let endpoint = &monitor["endpoints"][0];
        assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);
        let pods = labels(named(&services, kind, pods).unwrap());
        assert!(
            selects(&json!({"matchLabels": service["spec"]["selector"]}), &pods),
            "{name}"
        );
    }
}
