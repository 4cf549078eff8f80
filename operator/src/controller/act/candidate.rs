//! The candidate ReplicaSet: from its first pod to adoption or removal.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice_crds::names;
use sluice_rollout::{
    desired::DesiredCandidate,
    observation::Owner,
    revision::{candidate_pod_hash, of_template},
};

use super::{ActError, REQUEST, Writer, answer, params, split::exactly, template};
use crate::controller::{
    facts::{DeploymentFacts, MANAGER, ReplicaSetFacts},
    mapping::workload_of,
    observe::candidate_sets,
    seen::Kind,
    watches::Namespace,
};

/// The longest that the gate's proof may take: it asks every webhook on pods, also those of
/// others, each of which may take its time.
const PROBE: Duration = Duration::from_secs(15);
/// The Deployment controller's own record of how many pods it wants.
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";

/// Takes our marks off: without an owner the Deployment adopts the ReplicaSet. The annotation
/// tells its controller that the ReplicaSet is saturated (`IsSaturated` in its `scale`), so that
/// it scales the old one down at once and makes no surge pod first.
fn release(replicas: i32) -> Value {
    json!({"metadata": {
        "ownerReferences": null,
        "labels": {names::ROLLOUT: null},
        "annotations": {DESIRED_REPLICAS: replicas.to_string()},
    }})
}

/// ReplicaSets that the MeshRollout of this uid has made for another Deployment.
fn elsewhere<'a>(
    namespace: &'a Namespace,
    rollout_uid: &'a str,
    governed: Option<&'a DeploymentFacts>,
) -> impl Iterator<Item = &'a ReplicaSetFacts> {
    let sets = namespace.replica_sets.iter().map(AsRef::as_ref);
    sets.filter(move |set: &&ReplicaSetFacts| {
        let workload = workload_of(&set.meta.name);
        let is_governed = governed.is_some_and(|d| workload == Some(d.meta.name.as_str()));
        set.meta.owned_by("MeshRollout", rollout_uid) && !set.meta.deleting && !is_governed
    })
}

