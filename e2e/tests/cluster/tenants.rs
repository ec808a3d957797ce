//! What tenants may do: nothing without a grant, and never reach what only agents can.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::kube::cluster::{node_address, on_node};
use onespace_e2e::site::{NAMESPACE, NODES, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::{Value, json};

use crate::shared::{
    agents_metrics, all_said, files, installed, list, policy, secret, until_event, until_let_go, until_said,
};

/// A tenant's namespace, and a grant for the Swift account of the tests.
fn tenant(name: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"tenant": name}}}),
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "AccountGrant", "metadata": {"name": name},
            "spec": {"namespaceSelector": {"matchLabels": {"tenant": name}}, "accounts": ["AUTH_test"]}}),
    ]
}

pub async fn a_tenants_policy_reaches_agents_while_a_grant_covers_it_and_not_before_or_after(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    for container in ["leased", "owned"] {
        user.create_container(container, NO_HEADERS).await?;
    }
    user.put("leased", "early", NO_HEADERS, "e").await?;
    let leased = ("tenant-leased", "leased");
    let [namespace, grant] = tenant(leased.0);
    let before = site.cluster.audit()?.len();
    site.cluster
        .apply(&list(&[
            namespace,
            secret(&site, leased.0, site.s3.secret_key()),
            policy(&site, leased, "leased"),
            policy(&site, (NAMESPACE, "owned"), "owned"),
        ]))
        .await?;
    let denied = ["Accepted", "False", "NotGranted"];
    let message = until_said(&site, leased, denied).await?;
    ensure!(
        message.contains("no AccountGrant lets this namespace have a Sync policy for account \"AUTH_test\""),
        "{message}"
    );
    ensure!(message.contains("ask an administrator for one"), "{message}");
    until_event(&site, leased, ["Warning", "NotGranted"]).await?;
    let reaches_no_agent = async |object: &str| -> Result<()> {
        // Files that name another policy are newer than the decision.
        user.put("owned", object, NO_HEADERS, "mine").await?;
        site.until_arrived(&format!("owned/{object}"), "mine").await?;
        for kind in ["configmaps", "secrets"] {
            ensure!(
                !files(&site, kind).await?.contains("leased"),
                "it is in the agents' {kind}"
            );
        }
        ensure!(!agents_metrics(&site).await?.contains("tenant-leased"));
        Ok(())
    };
    reaches_no_agent("one").await?;
    ensure!(site.bucket()?.at("leased/early").await?.is_none());
    // Nor was its Secret read.
    let reads = |audit: Vec<Value>| {
        let reads = audit.into_iter().filter(|line| {
            line["verb"] == "get"
                && line["objectRef"]["resource"] == "secrets"
                && line["objectRef"]["namespace"] == leased.0
                && line["user"]["username"] == "system:serviceaccount:swift:onespace-operator"
        });
        reads.count()
    };
    ensure!(
        reads(site.cluster.audit()?.split_off(before)) == 0,
        "the Secret of a policy without a grant was read"
    );

    site.cluster.apply(&grant).await?;
    site.until_arrived("leased/early", "e").await?;
    until_said(&site, leased, ["Ready", "True", "Running"]).await?;
    until_event(&site, leased, ["Normal", "Recovered"]).await?;
    ensure!(
        reads(site.cluster.audit()?.split_off(before)) > 0,
        "nothing is in the audit log"
    );

    // Withdrawn.
    site.cluster
        .kubectl(&["delete", "accountgrant", leased.0])
        .await?;
    until_said(&site, leased, denied).await?;
    until_let_go(&site, leased).await?;
    user.put("leased", "late", NO_HEADERS, "l").await?;
    user.delete("leased", "early").await?;
    reaches_no_agent("two").await?;
    ensure!(
        site.bucket()?.at("leased/late").await?.is_none(),
        "copied without a grant"
    );
    ensure!(
        site.bucket()?.at("leased/early").await?.is_some(),
        "deleted without a grant"
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "owned"])
        .await?;
    site.cluster
        .kubectl(&["delete", "namespace", leased.0, "--timeout=120s"])
        .await?;
    Ok(())
}

/// The port that the forbidden policies aim at. Nobody listens there: what counts is that nobody knocks.
const PORT: u16 = 4999;

/// Counts connections that pods open to an address, on one node. A rule without a target only counts.
fn watch(node: usize, address: &str, port: u16) -> Result<()> {
    let port = port.to_string();
    let rule = [
        "iptables",
        "-t",
        "nat",
        "-I",
        "PREROUTING",
        "-p",
        "tcp",
        "-d",
        address,
        "--dport",
        &port,
    ];
    on(node, &rule).map(drop)
}

/// How many were opened to each address and port, on one node: lines of `iptables`.
fn opened(node: usize) -> Result<String> {
    on(
        node,
        &["iptables", "-t", "nat", "-L", "PREROUTING", "-n", "-v", "-x"],
    )
}

