//! What the shim saw of the world, reduced to what a decision needs.

use serde::{Deserialize, Serialize};

/// One look at the world. Made by the shim from its caches after its own writes are seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// What runs.
    pub workload: Workload,
    /// Services (of the rollout's namespace) whose traffic is split.
    pub services: Vec<String>,
    /// Services that the spec names and that do not exist.
    pub missing_services: Vec<String>,
    /// Another, older MeshRollout of this namespace that governs the same workload.
    pub conflict: Option<String>,
    /// The mesh's side of the split.
    pub split: SplitView,
    /// What the proxies saw of the current candidate.
    pub evidence: EvidenceView,
    /// A HorizontalPodAutoscaler of the workload that is not ours to hold.
    pub unheld: Option<UnheldAutoscaler>,
    /// The command annotation, as written: `COMMAND@REVISION`.
    pub command: String,
}

/// A HorizontalPodAutoscaler whose `behavior.scaleDown.selectPolicy` somebody else sets, to
/// something that lets it scale down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnheldAutoscaler {
    /// Its name.
    pub name: String,
    /// The field manager that sets it.
    pub manager: String,
}

/// The governed pods.
#[allow(clippy::large_enum_variant)] // One is made a look, and none is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Workload {
    /// The Deployment (mode A) or both subsets' pods (mode B) do not exist.
    #[default]
    Missing,
    /// Mode A.
    Deployment(DeploymentView),
    /// Mode B.
    Subsets(SubsetsView),
}

/// A native Deployment, its ReplicaSets and ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeploymentView {
    /// Its name.
    pub name: String,
    /// `metadata.uid`: one that is deleted and made anew is another.
    pub uid: String,
    /// `metadata.generation`: of two looks at one Deployment the one with less is older.
    pub generation: i64,
    /// Revision of its current template.
    pub revision: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `spec.paused`.
    pub paused: bool,
    /// An applier other than us owns `spec.paused`: git itself pauses.
    pub paused_by_git: Option<String>,
    /// Somebody who is neither git nor we has set `spec.paused`, as `kubectl rollout pause` does.
    pub paused_by_hand: Option<String>,
    /// Its own rollout of the current template is complete (as `kubectl rollout status` says).
    pub complete: bool,
    /// Every revision that pods of its native ReplicaSets run, with their ready pods; the
    /// ReplicaSets that hold no pods are left out.
    pub running: Vec<RunningRevision>,
    /// Native ReplicaSets without pods whose template is the current one: they would win the
    /// adoption.
    pub empty_twins: Vec<String>,
    /// Our ReplicaSet of the current template, if any.
    pub candidate: Option<CandidateView>,
    /// ReplicaSets of ours for other templates, to be removed.
    pub leftovers: Vec<String>,
}

/// Pods of one revision in the Deployment's own ReplicaSets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningRevision {
    /// The revision.
    pub revision: String,
    /// `pod-template-hash` of its ReplicaSets.
    pub pod_hashes: Vec<String>,
    /// Pods.
    pub pods: i32,
    /// Ready ones among them.
    pub ready: i32,
}

/// Our ReplicaSet of the current template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CandidateView {
    /// Its revision.
    pub revision: String,
    /// Its `pod-template-hash`.
    pub pod_hash: String,
    /// Who controls it.
    pub owner: Owner,
    /// `spec.replicas`.
    pub replicas: i32,
    /// Pods that are not being deleted.
    pub pods: i32,
    /// The same by name.
    pub named: Vec<CandidatePod>,
    /// Pods whose containers are ready, gate or not.
    pub containers_ready: i32,
    /// Pods that are Ready.
    pub ready: i32,
    /// Pods that lack the readiness gate although they should have it.
    pub ungated: i32,
    /// Why pods cannot be made or do not start, if the cluster says so.
    pub trouble: Option<String>,
    /// What a pod that runs and is not ready waits for, as the kubelet says.
    pub unready: Option<String>,
}

/// A pod of the candidate that is not being deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CandidatePod {
    /// Its name.
    pub name: String,
    /// Whether it can serve, gate or not.
    pub can_serve: bool,
}

impl CandidateView {
    /// Pods that can serve; one that is left out gets no requests.
    #[must_use]
    pub fn can_serve(&self, left_out: Option<&str>) -> i32 {
        without(self.containers_ready, &self.named, left_out)
    }

    /// What keeps its pods from serving, if the cluster says so.
    #[must_use]
    pub fn ailment(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.unready.as_deref())
    }
}

/// Who controls our ReplicaSet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// The MeshRollout.
    #[default]
    Rollout,
    /// Nobody: between release and adoption.
    Nobody,
    /// The Deployment: adopted.
    Deployment,
}

