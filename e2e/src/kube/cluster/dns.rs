//! CoreDNS: names of services, for every pod.

use anyhow::Result;
use serde_json::{Value, json};

use super::control::DNS;
use super::image::Image;
use crate::tools::tool;

const IMAGE: &str = "onespace.dev/coredns:test";

/// Answers for names in the cluster. There is no other network.
const COREFILE: &str = ".:53 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa
    cache 5
}
";

/// Its image.
pub(super) fn image() -> Result<Image> {
    let image = Image::new(IMAGE, &["/coredns", "-conf", "/etc/coredns/Corefile"]).user("0:0");
    image.program(&tool("bin/coredns")?, "/coredns")
}

/// Its objects.
pub(super) fn objects() -> Value {
    let name =
        |kind: &str| json!({"name": "coredns", "namespace": "kube-system", "labels": {"k8s-app": kind}});
    let labels = json!({"k8s-app": "kube-dns"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name("kube-dns")},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "coredns"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
         "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name("kube-dns"), "data": {"Corefile": COREFILE}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": name("kube-dns"), "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "coredns",
                "dnsPolicy": "Default",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "coredns",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 53}],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                }],
                "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
            }},
        }},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {
            "clusterIP": DNS,
            "selector": labels,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}],
        }},
    ]})
}
