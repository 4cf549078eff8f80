//! Leaving without losing a request.
//!
//! ```text
//!  Serving ──SIGTERM──▶ Draining (not ready; accepts; every answer says goodbye)
//!                          └──minimum over──▶ Closing (accepts no more; idle ones go) ──empty──▶ exit
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

/// How far leaving has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// As always.
    Serving,
    /// Still accepting, but each connection ends with its next answer.
    Draining,
    /// Nothing is accepted; connections end as soon as nothing runs on them.
    Closing,
}

/// Shared by all workers.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    open: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    number: AtomicUsize,
    empty: Notify,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            open: Arc::default(),
        }
    }
}

/// A connection, or a socket that accepts them, which leaving waits for while it lives.
#[derive(Debug)]
pub struct Open(Arc<Count>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.number.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_one();
        }
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// To be told of changes.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Counts a connection, or a socket that accepts them.
    pub fn open(&self) -> Open {
        self.open.number.fetch_add(1, Ordering::AcqRel);
        Open(self.open.clone())
    }

    /// Connections that are open, and sockets that accept them.
    pub fn open_count(&self) -> usize {
        self.open.number.load(Ordering::Acquire)
    }

    /// Goes through the phases: `minimum` of Draining, then Closing for `maximum` at most.
    /// Returns how many connections were left.
    pub async fn run(&self, minimum: Duration, maximum: Duration) -> usize {
        self.start();
        tokio::time::sleep(minimum).await;
        self.finish(maximum).await
    }

    /// Draining from now on.
    pub fn start(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Closing, until nothing is open, but no longer than `maximum`. Returns how many
    /// connections were left.
    pub async fn finish(&self, maximum: Duration) -> usize {
        self.phase.send_replace(Phase::Closing);
        let empty = async {
            while self.open_count() > 0 {
                self.open.empty.notified().await;
            }
        };
        let _ = tokio::time::timeout(maximum, empty).await;
        self.open_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leaving_waits_for_the_last_connection_but_not_for_ever() {
        let drain = Drain::default();
        let open = drain.open();
        let (minimum, maximum) = (Duration::from_secs(5), Duration::from_secs(30));
        let start = tokio::time::Instant::now();
        let leave = async { drain.run(minimum, maximum).await };
        let close = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(open);
        };
        let (left, ()) = tokio::join!(leave, close);
        assert_eq!((left, start.elapsed().as_secs()), (0, 10));

        let _stays = drain.open();
        let start = tokio::time::Instant::now();
        assert_eq!(drain.run(minimum, maximum).await, 1);
        assert_eq!(start.elapsed().as_secs(), 35);
    }
}
