//! The end state of a scene, with uids, versions and times left out: what two runs must have in
//! common.

use anyhow::Result;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::ReplicaSet, core::v1::Pod,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sluice_crds::names;

use super::scene::Scene;

/// The end state; `first_fence` is the fence before the first candidate.
///
/// # Errors
/// The apiserver does not answer.
pub async fn of(scene: &Scene, first_fence: i64) -> Result<Value> {
    let (status, split) = (scene.status().await?, scene.split().await?);
    let deployment = scene.deployment().await?;
    let spec = deployment.spec.unwrap_or_default();
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|c| {
            format!(
                "{}={} {}: {}",
                c.type_,
                c.status,
                c.reason,
                without_digits(&c.message)
            )
        })
        .collect();
    let history: Vec<String> = status
        .history
        .iter()
        .map(|ended| format!("{} {}", ended.revision, ended.outcome))
        .collect();
    let mut sets: Vec<Value> = scene.sets().await?.iter().map(set).collect();
    sets.sort_by_key(ToString::to_string);
    let mut pods: Vec<Value> = scene.pods().await?.iter().map(pod).collect();
    pods.sort_by_key(ToString::to_string);
    Ok(json!({
        "status": {
            "phase": status.phase, "weight": status.weight, "fence": status.fence - first_fence,
            "stable": status.stable, "candidate": status.candidate.map(|c| c.revision),
            "verdict": without_digits(&status.verdict), "conditions": conditions, "history": history,
            "rejected": status.state.map(|state| state["rejected"].as_array().map(Vec::len)),
        },
        "split": {
            "fence": split.spec.fence - first_fence, "arms": split.spec.arms,
            "services": split.spec.services, "revision": split.spec.revision,
        },
        "deployment": {
            "paused": spec.paused, "replicas": spec.replicas,
            "image": spec.template.spec.and_then(|spec| spec.containers[0].image.clone()),
            "available": deployment.status.and_then(|status| status.available_replicas),
        },
        "replicaSets": sets,
        "pods": pods,
        "lists": lists(scene).await?,
    }))
}

fn set(set: &ReplicaSet) -> Value {
    let owners: Vec<&str> = set
        .owner_references()
        .iter()
        .map(|owner| owner.kind.as_str())
        .collect();
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
    json!({"name": set.name_any(), "owners": owners, "replicas": wanted})
}

fn pod(pod: &Pod) -> Value {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut conditions: Vec<String> = conditions
        .map(|c| format!("{}={}", c.type_, c.status))
        .collect();
    conditions.sort();
    json!({"hash": pod.labels().get(names::POD_TEMPLATE_HASH), "conditions": conditions})
}

/// Which of the webhooks' lists name this namespace.
async fn lists(scene: &Scene) -> Result<Value> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(scene.admin.clone());
    let mut named = Vec::new();
    for (name, quoted) in [
        ("sluice-hold", format!("'{}'", scene.namespace)),
        ("sluice-gate", format!("'{}/", scene.namespace)),
    ] {
        let webhooks = api.get(name).await?.webhooks.unwrap_or_default();
        let mut conditions = webhooks
            .iter()
            .flat_map(|w| w.match_conditions.iter().flatten());
        named.push((name, conditions.any(|c| c.expression.contains(&quoted))));
    }
    Ok(json!(named))
}

fn without_digits(text: &str) -> String {
    let is_number = |word: &str| {
        word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
            .parse::<f64>()
            .is_ok()
    };
    let words = text
        .split(' ')
        .map(|word| if is_number(word) { "N" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
