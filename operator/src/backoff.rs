//! Waits between tries: one way for watches, looks, the relay and the ca role.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::utils;

/// The first wait.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait, unless the user says otherwise. Shorter than the 30 s that watches usually
/// take: a rollback decided right after an outage of the apiserver must not wait for them.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubling waits, each up to a fifth longer than that, so that many tries do not come in step.
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// From 0.2 s up to this, without the fifth.
    #[must_use]
    pub fn up_to(longest: Duration) -> Self {
        Self {
            next: FIRST,
            longest,
        }
    }

    /// How long to wait this time.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.min(self.longest);
        self.next = (wait * 2).min(self.longest);
        let random = RandomState::new().hash_one(0) % 1000;
        wait + wait.mul_f64(random as f64 / 5000.0)
    }

    /// It went well: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.wait())
    }
}

impl utils::Backoff for Backoff {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let mut about = |wait: Duration| {
            let is = backoff.wait();
            assert!(is >= wait && is <= wait.mul_f64(1.2), "{is:?} for {wait:?}");
        };
        for millis in [200, 400, 800, 1600, 3200, 5000, 5000] {
            about(Duration::from_millis(millis));
        }
        backoff.reset();
        assert!(backoff.wait() < Duration::from_millis(250));
    }
}
