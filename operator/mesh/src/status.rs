//! What the world says about its objects.

use crate::{World, facts::ObjectKey};

/// How a split stands with one of its Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It holds.
    InForce,
    /// An older split holds.
    Overruled {
        /// That one.
        by: ObjectKey,
    },
    /// There is no such Service.
    NoService,
}

/// Two splits for one Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SplitConflict {
    /// The Service.
    pub service: ObjectKey,
    /// The older split, which holds.
    pub winner: ObjectKey,
    /// The younger one, which has no effect on this Service.
    pub loser: ObjectKey,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Services.
    pub services: usize,
    /// EndpointSlices.
    pub slices: usize,
    /// Pods.
    pub pods: usize,
    /// Sets of labels and account that pods share.
    pub templates: usize,
    /// TrafficSplits.
    pub splits: usize,
    /// Resources compiled and kept.
    pub compiled: usize,
    /// Changes since the start.
    pub generation: u64,
}

impl World {
    /// How a split stands, for each Service it names; none when it is not known.
    #[must_use]
    pub fn split_status(&self, split: &ObjectKey) -> Option<Vec<(ObjectKey, Standing)>> {
        let facts = self.splits.get(split)?;
        let standing = |service: ObjectKey| {
            let standing = match self.split(&service) {
                _ if !self.services.contains_key(&service) => Standing::NoService,
                Some(winner) if winner.key != *split => Standing::Overruled {
                    by: winner.key.clone(),
                },
                _ => Standing::InForce,
            };
            (service, standing)
        };
        Some(facts.services().map(standing).collect())
    }

    /// All Services that more than one split names, sorted.
    #[must_use]
    pub fn split_conflicts(&self) -> Vec<SplitConflict> {
        let mut conflicts = Vec::new();
        for (service, splits) in &self.splits_of {
            let mut splits = splits.values();
            let Some(winner) = splits.next() else {
                continue;
            };
            conflicts.extend(splits.map(|loser| SplitConflict {
                service: service.clone(),
                winner: winner.key.clone(),
                loser: loser.key.clone(),
            }));
        }
        conflicts.sort_unstable();
        conflicts
    }

    /// How much there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            services: self.services.len(),
            slices: self.slices.len(),
            pods: self.pods.len(),
            templates: self.templates.len(),
            splits: self.splits.len(),
            compiled: self.compiled.lock().len(),
            generation: self.generation,
        }
    }
}
