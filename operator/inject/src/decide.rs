//! Who takes part: whom the pod or its namespace asks for, unless either says no; our labels
//! before Istio's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::{PROXY_CONTAINER, STATUS_ANNOTATION};

const OURS: &str = "sluice.dev/inject";
const ISTIO_POD: &str = "sidecar.istio.io/inject";
const ISTIO_NAMESPACE: &str = "istio-injection";

/// The labels of the pod's namespace.
pub type NamespaceLabels = BTreeMap<String, String>;

/// Whether a pod gets a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It does.
    Inject,
    /// It does not, and this is why, in one sentence.
    Skip(&'static str),
}

/// Decides for one pod. `namespace` is its namespace's labels.
#[must_use]
pub fn decide(pod: &Pod, namespace: &NamespaceLabels) -> Decision {
    if is_injected(pod) {
        return Decision::Skip("it has a sidecar already");
    }
    let label = |name: &str| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(name))
    };
    let annotation = |name: &str| {
        pod.metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(name))
    };
    let own = label(OURS)
        .or_else(|| label(ISTIO_POD))
        .or_else(|| annotation(ISTIO_POD))
        .and_then(|value| wish(value));
    match (own, namespace_wish(namespace)) {
        (Some(false), _) => return Decision::Skip("its label keeps the sidecar out"),
        (_, Some(false)) => return Decision::Skip("its namespace keeps sidecars out"),
        (None, None) => return Decision::Skip("neither it nor its namespace asks for a sidecar"),
        (Some(true), _) | (_, Some(true)) => {}
    }
    let Some(spec) = &pod.spec else {
        return Decision::Skip("it has no spec");
    };
    if spec.host_network == Some(true) {
        return Decision::Skip("it uses the node's network, which is not ours to redirect");
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Decision::Skip("it runs on Windows");
    }
    if annotation("kubernetes.io/config.mirror").is_some() {
        return Decision::Skip("it mirrors a static pod");
    }
    Decision::Inject
}

fn namespace_wish(namespace: &NamespaceLabels) -> Option<bool> {
    let value = namespace
        .get(OURS)
        .or_else(|| namespace.get(ISTIO_NAMESPACE))?;
    wish(value)
}

/// `true` and `enabled` ask for it, `false` and `disabled` keep it out; anything else says
/// nothing.
fn wish(value: &str) -> Option<bool> {
    match value {
        "true" | "enabled" => Some(true),
        "false" | "disabled" => Some(false),
        _ => None,
    }
}

fn is_injected(pod: &Pod) -> bool {
    let annotated = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(STATUS_ANNOTATION));
    let Some(spec) = &pod.spec else {
        return annotated;
    };
    let init = spec.init_containers.iter().flatten();
    annotated
        || spec
            .containers
            .iter()
            .chain(init)
            .any(|c| c.name == PROXY_CONTAINER)
}
