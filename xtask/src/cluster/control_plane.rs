//! etcd, apiserver, controller-manager and scheduler.

use std::time::Duration;

use anyhow::Result;

use super::{
    audit, network,
    process::Component,
    state::{Cluster, Kind},
};
use crate::{command, tools};

/// Starts etcd and the apiserver, and returns without waiting for them.
pub(super) fn start_api(cluster: &Cluster) -> Result<()> {
    cluster.start(&etcd(cluster))?;
    cluster.start(&apiserver(cluster)?)?;
    Ok(())
}

/// Waits until the apiserver says that it is ready.
pub(super) fn wait_for_api(cluster: &Cluster) -> Result<()> {
    cluster.wait_for("apiserver", Duration::from_secs(60), || {
        let mut kubectl = cluster.kubectl();
        command::succeeds(kubectl.args(["get", "--raw", "/readyz", "--request-timeout=2s"]))
    })
}

/// Starts what acts on objects. The apiserver must be ready.
pub(super) fn start_controllers(cluster: &Cluster) -> Result<()> {
    start_controller_manager(cluster)?;
    cluster.start(&scheduler(cluster))?;
    Ok(())
}

/// Starts what makes ReplicaSets of Deployments, pods of ReplicaSets, and so on.
pub(super) fn start_controller_manager(cluster: &Cluster) -> Result<()> {
    cluster.start(&controller_manager(cluster))?;
    Ok(())
}

fn etcd(cluster: &Cluster) -> Component {
    let client = format!("http://127.0.0.1:{}", cluster.ports.etcd);
    let peer = format!("http://127.0.0.1:{}", cluster.ports.etcd_peer);
    kubernetes(
        "etcd",
        vec![
            format!("--data-dir={}", cluster.file("etcd").display()),
            "--name=sluice".to_owned(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=sluice={peer}"),
            // A test cluster's data is not worth a disk's time.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )
}

fn apiserver(cluster: &Cluster) -> Result<Component> {
    let pki = |file: &str| cluster.file("pki").join(file).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", cluster.ports.etcd),
        format!("--advertise-address={}", cluster.address),
        format!("--secure-port={}", cluster.ports.apiserver),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        // How aggregated APIs (of a metrics server, say) know that a request comes through the apiserver.
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        // The second is what OpenShift has: who sets an owner needs rights for it.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement"
            .to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={}", network::SERVICES),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--cert-dir={}", cluster.file("apiserver").display()),
    ];
    match cluster.kind {
        // It must not be reachable from outside of this machine.
        Kind::Api | Kind::Docker => arguments.push(format!("--bind-address={}", cluster.address)),
        Kind::Node => arguments.extend([
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            format!(
                "--kubelet-client-certificate={}",
                pki("apiserver-kubelet-client.crt")
            ),
            format!(
                "--kubelet-client-key={}",
                pki("apiserver-kubelet-client.key")
            ),
            // Nobody here resolves the node's name.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ]),
    }
    arguments.extend(audit::flags(cluster)?);
    Ok(kubernetes("apiserver", arguments))
}

fn controller_manager(cluster: &Cluster) -> Component {
    let pki = |file: &str| cluster.file("pki").join(file).display().to_string();
    let mut arguments = client_flags(cluster, "controller-manager");
    arguments.extend([
        "--use-service-account-credentials=true".to_owned(),
        // The default of 20 requests a second makes its start take 5 s.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=500".to_owned(),
        // A new node takes pods as soon as it is ready, not up to 5 s later.
        "--node-monitor-period=1s".to_owned(),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
    ]);
    if cluster.kind == Kind::Api {
        // Several such clusters share the host's ports, and nobody asks it anything.
        arguments.push("--secure-port=0".to_owned());
    }
    kubernetes("controller-manager", arguments)
}

fn scheduler(cluster: &Cluster) -> Component {
    kubernetes("scheduler", client_flags(cluster, "scheduler"))
}

fn client_flags(cluster: &Cluster, user: &str) -> Vec<String> {
    let kubeconfig = cluster.file(&format!("{user}.kubeconfig"));
    let mut flags: Vec<String> = [
        "kubeconfig",
        "authentication-kubeconfig",
        "authorization-kubeconfig",
    ]
    .iter()
    .map(|flag| format!("--{flag}={}", kubeconfig.display()))
    .collect();
    flags.extend([
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", cluster.file(user).display()),
    ]);
    flags
}

/// A part of Kubernetes: the one program, told which part to be.
pub(super) fn kubernetes(name: &'static str, mut arguments: Vec<String>) -> Component {
    arguments.insert(0, name.to_owned());
    Component::new(name, tools::KUBERNETES.path(), arguments)
}
