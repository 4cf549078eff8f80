//! Fisher's noncentral hypergeometric distribution.
//!
//! Of `candidate + stable` requests `failures` failed; how many of those are the candidate's,
//! when its odds of failing are `odds` times stable's? The chance of k is
//! C(candidate, k) C(stable, failures - k) odds^k over the sum of this for all k
//! (Fisher 1935; Fog, Communications in Statistics 2008). For odds 1 it is the plain draw
//! without replacement.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

/// The totals of one stratum: what is given when the arms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Margins {
    /// Requests of the candidate.
    pub candidate: u64,
    /// Requests of stable.
    pub stable: u64,
    /// Failures of both; at most the requests of both.
    pub failures: u64,
}

impl Margins {
    /// The numbers of candidate failures that these totals allow.
    pub fn support(&self) -> RangeInclusive<u64> {
        self.failures.saturating_sub(self.stable)..=self.failures.min(self.candidate)
    }

    /// Log of the chance that `k`, of the support, of the failures are the candidate's.
    pub fn ln_pmf(&self, k: u64, ln_odds: f64) -> f64 {
        let mode = self.mode(ln_odds);
        let at_mode = self.ln_weight(mode, ln_odds);
        self.ln_weight(k, ln_odds) - at_mode - self.sum_over_mode(mode, ln_odds).ln()
    }

    fn ln_weight(&self, k: u64, ln_odds: f64) -> f64 {
        ln_choose(self.candidate, k)
            + ln_choose(self.stable, self.failures - k)
            + k as f64 * ln_odds
    }

    /// Weight of k + 1 over the weight of k; falls with k.
    fn ratio(&self, k: u64, odds: f64) -> f64 {
        let taken = (self.candidate - k) as f64 * (self.failures - k) as f64;
        let left = (k + 1) as f64 * (self.stable + k + 1 - self.failures) as f64;
        odds * taken / left
    }

    /// The likeliest number, by bisection on the ratio.
    fn mode(&self, ln_odds: f64) -> u64 {
        let odds = ln_odds.exp();
        let (mut low, mut high) = self.support().into_inner();
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ratio(middle, odds) > 1.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Sum of all weights in units of the mode's. Away from the mode they fall faster than
    /// geometrically, so the work is a few standard deviations, whatever the counts.
    fn sum_over_mode(&self, mode: u64, ln_odds: f64) -> f64 {
        const NEGLIGIBLE: f64 = 1e-17;
        let odds = ln_odds.exp();
        let (low, high) = self.support().into_inner();
        let mut sum = 1.0;
        let mut term = 1.0;
        for k in mode..high {
            term *= self.ratio(k, odds);
            sum += term;
            if term < NEGLIGIBLE {
                break;
            }
        }
        term = 1.0;
        for k in (low..mode).rev() {
            term /= self.ratio(k, odds);
            sum += term;
            if term < NEGLIGIBLE {
                break;
            }
        }
        sum
    }
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// ln n!, exact to rounding: a table, then Stirling's series.
fn ln_factorial(n: u64) -> f64 {
    const KEPT: usize = 1024;
    static TABLE: LazyLock<Vec<f64>> = LazyLock::new(|| {
        (0..KEPT)
            .scan(0.0, |sum, n| {
                *sum += (n.max(1) as f64).ln();
                Some(*sum)
            })
            .collect()
    });
    let small = usize::try_from(n).ok().and_then(|n| TABLE.get(n));
    if let Some(value) = small {
        return *value;
    }
    let x = n as f64;
    let square = x * x;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * square)) / square) / x;
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pmf(candidate: u64, stable: u64, failures: u64, k: u64, odds: f64) -> f64 {
        let margins = Margins {
            candidate,
            stable,
            failures,
        };
        margins.ln_pmf(k, odds.ln()).exp()
    }

    fn assert_close(left: f64, right: f64) {
        let error = (left - right).abs() / right.abs().max(1e-300);
        assert!(error < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn fishers_tea_tasting_has_its_known_chances() {
        assert_close(pmf(4, 4, 4, 4, 1.0), 1.0 / 70.0);
        assert_close(pmf(4, 4, 4, 3, 1.0), 16.0 / 70.0);
        assert_close(pmf(4, 4, 4, 2, 1.0), 36.0 / 70.0);
    }

    #[test]
    fn noncentral_chances_are_those_of_the_sum_written_out() {
        // Weights 1, 16 x 2, 36 x 4, 16 x 8, 16.
        assert_close(pmf(4, 4, 4, 3, 2.0), 128.0 / 321.0);
        assert_close(pmf(4, 4, 4, 0, 2.0), 1.0 / 321.0);
        // One failure: the weighted coin.
        assert_close(pmf(10, 90, 1, 1, 3.0), 30.0 / 120.0);
        assert_close(pmf(10, 90, 1, 0, 3.0), 90.0 / 120.0);
        // Exact rational arithmetic, rounded.
        assert_close(pmf(41, 391, 7, 7, 1.5), 5.238468223083176e-07);
        assert_close(pmf(300, 2_700, 40, 20, 1.5), 5.039223954158119e-08);
    }

    #[test]
    fn chances_sum_to_one_for_any_totals() {
        for (candidate, stable, failures) in [
            (1, 1, 1),
            (5, 0, 3),
            (0, 5, 3),
            (7, 9, 16),
            (50, 3, 20),
            (900, 2_000, 700),
        ] {
            let margins = Margins {
                candidate,
                stable,
                failures,
            };
            for odds in [1.0f64, 1.5, 20.0, 200.0] {
                let sum: f64 = margins
                    .support()
                    .map(|k| margins.ln_pmf(k, odds.ln()).exp())
                    .sum();
                assert!((sum - 1.0).abs() < 1e-9, "{margins:?} {odds}: {sum}");
            }
        }
    }

    #[test]
    fn factorials_beyond_the_table_go_on_without_a_step() {
        for n in [1_023u64, 1_024, 5_000, 1_000_000] {
            let step = ln_factorial(n + 1) - ln_factorial(n);
            let expected = ((n + 1) as f64).ln();
            assert!((step - expected).abs() < 1e-8, "{n}: {step}");
        }
    }

    #[test]
    fn a_hundred_million_requests_are_judged_as_well() {
        let margins = Margins {
            candidate: 60_000_000,
            stable: 60_000_000,
            failures: 60_000_000,
        };
        let chance = margins.ln_pmf(30_000_000, 0.0).exp();
        // The normal density at its middle, standard deviation sqrt(n / 8), n = 60 million.
        assert!(
            (chance - 0.3989 / (60e6f64 / 8.0).sqrt()).abs() < 1e-6,
            "{chance}"
        );
    }
}