fn on(node: usize, command: &[&str]) -> Result<String> {
    let enter = on_node(node);
    let output = Command::new(&enter[0]).args(&enter[1..]).args(command).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Connections to an address and port, over all nodes.
fn count(address: &str, port: u16) -> Result<u64> {
    let mut all = 0;
    let port = format!("dpt:{port}");
    for node in 0..NODES {
        let lines = opened(node)?;
        let mut found = lines
            .lines()
            .filter(|line| line.contains(&port) && line.contains(&format!(" {address} ")));
        let line = found
            .next()
            .with_context(|| format!("no rule for {address} {port}: {lines}"))?;
        let packets = line.split_whitespace().next().context("no count")?;
        all += packets.parse::<u64>()?;
    }
    Ok(all)
}

pub async fn a_tenants_policy_aimed_at_what_only_agents_can_reach_is_never_dialled_and_says_so(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    user.create_container("aimed", NO_HEADERS).await?;
    user.put("aimed", "arrow", NO_HEADERS, "sharp").await?;
    let [first, last] = [node_address(0), node_address(NODES - 1)];
    let s3 = site.s3_endpoint();
    let (_, s3_port) = s3.rsplit_once(':').context("no port")?;
    let (metadata, control_plane) = ("169.254.169.254", "10.100.0.1");
    for node in 0..NODES {
        for address in [metadata, &first, &last] {
            watch(node, address, PORT)?;
        }
        watch(node, control_plane, s3_port.parse()?)?;
    }

    let aim = |name: &'static str, endpoint: String| {
        let mut policy = policy(&site, ("tenant-aimed", name), "aimed");
        policy["spec"]["target"]["endpoint"] = json!(endpoint);
        policy
    };
    let mut proxied = aim("through-proxy", "http://s3.example.com".to_owned());
    proxied["spec"]["target"]["httpProxy"] = json!(format!("http://{metadata}:{PORT}"));
    // By its name, as DNS has it: known only when it is dialled.
    let named = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "trap", "namespace": "tenant-aimed"},
        "spec": {"clusterIP": "None", "ports": [{"port": PORT}]}});
    let endpoints = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "trap", "namespace": "tenant-aimed", "labels": {"kubernetes.io/service-name": "trap"}},
        "addressType": "IPv4", "ports": [{"port": PORT, "protocol": "TCP"}], "endpoints": [{"addresses": [last.clone()]}]});
    let forbidden = [
        aim("loopback", format!("http://127.0.0.1:{PORT}")),
        aim("endpoint", "http://localhost:6190".to_owned()),
        aim("number", "http://2130706433:6190".to_owned()),
        aim("metadata", format!("http://{metadata}:{PORT}")),
        aim("node", format!("http://{first}:{PORT}")),
        aim(
            "named-node",
            format!("http://trap.tenant-aimed.svc.cluster.local:{PORT}"),
        ),
        proxied,
    ];
    let [namespace, grant] = tenant("tenant-aimed");
    let keys = secret(&site, "tenant-aimed", "not-the-key");
    let control = policy(&site, (NAMESPACE, "aimed"), "aimed");
    let all = [namespace, grant, keys, named, endpoints, control];
    site.cluster
        .apply(&list(&[&all[..], &forbidden].concat()))
        .await?;
    site.until_arrived("aimed/arrow", "sharp").await?;

    for name in [
        "loopback",
        "endpoint",
        "number",
        "metadata",
        "node",
        "named-node",
        "through-proxy",
    ] {
        let name = ("tenant-aimed", name);
        for condition in [
            ["Ready", "False", "AddressDenied"],
            ["Stalled", "True", "AddressDenied"],
        ] {
            let message = until_said(&site, name, condition).await?;
            ensure!(message.contains("use another endpoint or proxy"), "{message}");
        }
        until_event(&site, name, ["Warning", "AddressDenied"]).await?;
        // What its author wrote may be repeated; where it leads to is not told.
        let said = all_said(&site, name).await?;
        let own = said.matches(&first).count();
        ensure!(name.1 == "node" || own == 0, "{said}");
        ensure!(!said.contains(&last) && !said.contains("not-the-key"), "{said}");
    }
    for (address, port) in [(metadata, PORT), (&*first, PORT), (&*last, PORT)] {
        ensure!(count(address, port)? == 0, "{address}:{port} was dialled");
    }
    ensure!(
        count(control_plane, s3_port.parse()?)? > 0,
        "nothing is counted at all"
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "aimed"])
        .await?;
    site.cluster
        .kubectl(&["delete", "accountgrant", "tenant-aimed"])
        .await?;
    site.cluster
        .kubectl(&["delete", "namespace", "tenant-aimed", "--timeout=120s"])
        .await?;
    Ok(())
}
