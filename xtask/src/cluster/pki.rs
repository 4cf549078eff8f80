//! Keys and certificates of a cluster: one authority, and a certificate for each who speaks or serves.

use std::{fs, process::Command};

use anyhow::Result;
use serde_json::{Value, json};

use super::state::{Cluster, Kind};
use crate::{command, tools};

/// Who gets a client certificate: file name, common name (the user), organisation (the group).
const CLIENTS: [(&str, &str, &str); 6] = [
    ("admin", "sluice-admin", "system:masters"),
    (
        "apiserver-kubelet-client",
        "kube-apiserver",
        "system:masters",
    ),
    ("front-proxy", "front-proxy", ""),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// Makes all keys and certificates in the folder `pki`, unless they are there.
pub(super) fn ensure(cluster: &Cluster) -> Result<()> {
    // Written last.
    if cluster.file("pki/sa.key").exists() {
        return Ok(());
    }
    tools::ensure(&[&tools::CERTIFICATES])?;
    let folder = cluster.file("pki");
    fs::create_dir_all(&folder)?;
    let mut certificates = Command::new(tools::CERTIFICATES.path());
    command::output_with_input(
        certificates.arg(folder),
        &serde_json::to_vec(&wanted(cluster))?,
    )?;
    Ok(())
}

fn wanted(cluster: &Cluster) -> Value {
    let client = |(file, user, group): (&str, &str, &str)| json!({"file": file, "user": user, "group": group});
    let address = cluster.address.to_string();
    let mut clients = CLIENTS.map(client).to_vec();
    let mut servers = vec![json!({"file": "apiserver", "names": [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        address,
    ]})];
    if cluster.kind == Kind::Node {
        let user = format!("system:node:{}", cluster.name);
        clients.push(client(("kubelet", &user, "system:nodes")));
        servers.push(json!({"file": "kubelet-server", "names": [cluster.name, address]}));
    }
    json!({"clients": clients, "servers": servers})
}
