//! MeshRollouts, of which there may be ten thousand.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde_json::Value;
use sluice_crds::{MeshRollout, MeshRolloutSpec, MeshRolloutStatus, Versions, WorkloadRef, names};

use super::{Meta, Packed};

/// A MeshRollout: what others ask about it, and the whole but for metadata that nobody reads.
#[derive(Clone, Debug)]
pub struct RolloutFacts {
    /// What every object has.
    pub meta: Meta,
    /// `spec.workload`.
    pub workload: Option<WorkloadRef>,
    /// `spec.versions`.
    pub versions: Option<Versions>,
    /// `spec.services`.
    pub services: Option<Vec<String>>,
    /// The annotation `sluice.dev/command`; empty: nobody says anything.
    pub command: String,
    object: Packed<MeshRollout>,
}

impl RolloutFacts {
    /// Keeps a MeshRollout.
    #[must_use]
    pub fn of(mut object: MeshRollout) -> Self {
        let metadata = std::mem::take(&mut object.metadata);
        let annotations = metadata.annotations.as_ref();
        let command = annotations.and_then(|all| all.get(names::COMMAND));
        Self {
            meta: Meta::of(&metadata),
            workload: object.spec.workload.clone(),
            versions: object.spec.versions.clone(),
            services: object.spec.services.clone(),
            command: command.cloned().unwrap_or_default(),
            object: Packed::of(&object),
        }
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> MeshRolloutSpec {
        self.object.open().spec
    }

    /// The status, with the state.
    #[must_use]
    pub fn status(&self) -> Option<MeshRolloutStatus> {
        self.object.open().status
    }

    /// `status.state`.
    #[must_use]
    pub fn state(&self) -> Option<Value> {
        self.status()?.state
    }

    /// The object with this status, to be written in its place. The apiserver keeps to its own
    /// metadata and spec where a status is written.
    #[must_use]
    pub fn with(&self, status: Option<MeshRolloutStatus>) -> MeshRollout {
        MeshRollout {
            metadata: ObjectMeta {
                name: Some(self.meta.name.clone()),
                namespace: Some(self.meta.namespace.clone()),
                uid: Some(self.meta.uid.clone()),
                resource_version: Some(self.meta.version.clone()),
                ..ObjectMeta::default()
            },
            spec: self.spec(),
            status,
        }
    }

    /// For an event about it.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        let (version, kind) = (MeshRollout::api_version(&()), MeshRollout::kind(&()));
        self.meta.reference(&version, &kind)
    }
}