/// Mode B.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubsetsView {
    /// Hash of the label value and the pod template of the stable subset.
    pub stable_revision: String,
    /// The same of the candidate subset; empty when it has no pods.
    pub candidate_revision: String,
    /// Ready pods of the stable subset.
    pub stable_ready: i32,
    /// Ready pods of the candidate subset.
    pub candidate_ready: i32,
    /// Pods that the candidate's workload asks for.
    pub candidate_wanted: i32,
    /// Pods of the candidate subset.
    pub candidate_pods: Vec<CandidatePod>,
}

impl SubsetsView {
    /// Candidate pods that can serve; one that is left out gets no requests.
    #[must_use]
    pub fn can_serve(&self, left_out: Option<&str>) -> i32 {
        without(self.candidate_ready, &self.candidate_pods, left_out)
    }
}

fn without(ready: i32, pods: &[CandidatePod], left_out: Option<&str>) -> i32 {
    let is_counted = |pod: &CandidatePod| pod.can_serve && left_out == Some(&*pod.name);
    ready - i32::from(pods.iter().any(is_counted))
}

/// What the mesh has made of the TrafficSplit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitView {
    /// Fence of the TrafficSplit in the cluster; none when it does not exist.
    pub fence: Option<i64>,
    /// Proxies that hold the service in their view.
    pub expected: u32,
    /// Those that route by the split's fence.
    pub applied: u32,
    /// Those in contact that do not yet.
    pub behind: u32,
    /// Those not heard of for 10 s.
    pub away: u32,
    /// A proxy's refusal (NACK) of something that this split needs.
    pub refusal: Option<String>,
    /// False while the relay's table is not whole (a new leader, a replica out of reach).
    pub complete: bool,
}

impl SplitView {
    /// More than one proxy in a hundred was not heard of for 10 s: no step is passed.
    #[must_use]
    pub fn too_many_away(&self) -> bool {
        u64::from(self.away) * 100 > u64::from(self.expected)
    }
}

/// What the proxies saw, judged. Made by `verdict::Analysis`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EvidenceView {
    /// Totals of the revision, all fences.
    pub stable: Counts,
    /// Totals of the revision, all fences.
    pub candidate: Counts,
    /// The candidate is condemned: the sentence with its numbers.
    pub condemned: Option<String>,
    /// The candidate breaks the absolute promise while stable has too little traffic to compare
    /// (weight above 50): the sentence with its numbers.
    pub breach: Option<String>,
    /// Both arms break the promise in the same seconds.
    pub shared_outage: Option<String>,
    /// The evidence condemns the candidate, but one witness alone says so, whom others
    /// contradict.
    pub contested: Option<Contest>,
    /// Witnesses who say what cannot be, and are not believed: one sentence each.
    pub doubted: Vec<String>,
    /// The evidence suffices to pass a step.
    pub sufficient: bool,
    /// Candidate requests that a step needs, as far as can be told now.
    pub needed: u64,
    /// Candidate requests of the current fence.
    pub in_step: u64,
    /// Evidence up to now, to be kept when the fence changes.
    pub closed: ClosedEvidence,
}

/// Who may bear witness of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name")]
pub enum Witness {
    /// The proxy of a pod, `NAMESPACE/NAME`, that sends requests to both arms.
    Proxy(String),
    /// A pod of the candidate, by name.
    Pod(String),
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proxy(name) => write!(f, "the proxy of pod {name}"),
            Self::Pod(name) => write!(f, "pod {name}"),
        }
    }
}

/// One witness against all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contest {
    /// Who alone.
    pub witness: Witness,
    /// One sentence with its numbers.
    pub why: String,
}

/// Coined requests of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests.
    pub requests: u64,
    /// Failure events among them.
    pub failures: u64,
}

impl Counts {
    /// Failures a request; 0 without requests.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.failures as f64 / self.requests.max(1) as f64
    }

    /// The sum of both, at most the largest number.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

/// Evidence of fences that are over. Written into the state when the fence changes; a new
/// leader starts from it and takes only records of later fences from the table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClosedEvidence {
    /// The last fence that is in it.
    pub through_fence: i64,
    /// One entry a fence that had requests in both arms: (stable, candidate).
    pub fences: Vec<(Counts, Counts)>,
    /// Log of the relative e-process for each relative risk of the grid.
    pub log_relative: Vec<f64>,
    /// Log of the absolute e-process for each rate of the grid.
    pub log_absolute: Vec<f64>,
    /// The same for failures and 4xx answers together.
    pub log_errors: Vec<f64>,
    /// The same for being worse than stable at all.
    pub log_worse: Vec<f64>,
    /// Observations of each: relative, errors, worse, absolute.
    pub observed: Vec<u64>,
    /// Requests of fences in which one arm had none: (stable, candidate).
    pub unpaired: (Counts, Counts),
}
