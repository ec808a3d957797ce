//! The network of a cluster: a bridge, on which the control plane has an address, and a network namespace for each node.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The control plane's address. Whatever listens on 127.0.0.1 of the test program answers here, too.
pub const CONTROL_PLANE: &str = "10.100.0.1";

const BRIDGE: &str = "onespace0";

/// The address of a node. Nodes count from 0.
#[must_use]
pub fn node_address(node: usize) -> String {
    format!("10.100.0.{}", 11 + node)
}

/// The network of a node's pods.
pub(super) fn pod_network(node: usize) -> String {
    format!("10.244.{node}.0/24")
}

/// What is put before a command, so that it runs in a node's network.
#[must_use]
pub fn on_node(node: usize) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/node{node}")]
}

/// Makes the network of so many nodes.
pub(super) fn make(nodes: usize) -> Result<()> {
    run(&format!("ip link add {BRIDGE} type bridge"))?;
    run(&format!("ip addr add {CONTROL_PLANE}/24 dev {BRIDGE}"))?;
    run(&format!("ip link set {BRIDGE} up"))?;
    forward(&[])?;
    // Servers of the test program listen on 127.0.0.1; pods reach them at the control plane's address.
    write_sysctl(&[], &format!("net/ipv4/conf/{BRIDGE}/route_localnet"), "1")?;
    run(&format!(
        "iptables -t nat -A PREROUTING -i {BRIDGE} -d {CONTROL_PLANE} -p tcp -j DNAT --to-destination 127.0.0.1"
    ))?;
    for node in 0..nodes {
        let inside = on_node(node).join(" ");
        run(&format!("ip netns add node{node}"))?;
        run(&format!(
            "ip link add node{node} type veth peer name eth0 netns node{node}"
        ))?;
        run(&format!("ip link set node{node} master {BRIDGE} up"))?;
        run(&format!("{inside} ip link set lo up"))?;
        run(&format!(
            "{inside} ip addr add {}/24 dev eth0",
            node_address(node)
        ))?;
        run(&format!("{inside} ip link set eth0 up"))?;
        run(&format!("{inside} ip route add default via {CONTROL_PLANE}"))?;
        forward(&on_node(node))?;
        run(&format!(
            "ip route add {} via {}",
            pod_network(node),
            node_address(node)
        ))?;
    }
    for node in 0..nodes {
        for other in (0..nodes).filter(|other| *other != node) {
            run(&format!(
                "{} ip route add {} via {}",
                on_node(node).join(" "),
                pod_network(other),
                node_address(other)
            ))?;
        }
    }
    Ok(())
}

fn forward(inside: &[String]) -> Result<()> {
    write_sysctl(inside, "net/ipv4/ip_forward", "1")?;
    // A machine without this module does not filter what a bridge passes on; kube-proxy then sees it all the same.
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        write_sysctl(inside, "net/bridge/bridge-nf-call-iptables", "1")?;
    }
    Ok(())
}

fn write_sysctl(inside: &[String], name: &str, value: &str) -> Result<()> {
    let mut command = inside.to_vec();
    command.extend(["sh", "-c", &format!("echo {value} >/proc/sys/{name}")].map(str::to_owned));
    run_all(&command)
}

/// Runs a command of plain words and waits for its end.
pub(super) fn run(command: &str) -> Result<()> {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    run_all(&words)
}

/// Runs a command, its program first, and waits for its end.
pub(super) fn run_all(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}; scripts/prepare installs what is missing"))?;
    ensure!(
        output.status.success(),
        "{}: {} {}",
        command.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
