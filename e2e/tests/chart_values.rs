//! The Helm chart: what values of its users lead to.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use onespace_e2e::chart::{self, containers, helm, named, objects, rendered};
use serde_json::{Value, json};

/// The value of a variable of the agents of a pool.
fn variable(objects: &[Value], pool: &str, name: &str) -> Option<String> {
    let set = named(objects, "DaemonSet", &format!("onespace-node-agent-{pool}")).unwrap();
    let variables = containers(set)[1]["env"].as_array().unwrap();
    let found = variables.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str().unwrap().to_owned())
}

fn denied(objects: &[Value], pool: &str) -> Vec<IpNet> {
    let networks = variable(objects, pool, "ONESPACE_DENY_REMOTE").unwrap();
    networks
        .split(',')
        .map(|network| network.parse().unwrap())
        .collect()
}

#[test]
fn values_add_to_the_networks_that_are_always_denied_and_take_none_away() {
    let always = denied(&rendered("minimal", &[]).unwrap(), "default");
    for address in [
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fe80::a9fe:a9fe",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert!(
            always.iter().any(|network| network.contains(&address)),
            "{address}"
        );
    }
    for (json, added) in [
        ("[]", vec![]),
        ("null", vec![]),
        (r#"["127.0.0.0/8"]"#, vec![]),
        (r#"["10.0.0.0/8", "fd00::/8"]"#, vec!["10.0.0.0/8", "fd00::/8"]),
    ] {
        let set = format!("agents.denyRemotes={json}");
        let found = denied(&rendered("minimal", &["--set-json", &set]).unwrap(), "default");
        let added = added.iter().map(|network| network.parse().unwrap());
        let expected: Vec<IpNet> = always.iter().copied().chain(added).collect();
        assert_eq!(found, expected, "{set}");
    }
    let full = rendered("full", &[]).unwrap();
    for pool in ["disks", "flash"] {
        assert!(denied(&full, pool).starts_with(&always), "{pool}");
    }
}

#[test]
fn a_network_that_agents_could_not_read_is_refused_by_helm() {
    let take = |network: &str| {
        let set = format!("agents.denyRemotes={}", json!([network]));
        rendered("minimal", &["--set-json", &set])
    };
    for network in [
        "0.0.0.0/0",
        "10.1.2.3/8",
        "255.255.255.255/32",
        "::/0",
        "::1/128",
        "fd00::/8",
        "2001:DB8:0:1::/64",
        "1:2:3:4:5:6:7:8/127",
        "1::8/99",
        "1:2:3:4:5:6:7::/112",
        "::2:3:4:5:6:7:8/100",
        "1:2::7:8/10",
    ] {
        assert!(network.parse::<IpNet>().is_ok(), "agents do not read {network}");
        if let Err(error) = take(network) {
            panic!("{network}: {error}");
        }
    }
    for network in [
        "",
        "/",
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/99",
        "10.0.0.0/33",
        "10.0.0/8",
        "256.0.0.0/8",
        "10.0.0.0/8,",
        "10.0.0.0/8 ",
        "::1",
        "::/129",
        ":::/8",
        "1:2:3:4:5:6:7/64",
        "1:2:3:4:5:6:7:8:9/64",
        "1::2::3/64",
        "g::/8",
        "localhost/8",
    ] {
        assert!(network.parse::<IpNet>().is_err(), "agents read {network}");
        let error = take(network).unwrap_err().to_string();
        assert!(error.contains("denyRemotes"), "{network}: {error}");
    }
}

/// The pools that there are DaemonSets of.
fn pools(objects: &[Value]) -> Vec<&str> {
    let sets = objects.iter().filter(|object| object["kind"] == "DaemonSet");
    let pools = sets.map(|set| set["metadata"]["labels"]["onespace.dev/pool"].as_str().unwrap());
    let mut pools: Vec<_> = pools.collect();
    pools.sort_unstable();
    pools
}

#[test]
fn pools_that_are_given_replace_the_one_that_there_is_without_any() {
    for (json, expected) in [
        ("{}", vec!["default"]),
        ("null", vec!["default"]),
        (r#"{"default": {}}"#, vec!["default"]),
        (r#"{"disks": {}}"#, vec!["disks"]),
        (r#"{"disks": {}, "flash": {}}"#, vec!["disks", "flash"]),
        // How a file of values takes away what another one has.
        (r#"{"default": null, "disks": {}}"#, vec!["disks"]),
    ] {
        let set = format!("agents.pools={json}");
        let objects = rendered("minimal", &["--set-json", &set]).unwrap();
        assert_eq!(pools(&objects), expected, "{set}");
        // Each has the configuration of its endpoint.
        for pool in expected {
            let map = format!("onespace-node-agent-{pool}-endpoint");
            named(&objects, "ConfigMap", &map).unwrap();
        }
    }
}

#[test]
fn what_a_pool_sets_replaces_the_default_as_a_whole() {
    let values = json!({
        "poolDefaults": {
            "nodeSelector": {"swift": "disks"},
            "tolerations": [{"key": "swift"}],
            "podAnnotations": {"a": "b"},
            "updateStrategy": {"type": "OnDelete"},
            "priorityClassName": "high",
            "hostNetwork": true,
        },
        "pools": {
            "plain": {},
            "other": {
                "nodeSelector": {"disk": "flash"},
                "tolerations": [],
                "podAnnotations": {"c": "d"},
                "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}},
                "priorityClassName": "",
                "hostNetwork": false,
            },
        },
    });
    let objects = rendered("minimal", &["--set-json", &format!("agents={values}")]).unwrap();
    let spec = |pool: &str| {
        let set = named(&objects, "DaemonSet", &format!("onespace-node-agent-{pool}")).unwrap();
        let pod = &set["spec"]["template"];
        let annotation = |name: &str| pod["metadata"]["annotations"][name].clone();
        json!({
            "nodeSelector": pod["spec"]["nodeSelector"],
            "tolerations": pod["spec"]["tolerations"],
            "annotations": [annotation("a"), annotation("c")],
            "updateStrategy": set["spec"]["updateStrategy"],
            "priorityClassName": pod["spec"]["priorityClassName"],
            "hostNetwork": pod["spec"]["hostNetwork"],
        })
    };
    assert_eq!(
        spec("plain"),
        json!({
            "nodeSelector": {"swift": "disks"},
            "tolerations": [{"key": "swift"}],
            "annotations": ["b", null],
            "updateStrategy": {"type": "OnDelete"},
            "priorityClassName": "high",
            "hostNetwork": true,
        })
    );
    assert_eq!(
        spec("other"),
        json!({
            "nodeSelector": {"disk": "flash"},
            "tolerations": null,
            "annotations": [null, "d"],
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}},
            "priorityClassName": null,
            "hostNetwork": null,
        })
    );
}

#[test]
fn the_port_of_the_container_server_counts_on_both_networks() {
    let given = |set: &str| {
        let objects = rendered("minimal", &["--set", set]).unwrap();
        variable(&objects, "default", "ONESPACE_CONTAINER_SERVER")
    };
    for (set, expected) in [
        ("agents.poolDefaults.hostNetwork=false", Some("[$(HOST_IP)]:6201")),
        (
            "agents.poolDefaults.containerServerPort=6301",
            Some("[$(HOST_IP)]:6301"),
        ),
        // container-server.conf says it.
        ("agents.poolDefaults.hostNetwork=true", None),
        (
            "agents.poolDefaults.hostNetwork=true,agents.poolDefaults.containerServerPort=6301",
            Some(":6301"),
        ),
    ] {
        assert_eq!(given(set).as_deref(), expected, "{set}");
    }
}

#[test]
fn a_second_release_in_another_namespace_makes_nothing_that_the_first_has() {
    let names = |namespace: &str, more: &[&str]| -> BTreeSet<(String, String, String)> {
        let chart = chart::folder().display().to_string();
        let minimal = chart::folder().join("ci/minimal.yaml").display().to_string();
        let words = [
            "template",
            namespace,
            &chart,
            "--namespace",
            namespace,
            "-f",
            &minimal,
        ];
        let found = objects(&helm(&[&words[..], more].concat()).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            (
                text(&object["kind"]),
                text(&metadata["namespace"]),
                text(&metadata["name"]),
            )
        };
        found.iter().map(name).collect()
    };
    let wide = ["--set", "operator.watchNamespaces={photos}"];
    let narrow = ["--set", "operator.watchNamespaces={films}"];
    let shared = ["--set", "crds.enabled=false,roles.enabled=false"];
    let first = names("one", &wide);
    for second in ["two", "uninstall-one"] {
        let second = names(second, &[narrow, shared].concat());
        assert_eq!(first.intersection(&second).collect::<Vec<_>>(), [] as [&_; 0]);
    }
    let both: Vec<_> = names("two", &narrow).intersection(&first).cloned().collect();
    let both: Vec<&str> = both.iter().map(|(_, _, name)| name.as_str()).collect();
    assert_eq!(
        both,
        [
            "onespace-edit",
            "onespace-view",
            "accountgrants.onespace.dev",
            "syncpolicies.onespace.dev",
        ]
    );
}

#[test]
fn what_uninstalling_may_do_ends_at_the_namespace_of_the_release_unless_it_watches_others() {
    let wide = |values: &str, more: &[&str]| {
        let objects = rendered(values, more).unwrap();
        let hooks = objects
            .iter()
            .filter(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "post-delete");
        let hooks: Vec<_> = hooks.collect();
        let binding = hooks.iter().find(|object| object["roleRef"].is_object()).unwrap();
        let role = &binding["roleRef"];
        let bound = hooks
            .iter()
            .find(|object| object["kind"] == role["kind"] && object["metadata"]["name"] == role["name"]);
        let bound = bound.unwrap();
        assert_eq!(bound["metadata"]["namespace"], binding["metadata"]["namespace"]);
        assert_eq!(bound["rules"][0]["verbs"], json!(["list", "patch"]));
        role["kind"] == "ClusterRole"
    };
    assert!(!wide("minimal", &[]));
    assert!(!wide(
        "minimal",
        &["--set", "operator.watchNamespaces={onespace}"]
    ));
    // Those may be gone by then, and a Role in them could not be made.
    assert!(wide("namespaces", &[]));
    assert!(wide("full", &[]));
}

#[test]
fn an_endpoint_that_may_start_as_root_can_become_the_user_of_swift_and_no_other_has_a_capability() {
    let added = |values: &str, set: &str, pool: &str| {
        let objects = rendered(values, &["--set", set]).unwrap();
        let name = format!("onespace-node-agent-{pool}");
        let set = named(&objects, "DaemonSet", &name).unwrap();
        containers(set)[0]["securityContext"]["capabilities"].clone()
    };
    let becomes_another = json!({"drop": ["ALL"], "add": ["SETUID", "SETGID", "DAC_READ_SEARCH"]});
    let plain = "internalEndpoint.workers=2";
    assert_eq!(added("minimal", plain, "default"), becomes_another);
    let root = "internalEndpoint.runAsUser=0";
    assert_eq!(added("minimal", root, "default"), becomes_another);
    assert_eq!(added("full", plain, "disks"), json!({"drop": ["ALL"]}));
}
