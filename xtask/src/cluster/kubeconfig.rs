//! One kubeconfig for each who speaks to the apiserver.

use anyhow::Result;
use serde_json::json;

use super::state::{Cluster, Kind};

/// Writes `NAME.kubeconfig` for the administrator and the components.
pub(super) fn write_all(cluster: &Cluster) -> Result<()> {
    write(cluster, "admin")?;
    write(cluster, "controller-manager")?;
    if cluster.kind == Kind::Node {
        for user in ["scheduler", "kube-proxy", "kubelet"] {
            write(cluster, user)?;
        }
    }
    Ok(())
}

fn write(cluster: &Cluster, user: &str) -> Result<()> {
    let pki = |file: String| cluster.file("pki").join(file);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster.name, "cluster": {
            "server": format!("https://{}:{}", cluster.address, cluster.ports.apiserver),
            "certificate-authority": pki("ca.crt".to_owned()),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": pki(format!("{user}.crt")),
            "client-key": pki(format!("{user}.key")),
        }}],
        "contexts": [{"name": cluster.name, "context": {"cluster": cluster.name, "user": user}}],
        "current-context": cluster.name,
    });
    cluster.write_json(&format!("{user}.kubeconfig"), &config)?;
    Ok(())
}
