//! One node: containerd, kubelet and kube-proxy in the node's network.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::control::{self, DNS};
use super::network::{node_address, on_node, pod_network};
use super::{image, namespace, network};
use crate::kube::pki::Pki;
use crate::kube::process::Process;
use crate::tools::tool;

/// Debian's place for the plugins of its package containernetworking-plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// A node that was started.
#[derive(Debug)]
pub(super) struct Node {
    number: usize,
    folder: PathBuf,
    processes: Vec<Process>,
}

/// The name of a node.
#[must_use]
pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

impl Node {
    /// Starts containerd.
    pub fn start(cluster: &Path, number: usize, pki: &Pki) -> Result<Self> {
        let folder = cluster.join(node_name(number));
        for name in ["cni", "kubelet", "pods", "plugins"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let mut node = Self {
            number,
            folder,
            processes: Vec::new(),
        };
        node.write_files(pki)?;
        let containerd = node.run(
            "containerd",
            &[
                "containerd".to_owned(),
                format!("--config={}", node.file("containerd.toml")),
            ],
        )?;
        node.processes.push(containerd);
        Ok(node)
    }

    /// Starts what makes it a node, once containerd answers: a kubelet does not wait for it. For the API server both wait.
    pub fn join(&mut self) -> Result<()> {
        let kubelet = self.run(
            "kubelet",
            &[
                tool("bin/kubelet")?.display().to_string(),
                format!("--config={}", self.file("kubelet.json")),
                format!("--kubeconfig={}", self.file("kubelet.kubeconfig")),
                format!("--root-dir={}", self.file("kubelet")),
                format!("--cert-dir={}", self.file("pki")),
                format!("--hostname-override={}", node_name(self.number)),
                format!("--node-ip={}", node_address(self.number)),
            ],
        )?;
        let proxy = self.run(
            "kube-proxy",
            &[
                tool("bin/kube-proxy")?.display().to_string(),
                format!("--kubeconfig={}", self.file("proxy.kubeconfig")),
                "--proxy-mode=iptables".to_owned(),
                format!("--hostname-override={}", node_name(self.number)),
                // Tunables of the whole machine.
                "--conntrack-max-per-core=0".to_owned(),
                "--conntrack-tcp-timeout-established=0s".to_owned(),
                "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
            ],
        )?;
        self.processes.splice(0..0, [proxy, kubelet]);
        Ok(())
    }

    /// An error if one of its programs has ended.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Whether containerd answers.
    pub fn answers(&self) -> bool {
        network::run_all(&self.ctr(&["version"])).is_ok()
    }

    /// Imports an image.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        network::run_all(&self.ctr(&["--namespace", "k8s.io", "images", "import", &archive]))
    }

    fn ctr(&self, arguments: &[&str]) -> Vec<String> {
        let socket = self.file("containerd.sock");
        ["ctr", "--address", &socket]
            .iter()
            .chain(arguments)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn run(&self, name: &str, command: &[String]) -> Result<Process> {
        let command = [on_node(self.number).as_slice(), command].concat();
        Process::run(&self.folder, name, &command)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write_files(&self, pki: &Pki) -> Result<()> {
        let name = node_name(self.number);
        let write = |file: &str, text: &str| {
            let path = self.folder.join(file);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("containerd.toml", &self.containerd())?;
        write("cni/10-bridge.conflist", &self.cni().to_string())?;
        let serving = pki.server(&name, &[&name, &node_address(self.number)])?;
        write("serving.crt", &serving.certificate)?;
        write("serving.key", &serving.key)?;
        write("ca.crt", &pki.ca)?;
        let user = pki.client(&format!("system:node:{name}"), Some("system:nodes"))?;
        write(
            "kubelet.kubeconfig",
            &pki.kubeconfig(&control::url(), &user).to_string(),
        )?;
        let user = pki.client("system:kube-proxy", None)?;
        write(
            "proxy.kubeconfig",
            &pki.kubeconfig(&control::url(), &user).to_string(),
        )?;
        write("kubelet.json", &self.kubelet(&self.make_cgroups()?).to_string())
    }

    /// The cgroup of all of this node's pods. A kubelet expects that it is there.
    fn make_cgroups(&self) -> Result<String> {
        let path = format!("{}/{}", namespace::cgroup()?, node_name(self.number));
        for controller in namespace::controllers()? {
            let mut folder = controller.clone();
            for part in path.split('/') {
                let above = folder.clone();
                folder.push(part);
                std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
                // A fresh cpuset is empty, and takes no process.
                for name in ["cpuset.cpus", "cpuset.mems"] {
                    if controller.ends_with("cpuset") {
                        let value = std::fs::read(above.join(name))?;
                        std::fs::write(folder.join(name), value)?;
                    }
                }
                // A node leaves its pods as many shares as it has processors. What runs beside them here, each thread by
                // itself, would leave them next to nothing.
                let shares = folder.join("cpu.shares");
                if shares.exists() {
                    let processors = std::thread::available_parallelism()?.get();
                    std::fs::write(shares, (1024 * processors).to_string())?;
                }
            }
        }
        Ok(format!("/{path}"))
    }

    fn containerd(&self) -> String {
        let (root, state, socket, plugins, cni) = (
            self.file("containerd"),
            self.file("containerd-state"),
            self.file("containerd.sock"),
            self.file("plugins"),
            self.file("cni"),
        );
        let pause = image::PAUSE;
        format!(
            r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{plugins}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
# Without CAP_SYS_RESOURCE no process may be made less likely to be killed than its parent.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{cni}"
"#
        )
    }

    fn cni(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.file("addresses"),
                        "ranges": [[{"subnet": pod_network(self.number)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet(&self, cgroup: &str) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{}", self.file("containerd.sock")),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.file("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.file("serving.crt"),
            "tlsPrivateKeyFile": self.file("serving.key"),
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            // The machine's disk is not this node's business.
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "resolvConf": "",
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS],
            "podLogsDir": self.file("pods"),
            "volumePluginDir": self.file("plugins"),
            "nodeStatusUpdateFrequency": "2s",
            "shutdownGracePeriod": "0s",
        })
    }
}
