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
    renewed: Mutex<Instant>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            lapsed: AtomicBool::new(false),
            renewed: Mutex::new(Instant::now()),
        }
    }
}

impl Lease {
    /// The control plane has spoken.
    pub fn renew(&self) {
        *self.renewed.lock() = Instant::now();
        self.lapsed.store(false, Ordering::Relaxed);
    }

    /// Whether leased weights count as 0.
    #[must_use]
    pub fn lapsed(&self) -> bool {
        self.lapsed.load(Ordering::Relaxed)
    }

    /// Lets the lease lapse when it is due, for ever.
    pub async fn watch(&self) {
        loop {
            let end = *self.renewed.lock() + TERM;
            sleep_until(end).await;
            if *self.renewed.lock() + TERM > Instant::now() {
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
}
