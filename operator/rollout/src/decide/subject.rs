//! What both modes have in common: a revision that git wants, pods that can serve it, and the
//! capacity that is full.

use crate::observation::{
    CandidatePod, CandidateView, DeploymentView, Owner, SubsetsView, Workload,
};
use crate::policy::Policy;
use crate::revision::candidate_pod_hash;
use crate::state::Arm;

/// The workload as the machine sees it, whichever the mode.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subject<'a> {
    /// What git wants to run: the next candidate, or stable.
    pub(super) wanted: Arm,
    /// What surely serves now, if that can be told without remembering.
    pub(super) serving: Option<Arm>,
    /// Pods at full capacity.
    pub(super) replicas: i32,
    /// Ready pods of the stable revision.
    pub(super) stable_ready: i32,
    /// Mode A: the Deployment.
    pub(super) deployment: Option<&'a DeploymentView>,
    subsets: Option<&'a SubsetsView>,
}

impl<'a> Subject<'a> {
    /// None while there is no workload.
    pub(super) fn of(policy: &Policy, workload: &'a Workload) -> Option<Self> {
        match workload {
            Workload::Missing => None,
            Workload::Deployment(view) => Some(Self::of_deployment(view)),
            Workload::Subsets(view) => Some(Self::of_subsets(policy, view)),
        }
    }

    fn of_deployment(view: &'a DeploymentView) -> Self {
        Self {
            wanted: Arm {
                revision: view.revision.clone(),
                pod_label_values: vec![candidate_pod_hash(&view.revision)],
            },
            serving: serving(view),
            replicas: view.replicas,
            stable_ready: view
                .running
                .iter()
                .filter(|running| running.revision != view.revision)
                .map(|running| running.ready)
                .sum(),
            deployment: Some(view),
            subsets: None,
        }
    }

    fn of_subsets(policy: &Policy, view: &'a SubsetsView) -> Self {
        let (stable, candidate) = policy.versions.clone().unwrap_or_default();
        let arm = |revision: &str, value: String| Arm {
            revision: revision.to_owned(),
            pod_label_values: vec![value],
        };
        let wanted = if view.candidate_revision.is_empty() {
            arm(&view.stable_revision, stable.clone())
        } else {
            arm(&view.candidate_revision, candidate)
        };
        Self {
            wanted,
            serving: (!view.stable_revision.is_empty()).then(|| arm(&view.stable_revision, stable)),
            replicas: view.candidate_wanted,
            stable_ready: view.stable_ready,
            deployment: None,
            subsets: Some(view),
        }
    }

    /// Mode A: our ReplicaSet of the wanted template.
    pub(super) fn candidate(&self) -> Option<&'a CandidateView> {
        self.deployment?.candidate.as_ref()
    }

    /// Candidate pods that can serve, gate or not; one that is left out gets no requests.
    pub(super) fn can_serve(&self, left_out: Option<&str>) -> i32 {
        if let Some(subsets) = self.subsets {
            return subsets.can_serve(left_out);
        }
        let candidate = self.candidate();
        let current = candidate.filter(|c| c.revision == self.wanted.revision);
        current.map_or(0, |candidate| candidate.can_serve(left_out))
    }

    /// Whether the candidate has a pod of this name.
    pub(super) fn has_pod(&self, name: &str) -> bool {
        let of_subsets = self.subsets.map(|subsets| &subsets.candidate_pods);
        let pods = of_subsets.or(self.candidate().map(|candidate| &candidate.named));
        let is_it = |pod: &CandidatePod| pod.name == name;
        pods.is_some_and(|pods| pods.iter().any(is_it))
    }

    /// Mode A: all that the Deployment runs is the wanted revision, by ReplicaSets of its own.
    pub(super) fn runs_wanted_alone(&self) -> bool {
        self.deployment
            .is_some_and(|d| d.complete && d.replicas > 0)
    }

    /// What is said while fewer candidate pods can serve than are needed.
    pub(super) fn lacking(&self, ready: i32, needed: i32) -> Option<String> {
        let ailment = self.candidate().and_then(CandidateView::ailment);
        (ready < needed).then(|| lacking(ready, needed, ailment))
    }

    /// Whether our ReplicaSet has become the Deployment's own.
    pub(super) fn adopted(&self) -> bool {
        self.candidate()
            .is_some_and(|c| c.owner == Owner::Deployment)
    }
}

/// How many candidate pods are ready of those that are needed, and what the cluster says of it.
pub(crate) fn lacking(ready: i32, needed: i32, ailment: Option<&str>) -> String {
    let count = format!("{ready} of {needed} candidate pods are ready");
    ailment.map_or(count.clone(), |ailment| format!("{count} ({ailment})"))
}

/// The revision that serves, where the Deployment alone tells: its only running one once a pod
/// of it is ready, the current one when its rollout is complete, or when nothing shall run.
fn serving(view: &DeploymentView) -> Option<Arm> {
    let arm = |revision: &str| Arm {
        revision: revision.to_owned(),
        pod_label_values: Vec::new(),
    };
    match view.running.as_slice() {
        [only] if only.ready > 0 => Some(arm(&only.revision)),
        _ if view.complete || view.replicas == 0 => Some(arm(&view.revision)),
        _ => None,
    }
}
