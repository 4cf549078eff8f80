//! What a pod is called by Istio's metrics and tools.

use k8s_openapi::api::core::v1::Pod;

/// Names of the workload that a pod belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// The Deployment (or other owner) of the pod.
    pub name: String,
    /// `service.istio.io/canonical-name`.
    pub canonical_name: String,
    /// `service.istio.io/canonical-revision`.
    pub canonical_revision: String,
}

/// Names of the pod's workload. A ReplicaSet stands for its Deployment: its name without the
/// pod-template-hash.
pub(crate) fn workload(pod: &Pod) -> Workload {
    let owner = pod
        .metadata
        .owner_references
        .as_ref()
        .and_then(|owners| owners.iter().find(|owner| owner.controller == Some(true)));
    let own = || {
        let generated = pod.metadata.generate_name.as_deref();
        let generated = generated.map(|name| name.trim_end_matches('-'));
        generated
            .or(pod.metadata.name.as_deref())
            .unwrap_or_default()
    };
    let name = owner.map_or_else(own, |owner| owner.name.as_str());
    let deployment = label(pod, "pod-template-hash")
        .filter(|_| owner.is_some_and(|owner| owner.kind == "ReplicaSet"))
        .and_then(|hash| name.strip_suffix(hash))
        .and_then(|name| name.strip_suffix('-'));
    let name = deployment.unwrap_or(name);
    let canonical_name = [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ]
    .into_iter()
    .find_map(|key| label(pod, key))
    .unwrap_or(name);
    let canonical_revision = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ]
    .into_iter()
    .find_map(|key| label(pod, key))
    .unwrap_or("latest");
    Workload {
        name: name.to_owned(),
        canonical_name: canonical_name.to_owned(),
        canonical_revision: canonical_revision.to_owned(),
    }
}

/// A label of the pod; an empty one counts as absent.
pub(crate) fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let labels = pod.metadata.labels.as_ref()?;
    labels
        .get(key)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}
