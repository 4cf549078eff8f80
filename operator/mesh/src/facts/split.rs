//! What is kept of a TrafficSplit.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sluice_crds::{SplitArm, TrafficSplit, TrafficSplitSpec};
use sluice_xds::names::Arm;

use super::ObjectKey;

/// A split. Of two that name one Service, the smaller by [`Self::age`] holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SplitFacts {
    pub key: ObjectKey,
    pub created: Option<Time>,
    pub spec: TrafficSplitSpec,
    /// Whether an eject overrides it.
    pub ejected: bool,
}

/// The order of splits: by creation, then name. One without a creation time is the youngest.
pub(crate) type SplitAge = (bool, Option<Time>, String);

impl SplitFacts {
    pub(crate) fn of(split: &TrafficSplit) -> Option<Self> {
        Some(Self {
            key: ObjectKey::of(&split.metadata)?,
            created: split.metadata.creation_timestamp.clone(),
            spec: split.spec.clone(),
            ejected: false,
        })
    }

    pub(crate) fn age(&self) -> SplitAge {
        let created = self.created.clone();
        (created.is_none(), created, self.key.name.clone())
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = ObjectKey> {
        let names = self.spec.services.iter();
        names.map(|name| ObjectKey::new(&self.key.namespace, name))
    }

    /// The fence that its routes carry: none while the candidate is ejected, so that nobody
    /// counts as routing by the split, and nothing seen meanwhile as evidence under its fence.
    pub(crate) fn fence(&self) -> i64 {
        if self.ejected {
            return 0;
        }
        self.spec.fence
    }

    /// The candidate's weight in force, in percent; stable has the rest of 100.
    pub(crate) fn candidate_weight(&self) -> u32 {
        if self.ejected {
            return 0;
        }
        self.spec.candidate_weight().clamp(0, 100).unsigned_abs()
    }

    /// The arm of a pod with these labels.
    pub(crate) fn arm_of(&self, labels: &BTreeMap<String, String>) -> Arm {
        Arm::parse(self.spec.arm_of(labels)).unwrap_or(Arm::Stable)
    }

    /// Whether pods of this arm count while only their containers are ready.
    pub(crate) fn includes_gated(&self, arm: Arm) -> bool {
        self.arm(arm).is_some_and(|arm| arm.include_gated)
    }

    /// Whether a pod of this arm gets no requests.
    pub(crate) fn excludes(&self, arm: Arm, pod: &ObjectKey) -> bool {
        let excluded = self.arm(arm).map_or(&[][..], |arm| &arm.excluded_pods);
        pod.namespace == self.key.namespace && excluded.contains(&pod.name)
    }

    fn arm(&self, arm: Arm) -> Option<&SplitArm> {
        let mut arms = self.spec.arms.iter();
        arms.find(|one| one.name == arm.as_str())
    }

    /// Whether both put every pod into the same arm.
    pub(crate) fn selects_as(&self, other: &Self) -> bool {
        fn selection(split: &SplitFacts) -> impl Iterator<Item = SplitArm> {
            let arms = split.spec.arms.iter();
            arms.map(|arm| SplitArm {
                weight: 0,
                ..arm.clone()
            })
        }
        selection(self).eq(selection(other))
    }
}
