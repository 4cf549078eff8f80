//! Whether anybody goes to a destination.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// The connections to one destination. The same one in every snapshot for as long as it is in
/// force.
#[derive(Debug, Default)]
pub struct Usage {
    open: AtomicUsize,
    used: AtomicBool,
}

/// A connection, for as long as it lives.
#[derive(Debug)]
pub struct InUse(Arc<Usage>);

impl Usage {
    /// Notes a connection.
    #[must_use = "the connection is in use while this lives"]
    pub fn enter(self: &Arc<Self>) -> InUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Whether there was a connection since this was last asked, or is one.
    pub fn take(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed) || self.open.load(Ordering::Relaxed) > 0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.used.store(true, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_a_use_for_as_long_as_it_lives_and_once_after_its_end() {
        let usage = Arc::new(Usage::default());
        assert!(!usage.take());
        let connection = usage.enter();
        assert!(usage.take() && usage.take());
        drop(connection);
        assert!(usage.take());
        assert!(!usage.take());
    }
}