impl Writer<'_> {
    /// Makes, sizes, hands over or removes our ReplicaSet. `leaving`: revisions that proxies may
    /// send requests though git wants another; their pods stay.
    pub async fn candidate(
        &self,
        deployment: &DeploymentFacts,
        desired: Option<&DesiredCandidate>,
        leaving: &[&str],
    ) -> Result<(), ActError> {
        let sets = candidate_sets(deployment, &self.rollout.meta.uid, self.namespace);
        let wanted = |set: &ReplicaSetFacts| desired.is_some_and(|d| d.revision == set.revision);
        for (set, owner) in &sets {
            let stays = wanted(set) || leaving.contains(&set.revision.as_str());
            if *owner != Owner::Deployment && !stays {
                self.delete_set(set).await?;
            }
        }
        let Some(desired) = desired else {
            if !leaving.is_empty() {
                return Ok(());
            }
            return self.webhooks.ungate(&self.key()).await;
        };
        if deployment.revision != desired.revision {
            return Ok(());
        }
        // One of ours goes before an adopted one of an earlier life of the revision.
        let ours = |owner: &Owner| *owner != Owner::Deployment;
        let found = sets
            .iter()
            .filter(|(set, _)| wanted(set))
            .max_by_key(|(_, owner)| ours(owner));
        match found {
            None => self.create_set(deployment, desired).await,
            Some((set, Owner::Rollout)) => self.keep_set(set, deployment, desired).await,
            // The Deployment's controller takes it within moments, or has taken it.
            Some((_, Owner::Nobody | Owner::Deployment)) => self.webhooks.ungate(&self.key()).await,
        }
    }

    /// Of a workload that is not governed any more, because it is gone or because the spec names
    /// another, the candidate goes; as above, once proxies have left it.
    pub async fn candidates_elsewhere(
        &self,
        governed: Option<&DeploymentFacts>,
        leaving: &[&str],
    ) -> Result<(), ActError> {
        for set in elsewhere(self.namespace, &self.rollout.meta.uid, governed) {
            if !leaving.contains(&set.revision.as_str()) {
                self.delete_set(set).await?;
            }
        }
        if governed.is_some() || !leaving.is_empty() {
            return Ok(());
        }
        self.webhooks.ungate(&self.key()).await
    }

    async fn keep_set(
        &self,
        set: &ReplicaSetFacts,
        deployment: &DeploymentFacts,
        desired: &DesiredCandidate,
    ) -> Result<(), ActError> {
        self.gate_or_open(set, desired).await?;
        if set.replicas != desired.replicas {
            let patch = json!({"spec": {"replicas": desired.replicas}});
            let what = format!(
                "scaling ReplicaSet {} to {}",
                set.meta.name, desired.replicas
            );
            return self.patch_set(set, what, patch).await;
        }
        if !desired.adopt {
            return Ok(());
        }
        let mut twins = false;
        for twin in self.empty_twins(deployment) {
            self.delete_set(twin).await?;
            twins = true;
        }
        if twins {
            // Ours is released when the caches show that they are gone.
            return Ok(());
        }
        if set.available < deployment.replicas {
            return Ok(());
        }
        let what = format!("giving ReplicaSet {} to its Deployment", set.meta.name);
        self.patch_set(set, what, release(deployment.replicas))
            .await
    }

    /// Pods made from now on are gated, or made without a gate while the gates of those that
    /// there are open. A revision that is taken back leaves plain Service clients first.
    async fn gate_or_open(
        &self,
        set: &ReplicaSetFacts,
        desired: &DesiredCandidate,
    ) -> Result<(), ActError> {
        if desired.gates_open {
            self.webhooks.ungate(&self.key()).await?;
            return self.set_gates(set, true).await;
        }
        self.set_gates(set, false).await?;
        self.webhooks.gate(&self.key(), &set.pod_hash).await
    }

    async fn create_set(
        &self,
        deployment: &DeploymentFacts,
        desired: &DesiredCandidate,
    ) -> Result<(), ActError> {
        let name = template::name(&deployment.meta.name, &desired.revision);
        let mut sets = self.namespace.replica_sets.iter();
        if let Some(taken) = sets.find(|set| set.meta.name == name) {
            return self.make_room(taken, deployment).await;
        }
        let source = self.fresh_deployment(deployment, &desired.revision).await?;
        if desired.gates_open {
            self.webhooks.ungate(&self.key()).await?;
        } else {
            self.webhooks
                .gate(&self.key(), &candidate_pod_hash(&desired.revision))
                .await?;
            self.prove_gate(&source, &desired.revision).await?;
        }
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let set = template::replica_set(
            &resource,
            &source,
            &self.rollout.meta,
            &desired.revision,
            desired.replicas,
        );
        let api = self.dynamic(&resource);
        let what = format!("creating ReplicaSet {name}");
        let request = async { api.create(&params(), &set).await };
        self.send(Kind::ReplicaSet, what, request).await.map(|_| ())
    }

    /// The name is taken: by a revision that was promoted before and has no pods any more, which
    /// goes; or by somebody.
    async fn make_room(
        &self,
        taken: &ReplicaSetFacts,
        deployment: &DeploymentFacts,
    ) -> Result<(), ActError> {
        if taken.meta.owned_by("Deployment", &deployment.meta.uid) && taken.empty() {
            return self.delete_set(taken).await;
        }
        let owner = taken.meta.owner.as_ref();
        let owner = owner.map_or("nobody".to_owned(), |o| format!("{} {}", o.kind, o.name));
        Err(ActError::Waits(format!(
            "ReplicaSet {} stands in the way of the candidate; it is controlled by {owner}: delete it, or wait until it is gone",
            taken.meta.name
        )))
    }

    /// The Deployment as it stands now, if it still has the template that was decided upon.
    async fn fresh_deployment(
        &self,
        deployment: &DeploymentFacts,
        revision: &str,
    ) -> Result<DynamicObject, ActError> {
        let name = &deployment.meta.name;
        let what = format!("reading Deployment {name}");
        let api = self.dynamic(&ApiResource::erase::<Deployment>(&()));
        let fresh = answer(what.clone(), REQUEST, api.get(name)).await?;
        let same = fresh.metadata.uid.as_deref() == Some(&*deployment.meta.uid)
            && of_template(&fresh.data["spec"]["template"]) == revision;
        if same {
            Ok(fresh)
        } else {
            Err(ActError::Conflict(what))
        }
    }

    /// Asks for a pod of the template without making it: only when it comes back with the gate
    /// is the webhook in force, and the first real pod may be made.
    async fn prove_gate(&self, source: &DynamicObject, revision: &str) -> Result<(), ActError> {
        let hash = candidate_pod_hash(revision);
        let namespace = &self.rollout.meta.namespace;
        if self.webhooks.is_proved(namespace, &hash) {
            return Ok(());
        }
        let resource = ApiResource::erase::<Pod>(&());
        let pod = template::probe(&resource, source, namespace, revision);
        let dry_run = PostParams {
            dry_run: true,
            field_manager: Some(MANAGER.to_owned()),
        };
        let what = "trying whether candidate pods are gated (a dry run)".to_owned();
        let api = self.dynamic(&resource);
        let made = answer(what, PROBE, api.create(&dry_run, &pod)).await?;
        let gates = made.data["spec"]["readinessGates"]
            .as_array()
            .into_iter()
            .flatten();
        if !{ gates }.any(|gate| gate["conditionType"] == names::PROMOTED_GATE) {
            return Err(ActError::Waits(format!(
                "candidate pods ({hash}) would not be gated yet: the webhook {} is not in force at the apiserver; no pod is made until it is",
                crate::controller::webhooks::GATE
            )));
        }
        self.webhooks.proved(namespace, &hash);
        Ok(())
    }

    fn empty_twins(&self, deployment: &DeploymentFacts) -> impl Iterator<Item = &ReplicaSetFacts> {
        let sets = self.namespace.replica_sets.iter().map(AsRef::as_ref);
        sets.filter(|set: &&ReplicaSetFacts| {
            set.meta.owned_by("Deployment", &deployment.meta.uid)
                && set.revision == deployment.revision
                && set.empty()
                && !set.meta.deleting
        })
    }

    async fn patch_set(
        &self,
        set: &ReplicaSetFacts,
        what: String,
        mut patch: Value,
    ) -> Result<(), ActError> {
        patch["metadata"]["uid"] = json!(set.meta.uid);
        patch["metadata"]["resourceVersion"] = json!(set.meta.version);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.sets();
        let request = async {
            api.patch(&set.meta.name, &params, &Patch::Merge(&patch))
                .await
        };
        self.send(Kind::ReplicaSet, what, request).await.map(|_| ())
    }

    async fn delete_set(&self, set: &ReplicaSetFacts) -> Result<(), ActError> {
        let what = format!("deleting ReplicaSet {}", set.meta.name);
        let params = DeleteParams::background().preconditions(exactly(&set.meta));
        let api = self.sets();
        let request = async { api.delete(&set.meta.name, &params).await };
        self.send_delete(Kind::ReplicaSet, what, &set.meta, request)
            .await
    }

    fn sets(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &self.rollout.meta.namespace)
    }

    fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.rollout.meta.namespace, resource)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::controller::fixtures::{Build, deployment, replica_set};

    #[test]
    fn what_was_made_for_another_deployment_is_found_and_nothing_else() {
        let sets = [
            replica_set("web-sluice-1").owned("MeshRollout", "shop"),
            replica_set("ratings-sluice-2").owned("MeshRollout", "shop"),
            replica_set("web-sluice-3").owned("MeshRollout", "other"),
            replica_set("web-4").owned("Deployment", "web"),
        ];
        let namespace = Namespace {
            replica_sets: sets.map(Arc::new).into(),
            ..Namespace::default()
        };
        let found = |governed: Option<&DeploymentFacts>| -> Vec<String> {
            let sets = elsewhere(&namespace, "shop", governed);
            sets.map(|set| set.meta.name.clone()).collect()
        };
        assert_eq!(found(Some(&deployment("web", "r1"))), ["ratings-sluice-2"]);
        assert_eq!(found(None), ["web-sluice-1", "ratings-sluice-2"]);
    }
}
