//! Is the candidate worse than stable, in the same seconds?

use super::hypergeometric::Margins;
use super::mixture::{Mixture, log_spaced};
use crate::observation::Counts;

/// Alternatives of the grid.
const POINTS: usize = 24;
/// The mildest alternative in units of the tolerance. Nearer ones would only spend capital: at
/// 4/3 a verdict already takes a hundred failures and more.
const MILDEST: f64 = 4.0 / 3.0;
/// The strongest alternative in units of the tolerance, and at least.
const STRONGEST: (f64, f64) = (100.0, 200.0);
/// Larger strata, which no proxy can have seen, say nothing.
const MAX_STRATUM: u64 = 1 << 27;

/// An e-process over exact strata (Lindon and Malek, NeurIPS 2022, for the sequential part).
///
/// Given a stratum's totals the candidate's failures follow Fisher's noncentral hypergeometric
/// law with the odds ratio of the arms, whatever the weight and the base rate: each failure
/// fell on an arm by the coin. The factor of an alternative is its chance of what was seen over
/// the chance under the tolerated odds. It grows with the candidate's failures, so its
/// expectation is at most 1 for every true odds ratio up to the tolerated one, not only at it.
///
/// The tolerance bounds *odds*; for failure rates of a few percent these are the risks, above
/// they are milder: 1.5 times the odds of 30 % is 39 %.
#[derive(Debug, Clone)]
pub(super) struct Relative {
    ln_tolerated: f64,
    ln_alternatives: Vec<f64>,
    mixture: Mixture,
}

impl Relative {
    /// `tolerated`: the largest odds ratio of a good candidate, at least 1.
    pub fn new(tolerated: f64, (logs, observed): (&[f64], u64)) -> Self {
        let strongest = (STRONGEST.0 * tolerated).max(STRONGEST.1);
        Self {
            ln_tolerated: tolerated.ln(),
            ln_alternatives: log_spaced(MILDEST * tolerated, strongest, POINTS)
                .map(f64::ln)
                .collect(),
            mixture: Mixture::resume(POINTS, logs, observed),
        }
    }

    /// Takes in one stratum. One without failures, with nothing but failures, or with an empty
    /// arm says nothing.
    pub fn observe(&mut self, stable: Counts, candidate: Counts) {
        let total = stable.requests.saturating_add(candidate.requests);
        if total > MAX_STRATUM {
            return;
        }
        let margins = Margins {
            candidate: candidate.requests,
            stable: stable.requests,
            failures: stable.failures + candidate.failures,
        };
        let support = margins.support();
        if support.start() == support.end() {
            return;
        }
        let seen = candidate.failures;
        let tolerated = margins.ln_pmf(seen, self.ln_tolerated);
        let alternatives = &self.ln_alternatives;
        self.mixture
            .observe(|i| margins.ln_pmf(seen, alternatives[i]) - tolerated);
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

    fn counts(requests: u64, failures: u64) -> Counts {
        Counts { requests, failures }
    }

    #[test]
    fn strata_without_failures_or_with_an_empty_arm_say_nothing() {
        let mut relative = Relative::new(1.5, (&[], 0));
        relative.observe(counts(100, 0), counts(10, 0));
        relative.observe(counts(0, 0), counts(10, 10));
        relative.observe(counts(0, 0), counts(10, 3));
        relative.observe(counts(90, 3), counts(0, 0));
        relative.observe(counts(90, 90), counts(10, 10));
        relative.observe(counts(u64::MAX, 3), counts(u64::MAX, 10));
        assert_eq!(relative.kept().1, 0);
        assert!(relative.log_value().abs() < 1e-12);
    }

    #[test]
    fn failures_of_the_candidate_alone_raise_e_and_those_of_stable_lower_it() {
        let mut bad = Relative::new(1.5, (&[], 0));
        let mut good = bad.clone();
        for _ in 0..6 {
            bad.observe(counts(9, 0), counts(1, 1));
            good.observe(counts(9, 1), counts(1, 0));
        }
        assert!(bad.log_value() > 1_000f64.ln());
        assert!(good.log_value() < 0.0);
    }

    #[test]
    fn no_true_odds_up_to_the_tolerated_ones_expect_growth() {
        let margins = Margins {
            candidate: 4,
            stable: 20,
            failures: 6,
        };
        for true_odds in [0.5f64, 1.0, 1.5] {
            let expected: f64 = margins
                .support()
                .map(|k| {
                    let mut relative = Relative::new(1.5, (&[], 0));
                    relative.observe(counts(20, 6 - k), counts(4, k));
                    margins.ln_pmf(k, true_odds.ln()).exp() * relative.log_value().exp()
                })
                .sum();
            assert!(expected <= 1.0 + 1e-9, "{true_odds}: {expected}");
        }
    }
}
