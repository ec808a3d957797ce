//! The Helm chart: what it renders is well formed, is what a real API server takes, and is what `deploy/` has.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::kube::Kubernetes;
use onespace_e2e::tools::{tool, workspace};
use serde::Deserialize as _;
use serde_json::Value;

const NAMESPACE: &str = "onespace";

fn chart() -> PathBuf {
    workspace().join("charts/onespace")
}

/// The files with values that the chart is tested with.
fn values() -> Vec<PathBuf> {
    let files = std::fs::read_dir(chart().join("ci")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3);
    files
}

fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("HOME", std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output)
}

/// What helm prints.
fn helm(arguments: &[&str]) -> Result<String> {
    let output = run(&tool("bin/helm")?, arguments, "")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "helm {}: {said}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

fn render(more: &[&str]) -> Result<String> {
    let chart = chart().display().to_string();
    let all = [&["template", "onespace", &chart, "--namespace", NAMESPACE], more].concat();
    helm(&all)
}

fn render_with(values: &Path) -> Result<String> {
    render(&["-f", &values.display().to_string()])
}

fn objects(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for values in values() {
        let values = values.display().to_string();
        helm(&["lint", "--strict", &chart().display().to_string(), "-f", &values]).unwrap();
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    let minimal = chart().join("ci/minimal.yaml").display().to_string();
    for (set, named) in [
        ("image.registry=", "image.registry is needed"),
        ("internalEndpoint.image=", "internalEndpoint.image is needed"),
        ("operator.replica=2", "replica"),
        ("agents.image.digest=latest", "digest"),
        ("agents.verificationSlack=soon", "verificationSlack"),
        ("agents.pools.default.port=1", "port"),
        ("operator.watchNamespaces={Photos}", "watchNamespaces"),
    ] {
        let error = render(&["-f", &minimal, "--set", set]).unwrap_err().to_string();
        assert!(error.contains(named), "{set}: {error}");
    }
}

#[test]
fn the_chart_has_the_crds_of_this_repository() {
    let crds = |folder: PathBuf| -> Vec<(String, String)> {
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    assert!(
        crds(workspace().join("crds")) == crds(chart().join("files/crds")),
        "out of date: cp crds/*.yaml charts/onespace/files/crds/"
    );

    let kept = objects(&render_with(&chart().join("ci/minimal.yaml")).unwrap());
    let crd = named(&kept, "CustomResourceDefinition", "syncpolicies.onespace.dev");
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let not_kept = objects(&render_with(&chart().join("ci/full.yaml")).unwrap());
    let crd = named(&not_kept, "CustomResourceDefinition", "syncpolicies.onespace.dev");
    assert!(crd["metadata"]["annotations"]["helm.sh/resource-policy"].is_null());
    let none = render(&[
        "-f",
        &values()[0].display().to_string(),
        "--set",
        "crds.enabled=false",
    ])
    .unwrap();
    assert!(!none.contains("CustomResourceDefinition"));
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let minimal = chart().join("ci/minimal.yaml").display().to_string();
    let rendered = render(&["--no-hooks", "-f", &minimal]).unwrap();
    let written = std::fs::read_to_string(workspace().join("deploy/kubernetes.yaml")).unwrap();
    assert!(rendered == written, "out of date: run scripts/render-deploy");
}

#[test]
fn the_internal_endpoint_is_a_chain_that_ends_at_the_proxy_and_listens_on_loopback() {
    let full = objects(&render_with(&chart().join("ci/full.yaml")).unwrap());
    let map = named(&full, "ConfigMap", "onespace-node-agent-flash-endpoint");
    let text = map["data"]["internal-endpoint.conf"].as_str().unwrap();
    assert!(text.contains("bind_ip = 127.0.0.1\nbind_port = 6191\n"), "{text}");
    assert!(
        !text.contains("pipeline"),
        "Swift would put gatekeeper into it: {text}"
    );
    let mut at = "main".to_owned();
    let mut chain = Vec::new();
    while at != "proxy-server" {
        let section = text.split(&format!("[filter-app:{at}]\n")).nth(1).unwrap();
        let setting = |name: &str| {
            let line = section.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {at}")).to_owned()
        };
        chain.push(setting("use = egg:swift#"));
        at = setting("next = ");
    }
    let expected = [
        "catch_errors",
        "proxy_logging",
        "memcache",
        "symlink",
        "keymaster",
        "encryption",
    ];
    assert_eq!(chain, expected);
    assert!(text.contains("\n[app:proxy-server]\nuse = egg:swift#proxy\n"));
}

/// Names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !word(c))
        .filter(|word| word.starts_with("onespace_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_and_panels_name_metrics_that_exist_and_every_alert_has_its_runbook() {
    let known = metrics_in(&std::fs::read_to_string(workspace().join("docs/metrics.md")).unwrap());
    for file in ["files/rules.yaml", "files/dashboards/onespace.json"] {
        let used = metrics_in(&std::fs::read_to_string(chart().join(file)).unwrap());
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(!used.is_empty() && unknown.is_empty(), "{file}: {unknown:?}");
    }

    let rules = std::fs::read_to_string(chart().join("files/rules.yaml")).unwrap();
    let mut alerts = BTreeSet::new();
    for group in objects(&rules)[0]["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let alert = rule["alert"].as_str().unwrap();
            assert_eq!(rule["annotations"]["runbook_url"], format!("RUNBOOKS/{alert}.md"));
            alerts.insert(format!("{alert}.md"));
        }
    }
    let runbooks = std::fs::read_dir(workspace().join("docs/runbooks")).unwrap();
    let runbooks: BTreeSet<String> = runbooks
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(alerts, runbooks);
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    for (command, file) in [
        ("check", chart().join("files/rules.yaml")),
        ("test", workspace().join("e2e/tests/rules.yaml")),
    ] {
        let output = run(
            Path::new("promtool"),
            &[command, "rules", &file.display().to_string()],
            "",
        )
        .unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn an_api_server_takes_all_of_it_and_the_operator_needs_no_privilege() {
    let kubernetes = Kubernetes::start().await.unwrap();
    let kubectl = |arguments: &[&str], input: &str| {
        let kubeconfig = kubernetes.kubeconfig().display().to_string();
        let all = [&["--kubeconfig", &kubeconfig], arguments].concat();
        let output = run(&tool("bin/kubectl").unwrap(), &all, input).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
        said
    };
    for name in [NAMESPACE, "photos", "films"] {
        kubectl(&["create", "namespace", name], "");
    }
    let warn = "pod-security.kubernetes.io/warn=restricted";
    kubectl(&["label", "namespace", NAMESPACE, warn], "");
    for values in values() {
        let objects = objects(&render_with(&values).unwrap());
        // Its CRDs are not on this server.
        let objects = objects
            .iter()
            .filter(|object| object["apiVersion"] != "monitoring.coreos.com/v1");
        let list =
            serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
        let said = kubectl(
            &[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                "-",
            ],
            &list.to_string(),
        );
        let warnings: Vec<&str> = said.lines().filter(|line| line.contains("Warning")).collect();
        // Agents need what the restricted profile forbids: the node's folders, and its databases' owner.
        let others: Vec<_> = warnings
            .iter()
            .filter(|line| !line.contains("agent") && !line.contains("hostPath"))
            .collect();
        assert!(others.is_empty(), "{}: {others:?}", values.display());
    }
}
