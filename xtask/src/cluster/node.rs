//! containerd, kubelet and kube-proxy.

use std::{fs, os::unix::net::UnixStream, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{cgroup, control_plane::kubernetes, network, process::Component, state::Cluster};
use crate::{command, image::Image, tools};

/// The image that holds the namespaces of every pod.
const PAUSE_IMAGE: &str = "sluice.dev/pause:1";

/// Starts containerd and waits for it.
pub(super) fn start_containerd(cluster: &Cluster) -> Result<()> {
    let config = cluster.write("containerd.toml", containerd_config(cluster).as_bytes())?;
    write_cni(cluster)?;
    let program =
        command::find("containerd").context("containerd is missing: apt-get install containerd")?;
    let arguments = vec!["--config".to_owned(), config.display().to_string()];
    cluster.start(&Component::new("containerd", program, arguments))?;
    cluster.wait_for("containerd", Duration::from_secs(20), || {
        UnixStream::connect(containerd_socket(cluster)).is_ok()
    })?;
    cluster.load_image(&Image::of_program(PAUSE_IMAGE, &tools::PAUSE.path())?)
}

/// Starts kubelet and kube-proxy. containerd and the apiserver must be ready.
pub(super) fn start_kubelet(cluster: &Cluster) -> Result<()> {
    let root = cluster.file("kubelet");
    if root.as_os_str().len() > 70 {
        bail!(
            "{} is too long a path for the kubelet's sockets; set CARGO_TARGET_DIR to a shorter one",
            root.display()
        );
    }
    cluster.write("resolv.conf", b"")?;
    cgroup::create(&cluster.name)?;
    let config = cluster.write_json("kubelet.json", &kubelet_config(cluster))?;
    cluster.start(&kubernetes(
        "kubelet",
        vec![
            format!("--config={}", config.display()),
            format!(
                "--kubeconfig={}",
                cluster.file("kubelet.kubeconfig").display()
            ),
            format!("--hostname-override={}", cluster.name),
            format!("--node-ip={}", cluster.address),
            format!("--root-dir={}", root.display()),
            format!("--cert-dir={}", root.join("pki").display()),
        ],
    ))?;
    let config = cluster.write_json("kube-proxy.json", &kube_proxy_config(cluster))?;
    cluster.start(&kubernetes(
        "kube-proxy",
        vec![format!("--config={}", config.display())],
    ))?;
    Ok(())
}

/// Waits until pods can run.
pub(super) fn wait_until_ready(cluster: &Cluster) -> Result<()> {
    cluster.wait_for("kubelet", Duration::from_secs(60), || {
        let mut kubectl = cluster.kubectl();
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        command::output(kubectl.args(["get", "node", &cluster.name, "-o", ready]))
            .is_ok_and(|status| status == "True")
    })
}

pub(super) fn containerd_socket(cluster: &Cluster) -> std::path::PathBuf {
    cluster.socket("containerd.sock")
}

fn containerd_config(cluster: &Cluster) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
# These would write to folders of the whole machine, or look for what is not there.
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without it no pod starts where root lacks CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{runc}"
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
"#,
        root = cluster.file("containerd").display(),
        state = cluster.socket("containerd").display(),
        socket = containerd_socket(cluster).display(),
        runc = cluster.socket("runc").display(),
        cni = cluster.file("cni").display(),
    )
}

/// A routed link for each pod, not a bridge: an answer from the pod next door then passes the node's NAT rules
/// on every machine, also where bridged packets skip them.
fn write_cni(cluster: &Cluster) -> Result<()> {
    fs::create_dir_all(cluster.file("cni"))?;
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "sluice",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": cluster.file("cni-addresses"),
                    "ranges": [[{"subnet": network::PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    cluster.write_json("cni/10-sluice.conflist", &config)?;
    Ok(())
}

fn kubelet_config(cluster: &Cluster) -> serde_json::Value {
    let pki = |file: &str| cluster.file("pki").join(file);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet-server.crt"),
        "tlsPrivateKeyFile": pki("kubelet-server.key"),
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(cluster).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup::name(&cluster.name)),
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "clusterDNS": [super::dns::ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": cluster.file("resolv.conf"),
        "podLogsDir": cluster.file("pod-logs"),
        "volumePluginDir": cluster.file("volume-plugins"),
        "maxPods": 250,
        // A developer's disk is often fuller than a node's may be.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                         "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    })
}

fn kube_proxy_config(cluster: &Cluster) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": cluster.name,
        "clientConnection": {"kubeconfig": cluster.file("kube-proxy.kubeconfig")},
        "clusterCIDR": network::PODS,
        // The limits of connection tracking belong to the machine; a namespace cannot set them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        // A Service's new address is in force at once; the default of a second is for large clusters.
        "nftables": {"minSyncPeriod": "100ms"},
    })
}
