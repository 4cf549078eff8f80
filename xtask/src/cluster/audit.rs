//! The apiserver's audit log: who wrote what, and all that Sluice asks. Tests and benchmarks count in it.

use anyhow::Result;
use serde_json::json;

use super::state::Cluster;

/// Flags of the apiserver that keep the log in `logs/audit.log`, a JSON object to a line.
pub(super) fn flags(cluster: &Cluster) -> Result<Vec<String>> {
    let policy = cluster.write_json("audit-policy.json", &policy())?;
    let log = cluster.file("logs/audit.log");
    Ok(vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
        // In MB; one older file is kept.
        "--audit-log-maxsize=100".to_owned(),
        "--audit-log-maxbackup=1".to_owned(),
    ])
}

/// Our own accounts.
const OURS: [&str; 3] = ["controller", "serving", "ca"];

/// Everything that our own accounts ask, so that what they need can be told from what they may do; of
/// others writes, but none of those that come all the time. No content.
fn policy() -> serde_json::Value {
    let ours = OURS.map(|role| format!("system:serviceaccount:sluice-system:sluice-{role}"));
    let leases = json!([{"group": "coordination.k8s.io", "resources": ["leases"]}]);
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "users": ours},
            {"level": "None", "verbs": ["get", "list", "watch"]},
            {"level": "None", "userGroups": ["system:nodes"]},
            {"level": "None", "resources": leases},
            {"level": "Metadata"},
        ],
    })
}
