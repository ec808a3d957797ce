//! The Helm chart: what it renders is well formed, is what a real API server takes, and is what `deploy/` has.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::PathBuf;

use onespace_e2e::chart::{self, NAMESPACE, containers, helm, named, objects, render, rendered, run};
use onespace_e2e::kube::Kubernetes;
use onespace_e2e::tools::{tool, workspace};
use serde_json::{Value, json};

#[test]
fn helm_finds_nothing_to_complain_about() {
    for values in chart::values().unwrap() {
        let (chart, values) = (
            chart::folder().display().to_string(),
            values.display().to_string(),
        );
        helm(&["lint", "--strict", &chart, "-f", &values]).unwrap();
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    for (set, named) in [
        ("image.registry=", "image.registry is needed"),
        ("internalEndpoint.image=", "internalEndpoint.image is needed"),
        ("operator.replica=2", "replica"),
        ("agents.image.digest=latest", "digest"),
        ("agents.verificationSlack=soon", "verificationSlack"),
        ("agents.pools.default.port=1", "port"),
        ("operator.watchNamespaces={Photos}", "watchNamespaces"),
        ("helmTest.patienceSeconds=0", "patienceSeconds"),
        (
            "monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true",
            "take one",
        ),
    ] {
        let error = rendered("minimal", &["--set", set]).unwrap_err().to_string();
        assert!(error.contains(named), "{set}: {error}");
    }
}

/// Calls `check` with every schema of an object with fields of its own, and its path.
fn every_object(schema: &Value, path: &str, check: &mut impl FnMut(&Value, &str)) {
    if schema.get("properties").is_some() {
        check(schema, path);
    }
    match schema {
        Value::Object(fields) => {
            for (name, field) in fields {
                every_object(field, &format!("{path}.{name}"), check);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| every_object(item, path, check)),
        _ => {}
    }
}

#[test]
fn a_value_that_does_not_exist_is_refused_wherever_it_is_written() {
    let schema = std::fs::read_to_string(chart::folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut checked = 0;
    every_object(&schema, "", &mut |object, path| {
        checked += 1;
        assert_eq!(object["additionalProperties"], false, "{path} takes anything");
    });
    assert!(checked > 15, "{checked} objects");
    // Both ways: what the schema knows stands in values.yaml with what it means.
    let values = std::fs::read_to_string(chart::folder().join("values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&values).unwrap();
    let documented = |schema: &Value, values: &Value, path: &str| {
        for name in schema["properties"].as_object().unwrap().keys() {
            let is_there = values.as_object().is_some_and(|values| values.contains_key(name));
            assert!(is_there || name == "global", "{path}{name} is not in values.yaml");
        }
    };
    documented(&schema, &values, "");
    for section in [
        "image",
        "crds",
        "operator",
        "agents",
        "internalEndpoint",
        "monitoring",
        "helmTest",
    ] {
        documented(
            &schema["properties"][section],
            &values[section],
            &format!("{section}."),
        );
    }
    documented(
        &schema["properties"]["agents"]["properties"]["poolDefaults"],
        &values["agents"]["poolDefaults"],
        "agents.poolDefaults.",
    );
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
        crds(workspace().join("crds")) == crds(chart::folder().join("files/crds")),
        "out of date: cp crds/*.yaml charts/onespace/files/crds/"
    );

    let policies = |objects: &[Value]| {
        let crd = named(objects, "CustomResourceDefinition", "syncpolicies.onespace.dev");
        crd.unwrap()["metadata"]["annotations"]["helm.sh/resource-policy"].clone()
    };
    assert_eq!(policies(&rendered("minimal", &[]).unwrap()), "keep");
    assert!(policies(&rendered("full", &[]).unwrap()).is_null());
    let none = rendered("minimal", &["--set", "crds.enabled=false"]).unwrap();
    assert!(
        !none
            .iter()
            .any(|object| object["kind"] == "CustomResourceDefinition")
    );
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let minimal = chart::folder().join("ci/minimal.yaml").display().to_string();
    let rendered = render(&["--no-hooks", "-f", &minimal]).unwrap();
    let written = std::fs::read_to_string(workspace().join("deploy/kubernetes.yaml")).unwrap();
    assert!(rendered == written, "out of date: run scripts/render-deploy");
}

#[test]
fn the_notes_say_what_to_look_at_and_what_stays() {
    let minimal = chart::folder().join("ci/minimal.yaml").display().to_string();
    let chart = chart::folder().display().to_string();
    let notes = |more: &[&str]| {
        let install = [
            "install",
            "onespace",
            &chart,
            "--namespace",
            NAMESPACE,
            "--dry-run=client",
            "-f",
            &minimal,
        ];
        let said = helm(&[&install[..], more].concat()).unwrap();
        said.split("NOTES:").nth(1).unwrap().to_owned()
    };
    let plain = notes(&[]);
    for said in [
        "kubectl get syncpol -A",
        "helm test onespace --namespace onespace",
        "Policies count in onespace.",
        "(default)",
        "the CRDs, every policy",
        "Secrets with copies of the policies' keys",
        "kubectl -n onespace delete configmap,secret -l app.kubernetes.io/managed-by=onespace-operator",
        // Whoever makes it gives it no label.
        "kubectl -n onespace delete lease onespace-operator",
    ] {
        assert!(plain.contains(said), "{said}: {plain}");
    }
    let wide = notes(&[
        "--set",
        "operator.watchNamespaces={photos},crds.keep=false,helmTest.enabled=false",
    ]);
    assert!(
        wide.contains("onespace, photos. Outside onespace they need an AccountGrant."),
        "{wide}"
    );
    assert!(
        !wide.contains("the CRDs, every policy") && !wide.contains("helm test"),
        "{wide}"
    );
}

#[test]
fn the_internal_endpoint_is_a_chain_that_ends_at_the_proxy_and_listens_on_loopback() {
    let full = rendered("full", &[]).unwrap();
    let map = named(&full, "ConfigMap", "onespace-node-agent-flash-endpoint").unwrap();
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

#[test]
fn images_are_named_by_their_digests_where_these_are_given() {
    let image = |objects: &[Value], kind: &str, name: &str, container: usize| {
        let object = named(objects, kind, name).unwrap();
        containers(object)[container]["image"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let minimal = rendered("minimal", &[]).unwrap();
    let by_tag = "registry.example.com/onespace/onespace-operator:0.1.0";
    assert_eq!(image(&minimal, "Deployment", "onespace-operator", 0), by_tag);
    assert_eq!(image(&minimal, "Pod", "onespace-test", 0), by_tag);
    let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
    let full = rendered("full", &["--set", "helmTest.enabled=true"]).unwrap();
    let operator = format!("registry.example.com/onespace/operator@{}", digest("a"));
    assert_eq!(image(&full, "Deployment", "onespace-operator", 0), operator);
    assert_eq!(image(&full, "Pod", "onespace-test", 0), operator);
    let agent = format!("registry.example.com/onespace/agent@{}", digest("b"));
    assert_eq!(image(&full, "DaemonSet", "onespace-node-agent-disks", 1), agent);
}

#[test]
fn agents_read_the_node_and_write_their_own_folder_with_one_capability() {
    for object in rendered("full", &[]).unwrap() {
        if object["kind"] != "DaemonSet" {
            continue;
        }
        let spec = &object["spec"]["template"]["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for container in containers(&object) {
            let security = &container["securityContext"];
            let is_agent = container["name"] == "agent";
            assert!(security["privileged"].is_null(), "{container}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{container}");
            let add = if is_agent {
                json!(["DAC_READ_SEARCH"])
            } else {
                Value::Null
            };
            assert_eq!(security["capabilities"]["add"], add, "{container}");
        }
        let volumes = spec["volumes"].as_array().unwrap();
        let of_node = volumes.iter().filter(|volume| volume["hostPath"].is_object());
        let of_node: Vec<&str> = of_node.map(|volume| volume["name"].as_str().unwrap()).collect();
        assert_eq!(of_node, ["swift", "devices", "state"]);
        for container in containers(&object) {
            for mount in container["volumeMounts"].as_array().unwrap() {
                let may_write = mount["name"] == "state" || mount["name"] == "tmp";
                assert_eq!(mount["readOnly"] == true, !may_write, "{mount}");
            }
        }
    }
}

#[test]
fn the_internal_endpoint_is_there_before_the_agent_and_until_after_it() {
    let minimal = rendered("minimal", &[]).unwrap();
    let set = named(&minimal, "DaemonSet", "onespace-node-agent-default").unwrap();
    let first = &set["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(
        (&first["name"], &first["restartPolicy"]),
        (&json!("internal-endpoint"), &json!("Always"))
    );
}

#[test]
fn a_drained_node_takes_one_replica_of_the_operator_at_a_time() {
    let minimal = rendered("minimal", &[]).unwrap();
    let budget = &named(&minimal, "PodDisruptionBudget", "onespace-operator").unwrap()["spec"];
    let deployment = &named(&minimal, "Deployment", "onespace-operator").unwrap()["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["selector"], deployment["selector"]);
    assert_eq!(deployment["replicas"], 2);
    let full = rendered("full", &[]).unwrap();
    assert!(named(&full, "PodDisruptionBudget", "onespace-operator").is_err());
}

#[test]
fn nothing_is_let_in_but_metrics_and_the_operator_where_it_asks() {
    let minimal = rendered("minimal", &[]).unwrap();
    let selector = |kind: &str, name: &str| {
        let object = named(&minimal, kind, name).unwrap();
        object["spec"]["selector"]["matchLabels"].clone()
    };
    let operator = selector("Deployment", "onespace-operator");
    let mut agents = selector("DaemonSet", "onespace-node-agent-default");
    agents.as_object_mut().unwrap().remove("onespace.dev/pool");
    let port = |port: u16| json!([{"port": port, "protocol": "TCP"}]);
    for (name, selected, ingress) in [
        ("onespace-operator", &operator, json!([{"ports": port(9182)}])),
        (
            "onespace-node-agent",
            &agents,
            json!([
                {"ports": port(9180)},
                {"ports": port(9181), "from": [{"podSelector": {"matchLabels": operator}}]},
            ]),
        ),
    ] {
        let spec = &named(&minimal, "NetworkPolicy", name).unwrap()["spec"];
        assert_eq!(&spec["podSelector"]["matchLabels"], selected, "{name}");
        assert_eq!(spec["policyTypes"], json!(["Ingress"]));
        assert_eq!(spec["ingress"], ingress, "{name}");
    }
    let full = rendered("full", &[]).unwrap();
    assert!(!full.iter().any(|object| object["kind"] == "NetworkPolicy"));
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
    // Those of prometheus-operator, as its Go module has them.
    for kind in ["podmonitors", "servicemonitors", "prometheusrules"] {
        let crd = tool(&format!("share/monitoring.coreos.com_{kind}.yaml")).unwrap();
        let crd = objects(&std::fs::read_to_string(crd).unwrap()).unwrap();
        kubernetes.install_crd(&crd[0]).await.unwrap();
    }
    for name in [NAMESPACE, "photos", "films"] {
        kubectl(&["create", "namespace", name], "");
    }
    // A controller makes it in every namespace; there is none here.
    kubectl(
        &["create", "serviceaccount", "default", "--namespace", NAMESPACE],
        "",
    );
    let warn = "pod-security.kubernetes.io/warn=restricted";
    kubectl(&["label", "namespace", NAMESPACE, warn], "");
    let mut of_prometheus = Vec::new();
    for values in chart::values().unwrap() {
        let objects = objects(&render(&["-f", &values.display().to_string()]).unwrap()).unwrap();
        let kinds = objects
            .iter()
            .filter(|object| object["apiVersion"] == "monitoring.coreos.com/v1");
        of_prometheus.extend(kinds.map(|object| object["kind"].as_str().unwrap().to_owned()));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
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
    of_prometheus.sort();
    assert_eq!(of_prometheus, ["PodMonitor", "PrometheusRule", "ServiceMonitor"]);
}
