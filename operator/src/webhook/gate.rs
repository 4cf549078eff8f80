//! The gate: pods of an unpromoted candidate get the readiness gate that keeps plain Service
//! clients away from them. Stable pods are never asked about.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sluice_crds::names::{CANDIDATE_HASH_PREFIX, POD_TEMPLATE_HASH, PROMOTED_GATE};

use super::{
    caches::Caches,
    review::{Answer, Request},
};

/// Annotation that says what was done.
const GATED: &str = "sluice.dev/gated";

/// The answer to a review.
pub(super) fn review(request: &Request<Pod>, caches: &Caches) -> Answer {
    let Some(pod) = &request.object else {
        return Answer::allowed();
    };
    let Some(revision) = candidate(pod) else {
        return Answer::allowed();
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    // The list in the webhook's matchConditions may lag behind a promotion.
    if caches.is_stable(namespace, revision) {
        return Answer::allowed().did("left", "the revision is promoted");
    }
    let Some(patch) = patch(pod) else {
        return Answer::allowed().did("left", "the pod has the gate already");
    };
    Answer::allowed()
        .patch(patch)
        .did("gated", &sentence(revision))
}

/// The candidate's revision, as far as the pod's hash holds it.
fn candidate(pod: &Pod) -> Option<&str> {
    let hash = pod.metadata.labels.as_ref()?.get(POD_TEMPLATE_HASH)?;
    hash.strip_prefix(CANDIDATE_HASH_PREFIX)
        .filter(|revision| !revision.is_empty())
}

fn sentence(revision: &str) -> String {
    format!("not Ready for plain Service clients until revision {revision} is promoted")
}

/// Adds the gate and the annotation; `None` when the gate is there.
fn patch(pod: &Pod) -> Option<Value> {
    let gate = json!({"conditionType": PROMOTED_GATE});
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_ref());
    let mut patch = match gates {
        None => vec![json!({"op": "add", "path": "/spec/readinessGates", "value": [gate]})],
        Some(gates)
            if gates
                .iter()
                .any(|gate| gate.condition_type == PROMOTED_GATE) =>
        {
            return None;
        }
        Some(_) => vec![json!({"op": "add", "path": "/spec/readinessGates/-", "value": gate})],
    };
    if pod.metadata.annotations.is_none() {
        patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    let text = sentence(candidate(pod)?);
    let key = GATED.replace('/', "~1");
    patch.push(json!({"op": "add", "path": format!("/metadata/annotations/{key}"), "value": text}));
    Some(Value::Array(patch))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pod(hash: &str, gates: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"labels": {"pod-template-hash": hash}},
            "spec": {"containers": [], "readinessGates": gates},
        }))
        .unwrap()
    }

    #[test]
    fn only_pods_of_a_replicaset_of_ours_are_candidates() {
        assert_eq!(
            candidate(&pod("sluice-0123456789", Value::Null)),
            Some("0123456789")
        );
        assert_eq!(candidate(&pod("7d9f8c", Value::Null)), None);
        assert_eq!(candidate(&pod("sluice-", Value::Null)), None);
        assert_eq!(candidate(&Pod::default()), None);
    }

    #[test]
    fn the_gate_joins_other_gates_and_is_added_once() {
        let first = patch(&pod("sluice-0123456789", Value::Null)).unwrap();
        assert_eq!(first[0]["path"], "/spec/readinessGates");
        assert_eq!(first[0]["value"][0]["conditionType"], PROMOTED_GATE);
        assert_eq!(first[1]["path"], "/metadata/annotations");
        assert_eq!(first[2]["path"], "/metadata/annotations/sluice.dev~1gated");
        let other = json!([{"conditionType": "example.com/warm"}]);
        let second = patch(&pod("sluice-0123456789", other)).unwrap();
        assert_eq!(second[0]["path"], "/spec/readinessGates/-");
        let gated = json!([{"conditionType": PROMOTED_GATE}]);
        assert!(patch(&pod("sluice-0123456789", gated)).is_none());
    }
}
