//! From the caches to an `Observation`: pure functions over plain inputs.

mod deployment;
mod services;
mod subsets;

pub use deployment::candidate_sets;
pub use services::services_of;

use sluice_rollout::observation::{
    EvidenceView, Observation, SplitView, UnheldAutoscaler, Workload,
};

use super::{facts::RolloutFacts, watches::Namespace};

/// What one look at the world shows of a MeshRollout.
#[must_use]
pub fn observe(
    rollout: &RolloutFacts,
    namespace: &Namespace,
    split: SplitView,
    evidence: EvidenceView,
) -> Observation {
    let (services, missing_services) = services::resolve(rollout, namespace);
    Observation {
        workload: workload(rollout, namespace, &services),
        conflict: conflict(rollout, namespace),
        services,
        missing_services,
        split,
        evidence,
        unheld: unheld(rollout, namespace),
        command: rollout.command.clone(),
    }
}

fn workload(rollout: &RolloutFacts, namespace: &Namespace, services: &[String]) -> Workload {
    if let Some(versions) = &rollout.versions {
        return subsets::view(versions, services, namespace)
            .map_or(Workload::Missing, Workload::Subsets);
    }
    let name = rollout
        .workload
        .as_ref()
        .map(|workload| workload.name.as_str());
    let mut deployments = namespace.deployments.iter();
    let deployment = deployments.find(|d| Some(d.meta.name.as_str()) == name && !d.meta.deleting);
    deployment.map_or(Workload::Missing, |deployment| {
        Workload::Deployment(deployment::view(deployment, &rollout.meta.uid, namespace))
    })
}

fn unheld(rollout: &RolloutFacts, namespace: &Namespace) -> Option<UnheldAutoscaler> {
    let workload = rollout.workload.as_ref()?;
    let mut autoscalers = namespace.autoscalers.iter();
    autoscalers.find_map(|autoscaler| {
        let manager = autoscaler.unheld_by()?;
        autoscaler.scales(&workload.name).then(|| UnheldAutoscaler {
            name: autoscaler.meta.name.clone(),
            manager: manager.to_owned(),
        })
    })
}

/// The oldest other MeshRollout, older than this one, that governs the same Deployment or splits
/// one of the same Services; of two that are equally old the first by name.
fn conflict(rollout: &RolloutFacts, namespace: &Namespace) -> Option<String> {
    let age = |r: &RolloutFacts| (r.meta.created, r.meta.name.clone());
    let own_services = services_of(rollout, namespace);
    let collides = |other: &RolloutFacts| {
        let (ours, theirs) = (&rollout.workload, &other.workload);
        let same_workload = match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.kind == theirs.kind && ours.name == theirs.name,
            _ => false,
        };
        same_workload
            || services_of(other, namespace)
                .iter()
                .any(|s| own_services.contains(s))
    };
    namespace
        .rollouts
        .iter()
        .filter(|other| other.meta.uid != rollout.meta.uid && !other.meta.deleting)
        .filter(|other| age(other) < age(rollout) && collides(other))
        .min_by_key(|other| age(other))
        .map(|other| other.meta.name.clone())
}

#[cfg(test)]
mod tests;
