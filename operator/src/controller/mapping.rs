//! Whom a change concerns: from an object to the MeshRollouts that depend on it.

use std::collections::BTreeSet;

use super::{
    facts::{Key, Meta, PodFacts},
    watches::World,
};

/// Label of the operator's own pods that says their role.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Its value on the replicas that serve proxies.
pub const SERVING: &str = "serving";
/// What stands between the Deployment's name and the hash in the name of a candidate ReplicaSet.
pub const INFIX: &str = "-sluice-";

/// The Deployment that a candidate ReplicaSet of this name is for.
#[must_use]
pub fn workload_of(replica_set: &str) -> Option<&str> {
    replica_set
        .rsplit_once(INFIX)
        .map(|(deployment, _)| deployment)
}

/// All MeshRollouts of the namespace: a change of one may end or begin a conflict of another.
#[must_use]
pub fn of_rollout(world: &World, meta: &Meta) -> Vec<Key> {
    let mut keys = of_namespace(world, &meta.namespace);
    keys.push(meta.key());
    keys
}

/// All MeshRollouts of the namespace.
#[must_use]
pub fn of_namespace(world: &World, namespace: &str) -> Vec<Key> {
    world
        .rollouts
        .within(namespace)
        .iter()
        .map(|rollout| rollout.meta.key())
        .collect()
}

/// Those that govern this Deployment, and those in mode B, whose subsets may be of any workload.
#[must_use]
pub fn of_workload(world: &World, namespace: &str, deployment: &str) -> Vec<Key> {
    let rollouts = world.rollouts.within(namespace);
    let concerned = rollouts.iter().filter(|rollout| {
        let workload = rollout.workload.as_ref();
        workload.is_none_or(|workload| workload.name == deployment)
    });
    concerned.map(|rollout| rollout.meta.key()).collect()
}

/// Those of the ReplicaSet's owner; without one, those of the Deployment that its name tells.
#[must_use]
pub fn of_replica_set(world: &World, meta: &Meta) -> Vec<Key> {
    match &meta.owner {
        Some(owner) if owner.kind == "Deployment" => {
            of_workload(world, &meta.namespace, &owner.name)
        }
        Some(owner) if owner.kind == "MeshRollout" => {
            vec![Key {
                namespace: meta.namespace.clone(),
                name: owner.name.clone(),
            }]
        }
        _ => workload_of(&meta.name)
            .map(|deployment| of_workload(world, &meta.namespace, deployment))
            .unwrap_or_default(),
    }
}

/// Those of the pod's ReplicaSet; all of the namespace when it is not known; all there are when
/// the pod is a serving replica of ours.
#[must_use]
pub fn of_pod(world: &World, own_namespace: &str, pod: &PodFacts) -> Vec<Key> {
    if is_serving(own_namespace, &pod.meta) {
        return world.rollouts.keys();
    }
    let namespace = &pod.meta.namespace;
    let owner = pod
        .meta
        .owner
        .as_ref()
        .filter(|owner| owner.kind == "ReplicaSet");
    match owner.and_then(|owner| world.replica_sets.get(namespace, &owner.name)) {
        Some(set) => of_replica_set(world, &set.meta),
        None => of_namespace(world, namespace),
    }
}

/// Those whose split is of one of these services (`NAMESPACE/NAME`).
#[must_use]
pub fn of_services(world: &World, services: &BTreeSet<String>) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for service in services {
        let Some((namespace, name)) = service.split_once('/') else {
            continue;
        };
        let splits = world.splits.within(namespace);
        let about = splits
            .iter()
            .filter(|s| s.services.iter().any(|n| n == name));
        keys.extend(about.map(|split| split.meta.key()));
    }
    keys
}

/// Whether a pod is a serving replica of ours.
#[must_use]
pub fn is_serving(own_namespace: &str, pod: &Meta) -> bool {
    pod.namespace == own_namespace && pod.labels.get(COMPONENT).is_some_and(|c| c == SERVING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures::{Build, pod, replica_set, rollout, rollout_of_versions};

    fn names(keys: Vec<Key>) -> Vec<String> {
        keys.into_iter().map(|key| key.name).collect()
    }

    fn world() -> World {
        let world = World::default();
        world.rollouts.put(rollout("web", "web-deployment"));
        world.rollouts.put(rollout("api", "api-deployment"));
        world.rollouts.put(rollout_of_versions("pair", &["svc"]));
        world
    }

    #[test]
    fn a_deployment_concerns_its_own_rollout_and_those_of_subsets() {
        assert_eq!(
            names(of_workload(&world(), "shop", "web-deployment")),
            ["pair", "web"]
        );
        assert!(of_workload(&world(), "elsewhere", "web-deployment").is_empty());
    }

    #[test]
    fn a_replica_set_concerns_the_rollout_of_its_owner() {
        let native = replica_set("web-deployment-77").owned("Deployment", "web-deployment");
        assert_eq!(
            names(of_replica_set(&world(), &native.meta)),
            ["pair", "web"]
        );
        let ours = replica_set("web-deployment-sluice-1").owned("MeshRollout", "web");
        assert_eq!(names(of_replica_set(&world(), &ours.meta)), ["web"]);
        let released = replica_set("api-deployment-sluice-1");
        assert_eq!(
            names(of_replica_set(&world(), &released.meta)),
            ["api", "pair"]
        );
    }

    #[test]
    fn a_pod_concerns_the_rollout_of_its_replica_set() {
        let world = world();
        world
            .replica_sets
            .put(replica_set("api-deployment-1").owned("Deployment", "api-deployment"));
        let api = pod("api-deployment-1-x").owned("ReplicaSet", "api-deployment-1");
        assert_eq!(
            names(of_pod(&world, "sluice-system", &api)),
            ["api", "pair"]
        );
        let stray = pod("stray");
        assert_eq!(
            names(of_pod(&world, "sluice-system", &stray)),
            ["api", "pair", "web"]
        );
    }

    #[test]
    fn a_serving_replica_concerns_everybody() {
        let mut serving = pod("sluice-serving-1").labelled(COMPONENT, SERVING);
        serving.meta.namespace = "sluice-system".to_owned();
        assert_eq!(of_pod(&world(), "sluice-system", &serving).len(), 3);
    }
}
