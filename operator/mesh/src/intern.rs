//! One copy of facts that many objects share.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// Below this many values nothing is swept.
const MIN_SWEEP: usize = 256;

/// A set of shared values. Values nobody uses any more are swept when the set has doubled, so
/// that its size follows what is in use.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: Hash + Eq> Interner<T> {
    pub(crate) fn new() -> Self {
        Self {
            values: HashSet::new(),
            sweep_at: MIN_SWEEP,
        }
    }

    /// The shared copy of a value.
    pub(crate) fn intern(&mut self, value: T) -> Arc<T> {
        if let Some(shared) = self.values.get(&value) {
            return shared.clone();
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (self.values.len() * 2).max(MIN_SWEEP);
        }
        let shared = Arc::new(value);
        self.values.insert(shared.clone());
        shared
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_copy_and_unused_ones_are_swept() {
        let mut interner = Interner::new();
        let kept = interner.intern(7);
        assert!(Arc::ptr_eq(&kept, &interner.intern(7)));
        for value in 0..10_000 {
            interner.intern(value);
        }
        assert!(interner.len() <= MIN_SWEEP);
        assert!(Arc::ptr_eq(&kept, &interner.intern(7)));
    }
}
