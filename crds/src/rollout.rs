//! `MeshRollout`: how each new revision of a workload is let in. Written by people, in git.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Analysis, MeshRolloutStatus, Strategy, rules};

/// How each new revision of a workload is let in, step by step, and on which evidence.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "MeshRollout",
    doc = "How each new revision of a workload is let in, step by step, and on which evidence. Written by people, in git.",
    namespaced,
    status = "MeshRolloutStatus",
    shortname = "mro",
    category = "sluice",
    category = "all",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.stepText"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.weight"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(
        name = "Evidence",
        type_ = "string",
        json_path = ".status.evidence.text"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("has(self.workload) != has(self.versions)").message("say either spec.workload (a canary of one Deployment) or spec.versions (two label subsets), not both and not neither"))]
#[x_kube(validation = Rule::new("has(self.workload) || (has(self.services) && self.services.size() > 0)").message("with spec.versions, spec.services must name the Services whose traffic is split"))]
#[x_kube(validation = rules::not_yet("self.router == 'Sluice'", "spec.router Istio or GatewayAPI", "leave spec.router out, or write Sluice"))]
#[x_kube(validation = rules::not_yet("!has(self.gates) || self.gates.size() == 0", "spec.gates", "remove it, and use a step {pause: {}} to wait for a person"))]
#[serde(rename_all = "camelCase")]
pub struct MeshRolloutSpec {
    /// Mode A: the next revision of this workload is the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadRef>,
    /// Mode B: two label subsets, usually two Deployments; the candidate is what git says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Versions>,
    /// Services whose traffic is split; default: every Service of the namespace whose selector
    /// takes the workload's pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = rules::service_names("spec.services"))]
    #[x_kube(validation = rules::each_once("spec.services"))]
    pub services: Option<Vec<String>>,
    /// Whose lower-level routing objects are managed.
    #[serde(default)]
    pub router: Router,
    /// The steps, and who is put where.
    #[serde(default)]
    pub strategy: Strategy,
    /// What a release must keep, and how sure a verdict must be.
    #[serde(default)]
    pub analysis: Analysis,
    /// Further conditions of each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub gates: Option<Vec<Gate>>,
    /// What happens to a condemned revision.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Any new string tries a rejected revision again.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub retry: String,
    /// The longest that a rollout may take, paused time not counted; then it is rolled back.
    #[serde(default = "default_deadline")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration_between("spec.deadline", "1s", "8760h"))]
    pub deadline: String,
}

/// A workload of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.namespace)").message("spec.workload.namespace is refused: a MeshRollout governs a workload of its own namespace, so put it into that namespace and leave the field out"))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// `Deployment`.
    #[serde(default = "default_kind")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self == 'Deployment'").message("spec.workload.kind must be Deployment: other kinds cannot run two revisions side by side without losing capacity"))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Only there to be refused with a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

/// Two label subsets of the Services' pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("self.stable != self.candidate").message("spec.versions.stable and spec.versions.candidate must differ"))]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// The pod label that tells them apart.
    #[serde(default = "default_label")]
    #[schemars(length(min = 1, max = 317))]
    pub label: String,
    /// Its value on the pods that serve now.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::label_value("spec.versions.stable"))]
    pub stable: String,
    /// Its value on the pods to be tried.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::label_value("spec.versions.candidate"))]
    pub candidate: String,
}

/// Whose routing objects carry the weights.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema,
)]
pub enum Router {
    /// Our own mesh reads the TrafficSplit.
    #[default]
    Sluice,
    /// A generated VirtualService and DestinationRule.
    Istio,
    /// A generated HTTPRoute.
    GatewayAPI,
    /// A value that a later CRD allows; see [`crate::OnNoTraffic::Later`].
    #[serde(other)]
    #[schemars(skip)]
    Later,
}

/// A further condition of each step.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Asks an URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookGate>,
    /// Opens at set times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowGate>,
}

/// Asks an URL.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct WebhookGate {
    /// Where to ask.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
}

/// Opens at set times.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct WindowGate {
    /// When it opens.
    #[schemars(length(min = 1, max = 128))]
    pub cron: String,
    /// How long it stays open.
    #[schemars(length(min = 1, max = 32))]
    pub duration: String,
}

/// What happens to a condemned revision.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OnFailure {
    /// Rollback takes it off traffic; Pause sets its weight to 0 and waits for a person, who
    /// says `abort` or `retry`.
    #[serde(default)]
    pub action: FailureAction,
    /// Pods of it that are kept, without traffic, to be looked at.
    #[serde(default = "default_keep_pods")]
    #[schemars(range(min = 0, max = 10))]
    pub keep_candidate_pods: i32,
    /// How long they are kept.
    #[serde(default = "default_keep_for")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration("spec.onFailure.keepCandidateFor"))]
    pub keep_candidate_for: String,
}

/// What is done with a condemned revision.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema,
)]
pub enum FailureAction {
    /// Weight 0, then its pods go.
    #[default]
    Rollback,
    /// Weight 0, then a person decides.
    Pause,
    /// A value that a later CRD allows; see [`crate::OnNoTraffic::Later`].
    #[serde(other)]
    #[schemars(skip)]
    Later,
}

impl Default for OnFailure {
    fn default() -> Self {
        Self {
            action: FailureAction::Rollback,
            keep_candidate_pods: default_keep_pods(),
            keep_candidate_for: default_keep_for(),
        }
    }
}

fn default_deadline() -> String {
    "2h".to_owned()
}

fn default_kind() -> String {
    "Deployment".to_owned()
}

fn default_label() -> String {
    "version".to_owned()
}

fn default_keep_pods() -> i32 {
    1
}

fn default_keep_for() -> String {
    "15m".to_owned()
}
