//! The lease on unpromoted arms: a proxy that hears nothing of the control plane for a minute
//! sends everything to stable.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// How long a leased weight holds without a word from the control plane.
pub const TERM: Duration = Duration::from_secs(60);

/// Whether leased weights hold. Starts held, as if the control plane had just spoken.
#[derive(Debug)]
pub struct Lease {
    lapsed: AtomicBool,
    /// Whether a word is not enough to bring it back.
    doubted: AtomicBool,
    heard: Mutex<Heard>,
}

/// When the control plane spoke last: so long before this instant. A process that has started
/// since has no instant for it.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    before: Duration,
}

impl Heard {
    fn silence(self) -> Duration {
        self.at.elapsed() + self.before
    }

    fn end(self) -> Instant {
        self.at + TERM.saturating_sub(self.before)
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            lapsed: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            heard: Mutex::new(Heard {
                at: Instant::now(),
                before: Duration::ZERO,
            }),
        }
    }
}

impl Lease {
    /// The control plane has spoken: leased weights hold, unless they are doubted.
    pub fn renew(&self) {
        *self.heard.lock() = Heard {
            at: Instant::now(),
            before: Duration::ZERO,
        };
        if !self.doubted.load(Ordering::Relaxed) {
            self.lapsed.store(false, Ordering::Relaxed);
        }
    }

    /// Whether a word of the control plane has to wait, because it has not said yet what the
    /// weights are that have lapsed: they may be long out of date.
    pub fn doubt(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Relaxed);
        if !doubted && self.silence() < TERM {
            self.lapsed.store(false, Ordering::Relaxed);
        }
    }

    /// Goes on with the lease of a former process, which last heard the control plane so long
    /// ago.
    pub fn resume(&self, silence: Duration) {
        *self.heard.lock() = Heard {
            at: Instant::now(),
            before: silence,
        };
        self.lapsed.store(silence >= TERM, Ordering::Relaxed);
    }

    /// How long the control plane has not been heard.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heard.lock().silence()
    }

    /// Whether leased weights count as 0.
    #[must_use]
    pub fn lapsed(&self) -> bool {
        self.lapsed.load(Ordering::Relaxed)
    }

    /// Lets the lease lapse when it is due, for ever.
    pub async fn watch(&self) {
        loop {
            let end = self.heard.lock().end();
            sleep_until(end).await;
            if self.heard.lock().end() > Instant::now() {
                continue;
            }
            if !self.lapsed.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "no word from the control plane for 60 s: unpromoted arms get nothing until it is back"
                );
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_leased_weight_ends_after_a_minute_of_silence_and_comes_back_with_a_word() {
        let lease = Arc::new(Lease::default());
        let watched = lease.clone();
        tokio::spawn(async move { watched.watch().await });
        tokio::time::sleep(Duration::from_millis(59_900)).await;
        assert!(!lease.lapsed());
        lease.renew();
        tokio::time::sleep(Duration::from_millis(59_900)).await;
        assert!(!lease.lapsed(), "a word renews the whole term");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(lease.lapsed());
        lease.renew();
        assert!(!lease.lapsed());
        tokio::time::sleep(TERM + Duration::from_secs(2)).await;
        assert!(lease.lapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_does_not_prolong_a_lease() {
        let lease = Arc::new(Lease::default());
        lease.resume(Duration::from_secs(50));
        let watched = lease.clone();
        tokio::spawn(async move { watched.watch().await });
        tokio::time::sleep(Duration::from_millis(9_900)).await;
        assert!(!lease.lapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(lease.lapsed());
        assert_eq!(lease.silence().as_secs(), 60);
        lease.resume(TERM);
        assert!(lease.lapsed(), "at once");
    }
}
