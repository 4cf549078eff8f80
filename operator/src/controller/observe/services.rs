//! Which Services a MeshRollout splits.

use crate::controller::{facts::RolloutFacts, watches::Namespace};

/// The Services to be split: those that the spec names, or all whose selector takes the pods of
/// the Deployment's template; sorted.
#[must_use]
pub fn services_of(rollout: &RolloutFacts, namespace: &Namespace) -> Vec<String> {
    if let Some(named) = &rollout.services {
        let mut named = named.clone();
        named.sort();
        named.dedup();
        return named;
    }
    let name = rollout
        .workload
        .as_ref()
        .map(|workload| workload.name.as_str());
    let deployment = namespace
        .deployments
        .iter()
        .find(|d| Some(d.meta.name.as_str()) == name);
    let Some(deployment) = deployment else {
        return Vec::new();
    };
    let taken = namespace
        .services
        .iter()
        .filter(|s| s.takes(&deployment.template_labels));
    // `within` gives them sorted by name.
    taken.map(|service| service.meta.name.clone()).collect()
}

/// The Services to be split that exist, and those that do not.
pub(super) fn resolve(rollout: &RolloutFacts, namespace: &Namespace) -> (Vec<String>, Vec<String>) {
    let exists = |name: &String| namespace.services.iter().any(|s| s.meta.name == *name);
    services_of(rollout, namespace)
        .into_iter()
        .partition(exists)
}
