//! MeshRollouts, of which there may be ten thousand.

use sluice_crds::{MeshRollout, names};

use super::Meta;

/// A MeshRollout, whole but for metadata that nobody reads.
#[derive(Clone, Debug)]
pub struct RolloutFacts {
    /// What every object has.
    pub meta: Meta,
    /// The object; its status without the state.
    pub object: MeshRollout,
    /// `status.state`, as JSON: as a tree it would take ten times as much.
    pub state: Option<Box<str>>,
}

impl RolloutFacts {
    /// Keeps a MeshRollout.
    #[must_use]
    pub fn of(mut object: MeshRollout) -> Self {
        let meta = Meta::of(&object.metadata);
        // What is written back is the status alone: the apiserver keeps to its own metadata.
        object.metadata.managed_fields = None;
        object.metadata.labels = None;
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.retain(|name, _| name == names::COMMAND);
        }
        let state = object.status.as_mut().and_then(|s| s.state.take());
        Self {
            meta,
            state: state.map(|state| state.to_string().into()),
            object,
        }
    }

    /// The object with its state.
    #[must_use]
    pub fn whole(&self) -> MeshRollout {
        let mut object = self.object.clone();
        if let (Some(status), Some(state)) = (&mut object.status, &self.state) {
            status.state = serde_json::from_str(state).ok();
        }
        object
    }
}
