//! Does the candidate break the absolute promise?

use super::mixture::{Mixture, log_spaced};
use crate::observation::Counts;

/// Alternatives of the grid.
const POINTS: usize = 12;
/// The mildest alternative: 4/3 times the promised odds.
const MILDEST: f64 = 4.0 / 3.0;
/// The strongest: odds of 9, a rate of 90 %, or this many times the promised odds.
const STRONGEST: (f64, f64) = (9.0, 8.0);
/// More requests at once say no more than this many.
const MAX_REQUESTS: u64 = 1 << 40;

/// An e-process for a Bernoulli rate above the promise: for each alternative the likelihood
/// ratio against the promised rate, which grows with the failures, so that its expectation is
/// at most 1 for every true rate up to the promised one.
///
/// It speaks of one arm alone: in an outage of both it condemns anybody. Whoever asks it feeds
/// it only seconds in which stable keeps the promise, or uses it for less than a condemnation.
#[derive(Debug, Clone)]
pub(super) struct Absolute {
    /// Logs of p1 / p0 and of (1 - p1) / (1 - p0).
    alternatives: Vec<(f64, f64)>,
    mixture: Mixture,
}

impl Absolute {
    /// `promise`: the largest rate of a good candidate, within (0, 1).
    pub fn new(promise: f64, (logs, observed): (&[f64], u64)) -> Self {
        let odds = promise / (1.0 - promise);
        let strongest = STRONGEST.0.max(STRONGEST.1 * odds);
        let alternatives = log_spaced(MILDEST * odds, strongest, POINTS).map(|odds| {
            let rate = odds / (1.0 + odds);
            ((rate / promise).ln(), ((1.0 - rate) / (1.0 - promise)).ln())
        });
        Self {
            alternatives: alternatives.collect(),
            mixture: Mixture::resume(POINTS, logs, observed),
        }
    }

    /// Takes in requests of the candidate.
    pub fn observe(&mut self, candidate: Counts) {
        if candidate.requests == 0 || candidate.requests > MAX_REQUESTS {
            return;
        }
        let failures = candidate.failures as f64;
        let successes = (candidate.requests - candidate.failures) as f64;
        let alternatives = &self.alternatives;
        self.mixture.observe(|i| {
            let (failure, success) = alternatives[i];
            failures * failure + successes * success
        });
    }

    /// Log of E.
    pub fn log_value(&self) -> f64 {
        self.mixture.log_value()
    }

    /// To go on from.
    pub fn kept(&self) -> (Vec<f64>, u64) {
        self.mixture.kept()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(requests: u64, failures: u64) -> f64 {
        let mut absolute = Absolute::new(0.01, (&[], 0));
        absolute.observe(Counts { requests, failures });
        absolute.log_value()
    }

    #[test]
    fn failures_beyond_the_promise_raise_e_and_successes_lower_it() {
        assert!(after(10, 6) > 1_000f64.ln());
        assert!(after(3_000, 90) > 1_000f64.ln());
        assert!(after(3_000, 30) < 0.0);
        assert!(after(3_000, 0) < 0.0);
    }

    #[test]
    fn a_promise_of_nothing_or_everything_is_no_trouble() {
        for promise in [1e-6, 0.5, 0.999] {
            let mut absolute = Absolute::new(promise, (&[], 0));
            absolute.observe(Counts {
                requests: 1_000,
                failures: 1_000,
            });
            assert!(absolute.log_value().is_finite());
        }
    }
}
