//! `TrafficSplit`: which arms of a service get which weight. Written by the controller alone,
//! read by every replica that serves proxies; never kept in git.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::rules;

/// Name of the arm that serves whatever is not being tried. Pods of neither arm belong to it.
pub const STABLE: &str = "stable";
/// Name of the arm that is being tried.
pub const CANDIDATE: &str = "candidate";
/// Most entries of any list in a status; the rest is a count.
pub const MAX_LISTED: usize = 10;

/// Weights of the arms of the named services, of one MeshRollout (same name and namespace).
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "TrafficSplit",
    doc = "Which arms of a Service get which weight. Written by the controller alone; never kept in git.",
    namespaced,
    status = "TrafficSplitStatus",
    category = "sluice",
    printcolumn(
        name = "Candidate",
        type_ = "integer",
        json_path = ".spec.arms[?(@.name==\"candidate\")].weight"
    ),
    printcolumn(name = "Fence", type_ = "integer", json_path = ".spec.fence"),
    printcolumn(name = "Applied", type_ = "string", json_path = ".status.summary"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("self.fence >= oldSelf.fence").message("spec.fence went down: a newer decision has been written; read the object again"))]
#[x_kube(validation = Rule::new("self.fence != oldSelf.fence || self == oldSelf").message("spec changed under the same fence: a newer decision has been written; read the object again"))]
#[x_kube(validation = Rule::new("self.arms.map(a, a.weight).sum() == 100").message("the weights of spec.arms must sum to 100"))]
#[x_kube(validation = Rule::new("self.arms.all(a, self.arms.exists_one(b, b.name == a.name))").message("each arm of spec.arms may stand there only once"))]
#[serde(rename_all = "camelCase")]
pub struct TrafficSplitSpec {
    /// Grows with every decision; a smaller one is refused, so that a leader that wakes up
    /// late changes nothing.
    #[schemars(range(min = 0))]
    pub fence: i64,
    /// Names of the Services, in this namespace, whose traffic is split.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub services: Vec<String>,
    /// The candidate revision that the weights are about; empty when there is none. Proxies
    /// book their evidence under it.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub revision: String,
    /// The arms, stable first. Pods that no arm selects count as stable.
    #[schemars(length(min = 1, max = 2))]
    pub arms: Vec<SplitArm>,
    /// Whether the candidate's weight ends when a proxy loses contact for 60 s: true for
    /// every unpromoted candidate.
    #[serde(default)]
    pub leased: bool,
    /// How long a request may run before it counts as hung, in milliseconds.
    #[serde(default = "default_hung_after_ms")]
    #[schemars(range(min = 100, max = 3_600_000))]
    pub hung_after_ms: i64,
}

/// One arm of a split.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SplitArm {
    /// `stable` or `candidate`.
    #[schemars(extend("enum" = ["stable", "candidate"]))]
    pub name: String,
    /// Share of the requests, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
    /// Values of `podLabel` that make a pod belong to the arm. Empty for stable: all pods of
    /// no other arm.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub pod_label_values: Vec<String>,
    /// The pod label that tells arms apart: `pod-template-hash`, or the label of `versions`.
    #[serde(default = "default_pod_label")]
    #[schemars(length(min = 1, max = 317))]
    pub pod_label: String,
    /// Whether pods count whose containers are ready while their readiness gate is shut.
    #[serde(default)]
    pub include_gated: bool,
    /// Names of pods that belong to the arm and get no requests: those that fail alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = rules::each_once("excludedPods"))]
    pub excluded_pods: Vec<String>,
}

impl TrafficSplitSpec {
    /// The candidate's weight; 0 when there is no candidate arm.
    #[must_use]
    pub fn candidate_weight(&self) -> i32 {
        self.arms
            .iter()
            .find(|arm| arm.name == CANDIDATE)
            .map_or(0, |arm| arm.weight)
    }

    /// Name of the arm that a pod with these labels belongs to.
    #[must_use]
    pub fn arm_of(&self, labels: &BTreeMap<String, String>) -> &str {
        self.arms
            .iter()
            .find(|arm| arm.selects(labels))
            .map_or(STABLE, |arm| arm.name.as_str())
    }
}

impl SplitArm {
    /// Whether the arm's selection names this pod's labels.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        labels
            .get(&self.pod_label)
            .is_some_and(|value| self.pod_label_values.contains(value))
    }
}

/// What the mesh has made of the split. Written by the controller from the proxies' own
/// reports, at most once in 10 s unless the fence changed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficSplitStatus {
    /// The generation this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The fence this status is about.
    #[serde(default)]
    pub fence: i64,
    /// `APPLIED/EXPECTED`, for people.
    #[serde(default)]
    pub summary: String,
    /// Proxies that have the service in their view.
    #[serde(default)]
    pub expected: i32,
    /// Proxies that route by this fence.
    #[serde(default)]
    pub applied: i32,
    /// Proxies in contact that do not route by this fence yet.
    #[serde(default)]
    pub behind: i32,
    /// Proxies that have not been heard of for 10 s.
    #[serde(default)]
    pub away: i32,
    /// Names of at most 10 proxies that are behind, with the reason they gave, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub laggards: Vec<String>,
    /// `Programmed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn default_pod_label() -> String {
    crate::names::POD_TEMPLATE_HASH.to_owned()
}

fn default_hung_after_ms() -> i64 {
    10_000
}
