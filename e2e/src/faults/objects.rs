//! Manifests as git brings them. Nobody runs what they ask for.

use serde_json::{Value, json};

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A Deployment; `version` is what a release changes.
#[must_use]
pub fn deployment(name: &str, version: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": format!("app:{version}")}]},
            },
        },
    })
}

/// The Service before it.
#[must_use]
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

/// A MeshRollout of the Deployment of its name, with this in its spec.
#[must_use]
pub fn rollout(name: &str, mut spec: Value) -> Value {
    spec["workload"] = json!({"name": name});
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "MeshRollout", "metadata": {"name": name},
        "spec": spec,
    })
}

/// A pod that nothing owns, as of a workload that nothing governs.
#[must_use]
pub fn caller(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "caller"}},
        "spec": {"containers": [{"name": "app", "image": "caller:1"}]},
    })
}

/// The object in this namespace.
#[must_use]
pub fn within(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!(namespace);
    object
}
