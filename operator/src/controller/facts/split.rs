//! TrafficSplits, one for each MeshRollout.

use sluice_crds::TrafficSplit;

use super::{Meta, Packed};

/// A TrafficSplit: what every look asks for, and the whole.
#[derive(Clone, Debug)]
pub struct SplitFacts {
    /// What every object has.
    pub meta: Meta,
    /// `spec.fence`.
    pub fence: i64,
    /// `spec.services`.
    pub services: Vec<String>,
    /// The candidate revision that it gives a weight.
    pub sends_to: Option<String>,
    object: Packed<TrafficSplit>,
}

impl SplitFacts {
    /// Keeps a TrafficSplit.
    #[must_use]
    pub fn of(mut object: TrafficSplit) -> Self {
        object.metadata.managed_fields = None;
        let spec = &object.spec;
        Self {
            meta: Meta::of(&object.metadata),
            fence: spec.fence,
            services: spec.services.clone(),
            sends_to: (spec.candidate_weight() > 0).then(|| spec.revision.clone()),
            object: Packed::of(&object),
        }
    }

    /// The object, without managedFields.
    #[must_use]
    pub fn object(&self) -> TrafficSplit {
        self.object.open()
    }
}
