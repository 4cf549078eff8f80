//! What the webhooks decide from.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use sluice_crds::{Mesh, MeshRollout};
use sluice_inject::{Resources, Settings};
use tokio::{sync::Notify, task::JoinSet};

use super::hold::Governance;
use crate::stores;

/// The objects that the webhooks decide from.
#[derive(Clone)]
pub struct Caches {
    rollouts: Store<MeshRollout>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    meshes: Store<Mesh>,
}

impl Caches {
    /// Starts the watches, which run until `tasks` is dropped.
    #[must_use]
    pub fn follow(client: &Client, tasks: &mut JoinSet<()>) -> Self {
        // Nobody waits for a change: each answer takes what is there.
        let wake = Arc::new(Notify::new());
        let config = watcher::Config::default;
        let all = client.clone();
        Self {
            rollouts: stores::follow(Api::all(all.clone()), config(), prune_rollout, &wake, tasks),
            namespaces: stores::namespaces(client, &wake, tasks),
            meshes: stores::follow(
                Api::all(all),
                config(),
                |mesh: &mut Mesh| mesh.metadata.managed_fields = None,
                &wake,
                tasks,
            ),
        }
    }

    #[cfg(test)]
    pub(super) fn of(
        rollouts: Store<MeshRollout>,
        namespaces: Store<PartialObjectMeta<Namespace>>,
        meshes: Store<Mesh>,
    ) -> Self {
        Self {
            rollouts,
            namespaces,
            meshes,
        }
    }

    /// Returns when all watches have their first whole list, or are gone.
    pub async fn synced(&self) {
        let _ = self.rollouts.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.meshes.wait_until_ready().await;
    }

    /// Who governs a Deployment. Of several MeshRollouts the oldest does.
    pub(super) fn governance(&self, namespace: &str, deployment: &str) -> Governance {
        let mut rollouts = self.rollouts_of(namespace);
        rollouts.retain(|rollout| {
            let workload = rollout.spec.workload.as_ref();
            workload.is_some_and(|workload| workload.name == deployment)
        });
        let oldest = rollouts.iter().min_by_key(|rollout| {
            let created = rollout
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0);
            (created, rollout.name_any())
        });
        match oldest {
            None => Governance::Nobody,
            Some(rollout) => Governance::of(rollout),
        }
    }

    /// Whether some rollout of the namespace serves, as stable, the revision that begins so.
    pub(super) fn is_stable(&self, namespace: &str, revision_prefix: &str) -> bool {
        self.rollouts_of(namespace).iter().any(|rollout| {
            let stable = rollout
                .status
                .as_ref()
                .and_then(|status| status.stable.as_ref());
            stable.is_some_and(|stable| stable.revision.starts_with(revision_prefix))
        })
    }

    /// Labels of a namespace; none when it is unknown.
    pub(super) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces
            .get(&ObjectRef::new(namespace))
            .map(|namespace| namespace.labels().clone())
            .unwrap_or_default()
    }

    /// The defaults of this release, with what the Mesh named `default` says instead.
    pub(super) fn settings(&self, defaults: &Settings) -> Settings {
        let mut settings = defaults.clone();
        let Some(mesh) = self.meshes.get(&ObjectRef::new("default")) else {
            return settings;
        };
        if let Some(image) = &mesh.spec.proxy.image {
            settings.image.clone_from(image);
        }
        if let Some(wanted) = &mesh.spec.proxy.resources {
            let Resources {
                cpu_request,
                memory_request,
                memory_limit,
            } = settings.resources;
            settings.resources = Resources {
                cpu_request: wanted.cpu_request.clone().unwrap_or(cpu_request),
                memory_request: wanted.memory_request.clone().unwrap_or(memory_request),
                memory_limit: wanted.memory_limit.clone().or(memory_limit),
            };
        }
        settings
    }

    fn rollouts_of(&self, namespace: &str) -> Vec<Arc<MeshRollout>> {
        self.rollouts.state_filter(|rollout| {
            rollout.metadata.namespace.as_deref() == Some(namespace)
                && rollout.metadata.deletion_timestamp.is_none()
        })
    }
}

/// Which revision is stable and which was rejected is all that is read.
fn prune_rollout(rollout: &mut MeshRollout) {
    rollout.metadata.managed_fields = None;
    rollout.metadata.annotations = None;
    if let Some(status) = &mut rollout.status {
        status.state = None;
        status.history = Vec::new();
        status.conditions = Vec::new();
    }
}
