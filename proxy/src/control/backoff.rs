//! Pauses between attempts to reach the control plane.

use std::time::Duration;

use crate::coin::Coin;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// A connection that lived longer was a good one.
pub const STEADY: Duration = Duration::from_secs(10);

/// Doubling pauses, each between half and the whole of its length, so that the proxies of a mesh
/// do not come back all at once.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    coin: Coin,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            pause: FIRST,
            coin: Coin::random(),
        }
    }
}

impl Backoff {
    /// Back to the shortest.
    pub fn reset(&mut self) {
        self.pause = FIRST;
    }

    /// The next pause.
    pub fn next(&mut self) -> Duration {
        let half = self.pause / 2;
        self.pause = (self.pause * 2).min(LONGEST);
        let jitter = self
            .coin
            .below(u64::try_from(half.as_millis()).unwrap_or(u64::MAX));
        half + Duration::from_millis(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_start_over_after_a_good_connection() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        for _ in 0..20 {
            assert!(backoff.next() <= LONGEST);
        }
        assert!(backoff.next() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
