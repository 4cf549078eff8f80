//! Our CRDs in a real apiserver: what it fills in, takes, and refuses with which sentence.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
#[path = "crds/examples.rs"]
mod examples;
#[path = "crds/place.rs"]
mod place;
#[path = "crds/refusals.rs"]
mod refusals;
#[path = "crds/split.rs"]
mod split;

use kube::api::{Patch, PatchParams};
use place::{Place, typed};
use serde_json::{Value, json};
use sluice_crds::{
    ArmEvidence, EvidenceStatus, HistoryEntry, MeshRollout, MeshRolloutStatus, RevisionStatus,
};

const SMALLEST: &str = "
apiVersion: sluice.dev/v1alpha1
kind: MeshRollout
metadata: {name: reviews}
spec:
  workload: {name: reviews}
";

/// A MeshRollout of mode A with further lines of its spec.
fn rollout(spec: &str) -> String {
    format!("{SMALLEST}  {spec}\n")
}

/// A MeshRollout that says no more than this.
fn bare_rollout(spec: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: MeshRollout\nmetadata: {{name: reviews}}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn every_default_of_a_rollout_is_filled_in() {
    let place = Place::new("crds-defaults").await;
    let object = place.apply(SMALLEST).await.unwrap();
    let wanted = json!({
        "workload": {"kind": "Deployment", "name": "reviews"},
        "router": "Sluice",
        "strategy": {"steps": [{"weight": 10}, {"weight": 25}, {"weight": 50}, {"weight": 75}, {"weight": 100}]},
        "analysis": {
            "maxErrorRate": "1%",
            "maxRelativeRisk": 1.5,
            "confidence": "99.9%",
            "promotionConfidence": "95%",
            "hungAfter": "10s",
            "hold": "30s",
            "onNoTraffic": "Hold",
        },
        "onFailure": {"action": "Rollback", "keepCandidatePods": 1, "keepCandidateFor": "15m"},
        "retry": "",
        "deadline": "2h",
    });
    assert_eq!(object.data["spec"], wanted);
    let read: MeshRollout = serde_json::from_value(serde_json::to_value(&object).unwrap()).unwrap();
    assert_eq!(
        serde_json::to_value(&read.spec).unwrap(),
        wanted,
        "the types fill in the same"
    );
}

#[tokio::test]
async fn what_the_engine_does_is_accepted() {
    let place = Place::new("crds-good").await;
    let good = [
        rollout("services: [reviews, reviews-internal]"),
        rollout(
            "strategy: {steps: [{weight: 10}, {weight: 25}, {weight: 50, hold: 2m}, {pause: {}}, {weight: 75}, {weight: 100}]}",
        ),
        rollout("strategy: {steps: [{pause: {duration: 1h30m}}, {weight: 100}]}"),
        rollout("strategy: {}"),
        rollout(
            "analysis: {maxErrorRate: 0%, maxRelativeRisk: 2, confidence: 99%, promotionConfidence: 50%, hungAfter: 250ms, hold: 0s, onNoTraffic: Advance}",
        ),
        rollout("analysis: {maxErrorRate: 100%, confidence: 99.9999%, onNoTraffic: Rollback}"),
        rollout("onFailure: {action: Pause, keepCandidatePods: 0, keepCandidateFor: 0s}"),
        rollout("retry: once more"),
        rollout("deadline: 30m"),
        bare_rollout("{versions: {stable: v1, candidate: v2}, services: [reviews]}"),
        bare_rollout(
            "{versions: {label: app.kubernetes.io/version, stable: 1.0.0, candidate: 1.1.0-rc.1}, services: [reviews]}",
        ),
        // A field with nothing behind it is a field left out.
        rollout("gates:\n  services:"),
    ];
    for yaml in good {
        place
            .try_out(&yaml)
            .await
            .unwrap_or_else(|why| panic!("{why}\n{yaml}"));
    }
}

#[tokio::test]
async fn a_second_apply_of_a_rollout_changes_nothing() {
    let place = Place::new("crds-twice").await;
    let yaml = rollout("strategy: {steps: [{weight: 50, hold: 2m}, {weight: 100}]}");
    place.apply(&yaml).await.unwrap();
    // Before the controller's first word the apiserver has yet to store the status that it fills in.
    let seen = Patch::Merge(json!({"status": {"observedGeneration": 1}}));
    let api = place.api(&typed("MeshRollout"));
    let first = api
        .patch_status("reviews", &PatchParams::default(), &seen)
        .await
        .unwrap();
    let tried = place.try_out(&yaml).await.unwrap();
    let second = place.apply(&yaml).await.unwrap();
    assert_eq!(
        tried.metadata.resource_version,
        first.metadata.resource_version
    );
    assert_eq!(
        second.metadata.resource_version,
        first.metadata.resource_version
    );
    assert_eq!(second.metadata.generation, Some(1));
    assert_eq!(second.data, first.data);
}

#[tokio::test]
async fn people_see_the_phase_the_weight_and_the_evidence_in_a_table() {
    let place = Place::new("crds-status").await;
    place.apply(SMALLEST).await.unwrap();
    let status = MeshRolloutStatus {
        observed_generation: Some(1),
        phase: Some("Observing".to_owned()),
        step: Some(1),
        step_text: "2/5".to_owned(),
        weight: 25,
        fence: 7,
        candidate: Some(RevisionStatus {
            revision: "0123456789abcdef".to_owned(),
            ready_pods: 2,
        }),
        evidence: Some(EvidenceStatus {
            candidate: ArmEvidence {
                requests: 812,
                failures: 0,
            },
            needed: 1500,
            text: "812/1500".to_owned(),
            ..EvidenceStatus::default()
        }),
        verdict: "so far so good".to_owned(),
        history: vec![HistoryEntry {
            revision: "fedcba9876543210".to_owned(),
            outcome: "Promoted".to_owned(),
            why: String::new(),
            time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                "2026-01-02T03:04:05Z".parse().unwrap(),
            ),
        }],
        state: Some(json!({"kind": "Observing", "step": 1, "any": {"thing": [1, 2]}})),
        ..MeshRolloutStatus::default()
    };
    let patch = Patch::Merge(json!({"status": status}));
    let api = place.api(&typed("MeshRollout"));
    let written = api
        .patch_status("reviews", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let read: MeshRollout =
        serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
    assert_eq!(
        read.status,
        Some(status),
        "the whole status comes back, the state in it as well"
    );

    let request =
        http::Request::get("/apis/sluice.dev/v1alpha1/namespaces/crds-status/meshrollouts")
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .unwrap();
    let table: Value = place.client.request(request).await.unwrap();
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        columns,
        [
            "Name", "Phase", "Step", "Weight", "Verdict", "Evidence", "Age"
        ]
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..6],
        [
            json!("reviews"),
            json!("Observing"),
            json!("2/5"),
            json!(25),
            json!("so far so good"),
            json!("812/1500")
        ]
    );
}

/// Every one must be refused with its sentence.
async fn refused<'a>(place: &Place, cases: impl IntoIterator<Item = (String, &'a str)>) {
    let mut wrong = Vec::new();
    for (yaml, sentence) in cases {
        match place.try_out(&yaml).await {
            Ok(_) => wrong.push(format!("accepted instead of `{sentence}`:\n{yaml}")),
            Err(why) if !why.contains(sentence) => {
                wrong.push(format!("`{sentence}` is not in: {why}\n{yaml}"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
