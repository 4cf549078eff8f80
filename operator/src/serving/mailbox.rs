//! What a stream has to look at: filled by whoever changes the world, emptied by the stream.

use std::{mem, sync::Arc};

use parking_lot::Mutex;
use sluice_xds::ResourceName;
use tokio::sync::Notify;

/// Most batches that are kept for a stream which does not come round to them; beyond that it is
/// told to look at everything.
const MAX_BATCHES: usize = 64;

/// The names of one change, shared by all streams that it concerns.
pub(super) type Batch = Arc<[ResourceName]>;

/// One stream's mailbox.
#[derive(Default)]
pub(super) struct Mailbox {
    content: Mutex<Content>,
    filled: Notify,
}

/// What was in a mailbox.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    /// These names may have changed.
    Batches(Vec<Batch>),
    /// Anything may have.
    Everything,
}

impl Default for Content {
    fn default() -> Self {
        Self::Batches(Vec::new())
    }
}

impl Mailbox {
    /// Adds a change, and wakes the stream.
    pub(super) fn put(&self, batch: &Batch) {
        let mut content = self.content.lock();
        if let Content::Batches(batches) = &mut *content {
            batches.push(batch.clone());
            if batches.len() > MAX_BATCHES {
                *content = Content::Everything;
            }
        }
        drop(content);
        self.filled.notify_one();
    }

    /// Returns when something has been put since the last call.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Empties it.
    pub(super) fn take(&self) -> Content {
        mem::take(&mut self.content.lock())
    }
}

#[cfg(test)]
mod tests {
    use sluice_xds::Kind;

    use super::*;

    #[tokio::test]
    async fn a_stream_that_never_looks_costs_no_memory_and_then_looks_at_everything() {
        let mailbox = Mailbox::default();
        let batch: Batch = [ResourceName::new(Kind::Cluster, "a")].into();
        mailbox.put(&batch);
        mailbox.filled().await;
        assert_eq!(mailbox.take(), Content::Batches(vec![batch.clone()]));
        assert_eq!(mailbox.take(), Content::Batches(Vec::new()));
        for _ in 0..1000 {
            mailbox.put(&batch);
        }
        assert_eq!(Arc::strong_count(&batch), 1);
        assert_eq!(mailbox.take(), Content::Everything);
    }
}
