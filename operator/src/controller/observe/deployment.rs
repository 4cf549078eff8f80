//! Mode A: a Deployment, its ReplicaSets and ours.

use std::collections::{BTreeMap, HashMap};

use sluice_rollout::observation::{
    CandidatePod, CandidateView, DeploymentView, Owner, RunningRevision,
};

use crate::controller::{
    facts::{DeploymentFacts, PodFacts, ReplicaSetFacts},
    mapping::INFIX,
    watches::Namespace,
};

/// Pods that are neither being deleted nor finished, by the uid of their ReplicaSet.
type PodsByOwner<'a> = HashMap<&'a str, Vec<&'a PodFacts>>;

/// What one look shows of a Deployment governed by the MeshRollout of this uid.
pub(super) fn view(
    deployment: &DeploymentFacts,
    rollout_uid: &str,
    namespace: &Namespace,
) -> DeploymentView {
    let pods = by_owner(namespace);
    let mut view = DeploymentView {
        name: deployment.meta.name.clone(),
        uid: deployment.meta.uid.clone(),
        generation: deployment.meta.generation,
        revision: deployment.revision.clone(),
        replicas: deployment.replicas,
        paused: deployment.paused,
        paused_by_git: deployment.paused_by_git.clone(),
        paused_by_hand: deployment.paused_by_hand.clone(),
        complete: deployment.complete,
        ..DeploymentView::default()
    };
    let mut running = BTreeMap::<&str, RunningRevision>::new();
    for (set, owner) in sets(deployment, rollout_uid, namespace) {
        let current = set.revision == deployment.revision;
        let alive = pods_of(&pods, set);
        match owner {
            Owner::Deployment => {
                if !alive.is_empty() {
                    count(running.entry(&set.revision).or_default(), set, alive);
                }
                if current && set.empty() && alive.is_empty() {
                    view.empty_twins.push(set.meta.name.clone());
                } else if current && is_ours_by_name(set, deployment) && view.candidate.is_none() {
                    view.candidate = Some(candidate(set, alive, Owner::Deployment));
                }
            }
            // Ours goes before one that was adopted in an earlier life of the revision.
            owner if current => view.candidate = Some(candidate(set, alive, owner)),
            _ => view.leftovers.push(set.meta.name.clone()),
        }
    }
    view.running = running.into_values().collect();
    view
}

/// Every ReplicaSet that runs pods of this Deployment, with its controller.
fn sets<'a>(
    deployment: &'a DeploymentFacts,
    rollout_uid: &'a str,
    namespace: &'a Namespace,
) -> impl Iterator<Item = (&'a ReplicaSetFacts, Owner)> {
    let sets = namespace.replica_sets.iter().map(AsRef::as_ref);
    sets.filter(|set: &&ReplicaSetFacts| !set.meta.deleting)
        .filter_map(move |set| Some((set, owner(set, deployment, rollout_uid)?)))
}

/// Our ReplicaSets of this Deployment, in whoever's hands: those that the MeshRollout of this
/// uid controls, those between release and adoption, and adopted ones that have pods.
#[must_use]
pub fn candidate_sets<'a>(
    deployment: &'a DeploymentFacts,
    rollout_uid: &'a str,
    namespace: &'a Namespace,
) -> Vec<(&'a ReplicaSetFacts, Owner)> {
    sets(deployment, rollout_uid, namespace)
        .filter(|(set, owner)| {
            *owner != Owner::Deployment || (is_ours_by_name(set, deployment) && !set.empty())
        })
        .collect()
}

/// Who controls a ReplicaSet of this Deployment; none: it is somebody else's.
fn owner(set: &ReplicaSetFacts, deployment: &DeploymentFacts, rollout_uid: &str) -> Option<Owner> {
    if set.meta.owned_by("Deployment", &deployment.meta.uid) {
        return Some(Owner::Deployment);
    }
    if !is_ours_by_name(set, deployment) {
        return None;
    }
    if set.meta.owned_by("MeshRollout", rollout_uid) {
        return Some(Owner::Rollout);
    }
    set.meta.owner.is_none().then_some(Owner::Nobody)
}

fn is_ours_by_name(set: &ReplicaSetFacts, deployment: &DeploymentFacts) -> bool {
    let rest = set.meta.name.strip_prefix(&deployment.meta.name);
    rest.is_some_and(|rest| rest.starts_with(INFIX))
}

fn by_owner(namespace: &Namespace) -> PodsByOwner<'_> {
    let mut pods = PodsByOwner::new();
    for pod in namespace.pods.iter().filter(|pod| pod.lives()) {
        if let Some(owner) = &pod.meta.owner {
            pods.entry(owner.uid.as_str()).or_default().push(pod);
        }
    }
    pods
}

fn pods_of<'a>(pods: &'a PodsByOwner<'a>, set: &ReplicaSetFacts) -> &'a [&'a PodFacts] {
    pods.get(set.meta.uid.as_str()).map_or(&[], Vec::as_slice)
}

fn count(running: &mut RunningRevision, set: &ReplicaSetFacts, pods: &[&PodFacts]) {
    running.revision.clone_from(&set.revision);
    running.pod_hashes.push(set.pod_hash.clone());
    running.pods += length(pods.iter());
    running.ready += length(pods.iter().filter(|pod| pod.ready));
}

fn candidate(set: &ReplicaSetFacts, pods: &[&PodFacts], owner: Owner) -> CandidateView {
    CandidateView {
        revision: set.revision.clone(),
        pod_hash: set.pod_hash.clone(),
        owner,
        replicas: set.replicas,
        pods: length(pods.iter()),
        named: pods
            .iter()
            .map(|pod| candidate_pod(pod, pod.containers_ready))
            .collect(),
        containers_ready: length(pods.iter().filter(|pod| pod.containers_ready)),
        ready: length(pods.iter().filter(|pod| pod.ready)),
        ungated: length(pods.iter().filter(|pod| !pod.gated)),
        trouble: set
            .failure
            .clone()
            .or_else(|| pods.iter().find_map(|pod| pod.trouble.clone())),
        unready: pods.iter().find_map(|pod| pod.unready.clone()),
    }
}

/// A pod of the candidate.
pub(super) fn candidate_pod(pod: &PodFacts, can_serve: bool) -> CandidatePod {
    CandidatePod {
        name: pod.meta.name.clone(),
        can_serve,
    }
}

fn length(pods: impl Iterator) -> i32 {
    i32::try_from(pods.count()).unwrap_or(i32::MAX)
}
