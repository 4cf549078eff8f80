//! Cluster DNS: CoreDNS as a Deployment, known to every pod by its well-known address.

use anyhow::Result;
use serde_json::{Value, json};

use super::state::Cluster;
use crate::{command, image::Image, tools};

/// The Service's address, as in most clusters.
pub(super) const ADDRESS: &str = "10.96.0.10";
const IMAGE: &str = "sluice.dev/coredns:1.13.1";

/// A name outside of the cluster does not exist, as nothing outside of it can be reached.
const COREFILE: &str = "
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    loadbalance
}
.:53 {
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

/// Makes the image known to the node.
pub(super) fn load_image(cluster: &Cluster) -> Result<()> {
    cluster.load_image(&Image::of_program(IMAGE, &tools::COREDNS.path())?)
}

/// Applies the Deployment and its Service.
pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects()}))
}

/// Waits until names resolve.
pub(super) fn wait_until_ready(cluster: &Cluster) -> Result<()> {
    let mut kubectl = cluster.kubectl();
    kubectl.args([
        "-n",
        "kube-system",
        "rollout",
        "status",
        "deployment/coredns",
        "--timeout=90s",
    ]);
    command::output(&mut kubectl)?;
    Ok(())
}

fn objects() -> Vec<Value> {
    let metadata = |name: &str| json!({"name": name, "namespace": "kube-system"});
    let labels = json!({"k8s-app": "kube-dns"});
    let service_ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("coredns")}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("coredns"), "data": {"Corefile": COREFILE}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("kube-dns"),
            "spec": {"clusterIP": ADDRESS, "selector": labels, "ports": service_ports}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("coredns"),
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": "coredns",
                "priorityClassName": "system-cluster-critical",
                "dnsPolicy": "Default",
                "containers": [{
                    "name": "coredns",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    // Also on the node's own address, so that the host can ask.
                    "ports": [
                        {"containerPort": 53, "hostPort": 53, "protocol": "UDP"},
                        {"containerPort": 53, "hostPort": 53, "protocol": "TCP"},
                    ],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                }],
                "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
            },
        }}}),
    ]
}
