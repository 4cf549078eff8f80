//! MeshRollouts, of which there may be ten thousand.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use sluice_crds::{MeshRollout, MeshRolloutSpec, MeshRolloutStatus, names};

use super::{Meta, Packed};

/// A MeshRollout, whole but for metadata that nobody reads.
#[derive(Clone, Debug)]
pub struct RolloutFacts {
    /// What every object has.
    pub meta: Meta,
    /// `spec`.
    pub spec: MeshRolloutSpec,
    /// The annotation `sluice.dev/command`; empty: nobody says anything.
    pub command: String,
    /// `status.state`, as JSON.
    pub state: Option<Box<str>>,
    /// The status without the state.
    status: Option<Packed<MeshRolloutStatus>>,
}

impl RolloutFacts {
    /// Keeps a MeshRollout.
    #[must_use]
    pub fn of(object: MeshRollout) -> Self {
        let meta = Meta::of(&object.metadata);
        let annotations = object.metadata.annotations.as_ref();
        let command = annotations.and_then(|all| all.get(names::COMMAND));
        let mut status = object.status;
        let state = status.as_mut().and_then(|status| status.state.take());
        Self {
            meta,
            command: command.cloned().unwrap_or_default(),
            state: state.map(|state| state.to_string().into()),
            status: status.as_ref().map(Packed::of),
            spec: object.spec,
        }
    }

    /// The status, with the state.
    #[must_use]
    pub fn status(&self) -> Option<MeshRolloutStatus> {
        let mut status = self.status.as_ref()?.open();
        let state = self.state.as_deref();
        status.state = state.and_then(|state| serde_json::from_str(state).ok());
        Some(status)
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
            spec: self.spec.clone(),
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
