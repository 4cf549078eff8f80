//! Status of a MeshRollout. Every field is written by the controller's leader alone, in one
//! write with the resourceVersion read before, so that the whole state moves at once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the controller has decided, and on which evidence.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MeshRolloutStatus {
    /// The generation that the decision is about; never ahead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Idle, Preparing, Shifting, Observing, Paused, Promoting, RollingBack or Rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Index of the current step, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// The step for people, as `2/5`.
    #[serde(default)]
    pub step_text: String,
    /// The candidate's weight as decided, in percent.
    #[serde(default)]
    pub weight: i32,
    /// Number of the decision; the TrafficSplit carries it.
    #[serde(default)]
    pub fence: i64,
    /// The revision that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,
    /// The revision that is tried, or was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,
    /// What the proxies saw of the candidate's rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceStatus>,
    /// The last verdict, one sentence with its numbers.
    #[serde(default)]
    pub verdict: String,
    /// The last 10 ended rollouts, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<HistoryEntry>,
    /// Ready, Reconciling, Stalled; Bypassed: requests come to the pods from outside the mesh, and
    /// are neither split nor judged; Doubted: a proxy claims more than the candidate's pods saw;
    /// PodFault: one pod of the candidate fails alone and gets no requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The machine's own state, whole: written before any of its effects, read back after a
    /// restart. Its shape belongs to the controller and may change between versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub state: Option<serde_json::Value>,
}

/// A revision: the hash of its pod template.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Hash of the pod template without restart annotations and `sluice.dev/*`.
    pub revision: String,
    /// Pods that can serve it.
    #[serde(default)]
    pub ready_pods: i32,
}

/// Evidence of both arms since the candidate's first request.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceStatus {
    /// Coined requests of stable.
    pub stable: ArmEvidence,
    /// Coined requests of the candidate.
    pub candidate: ArmEvidence,
    /// Candidate requests that the next step needs, as far as can be told now.
    pub needed: i64,
    /// `HAVE/NEED`, for people.
    pub text: String,
}

/// Evidence of one arm.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ArmEvidence {
    /// Requests.
    pub requests: i64,
    /// Failed ones among them.
    pub failures: i64,
}

/// An ended rollout.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The revision that was tried.
    pub revision: String,
    /// `Promoted`, `RolledBack` or `Replaced`.
    pub outcome: String,
    /// Why, in one sentence with numbers.
    #[serde(default)]
    pub why: String,
    /// When it ended.
    pub time: Time,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
