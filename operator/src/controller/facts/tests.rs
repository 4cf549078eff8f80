#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn deployment(value: Value) -> DeploymentFacts {
    DeploymentFacts::of(&serde_json::from_value(value).unwrap())
}

fn paused(metadata: Value) -> Option<String> {
    deployment(json!({"metadata": metadata, "spec": {"paused": true, "template": {}}}))
        .paused_by_git
}

fn owned_by(manager: &str, operation: &str) -> Value {
    json!({"managedFields": [{"manager": manager, "operation": operation, "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:paused": {}}}}]})
}

#[test]
fn git_pauses_when_an_applier_owns_the_field() {
    assert_eq!(
        paused(owned_by("kustomize-controller", "Apply")),
        Some("kustomize-controller".to_owned())
    );
    assert_eq!(paused(owned_by("kubectl-rollout", "Update")), None);
    assert_eq!(paused(owned_by(MANAGER, "Apply")), None);
    assert_eq!(paused(json!({})), None);
}

#[test]
fn git_pauses_when_the_last_client_side_apply_said_so() {
    let applied = json!({"spec": {"paused": true}}).to_string();
    assert_eq!(
        paused(json!({"annotations": {LAST_APPLIED: applied}})),
        Some("kubectl apply".to_owned())
    );
    let applied = json!({"spec": {}}).to_string();
    assert_eq!(
        paused(json!({"annotations": {LAST_APPLIED: applied}})),
        None
    );
}

#[test]
fn a_deployment_is_complete_when_kubectl_rollout_status_says_so() {
    let with = |generation: i64, status: Value| {
        deployment(json!({
            "metadata": {"generation": generation},
            "spec": {"replicas": 3, "template": {}}, "status": status,
        }))
        .complete
    };
    let whole = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3,
        "availableReplicas": 3});
    assert!(with(2, whole.clone()));
    assert!(!with(3, whole.clone()), "an older generation was observed");
    let mut surging = whole.clone();
    surging["replicas"] = json!(4);
    assert!(!with(2, surging), "an old pod is left");
    let mut unavailable = whole.clone();
    unavailable["availableReplicas"] = json!(2);
    assert!(!with(2, unavailable));
    let mut late = whole;
    late["conditions"] = json!([{"type": "Progressing", "status": "False",
        "reason": "ProgressDeadlineExceeded"}]);
    assert!(!with(2, late));
}

#[test]
fn a_pod_that_cannot_start_says_why() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-1"},
        "status": {"containerStatuses": [{
            "name": "app", "image": "web:2", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
        }]},
    }))
    .unwrap();
    assert_eq!(
        PodFacts::of(&pod).trouble.unwrap(),
        "pod web-1, container app: ImagePullBackOff (not found)"
    );
}

#[test]
fn a_container_that_ends_again_and_again_says_how() {
    let crashing = |message: &str| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1"},
            "status": {"containerStatuses": [{
                "name": "app", "image": "web:2", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
                "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
            }]},
        }))
        .unwrap();
        PodFacts::of(&pod).trouble.unwrap()
    };
    let told = crashing("back-off 10s");
    assert_eq!(
        told,
        "pod web-1, container app: CrashLoopBackOff (OOMKilled, exit code 137: see its log with `--previous`)"
    );
    assert_eq!(crashing("back-off 20s"), told, "the same is not told again");
}

#[test]
fn a_pod_that_is_not_ready_says_which_container_is_not() {
    let message = "containers with unready status: [app]";
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-1"},
        "status": {"conditions": [
            {"type": "ContainersReady", "status": "False", "message": message},
        ]},
    }))
    .unwrap();
    let facts = PodFacts::of(&pod);
    assert_eq!(facts.unready.unwrap(), format!("pod web-1: {message}"));
    assert_eq!(facts.trouble, None);
}

#[test]
fn a_pause_by_hand_is_told_from_git_and_from_our_hold() {
    let paused = |manager, operation| {
        let metadata = owned_by(manager, operation);
        deployment(json!({"metadata": metadata, "spec": {"paused": true, "template": {}}}))
    };
    let by_hand = paused("kubectl-rollout", "Update");
    assert_eq!(by_hand.paused_by_hand.as_deref(), Some("kubectl-rollout"));
    assert_eq!(by_hand.paused_by_git, None);
    let by_git = paused("kustomize-controller", "Apply");
    assert_eq!(
        by_git.paused_by_git.as_deref(),
        Some("kustomize-controller")
    );
    assert_eq!(by_git.paused_by_hand, None);
    let ours = paused(MANAGER, "Update");
    assert_eq!((ours.paused_by_git, ours.paused_by_hand), (None, None));
}

#[test]
fn a_container_that_is_being_made_is_no_trouble() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-1"},
        "status": {"containerStatuses": [{
            "name": "app", "image": "web:2", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        }]},
    }))
    .unwrap();
    assert_eq!(PodFacts::of(&pod).trouble, None);
}

#[test]
fn a_service_without_a_selector_takes_no_pod() {
    let labels = Labels::default().with("app", "web");
    assert!(!ServiceFacts::default().takes(&labels));
    let service = ServiceFacts {
        selector: labels.clone(),
        ..ServiceFacts::default()
    };
    assert!(service.takes(&labels));
    assert!(!service.takes(&Labels::default()));
}

#[test]
fn a_native_replica_set_and_its_deployment_have_the_same_revision() {
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "web:1", "fieldOfTheFuture": 1}]}});
    let mut hashed = template.clone();
    hashed["metadata"]["labels"]["pod-template-hash"] = json!("abc");
    let rs = ReplicaSetFacts::of(
        &serde_json::from_value(json!({"metadata": {}, "spec": {"template": hashed}})).unwrap(),
    );
    let deployment = deployment(json!({"metadata": {}, "spec": {"template": template}}));
    assert_eq!(rs.revision, deployment.revision);
    assert_eq!(rs.pod_hash, "abc");
}
