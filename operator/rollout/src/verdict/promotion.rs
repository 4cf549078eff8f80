//! May the candidate pass? Non-inferiority to stable.

use super::proportion::{normal_quantile, wilson};
use crate::observation::Counts;
use crate::policy::Rules;

/// A difference of half a point is always tolerated.
const LEAST_MARGIN: f64 = 0.005;
/// What `needed` says when no number of requests at the rates seen would do.
pub(super) const NEEDED_AT_MOST: u64 = 10_000_000;
/// Stable requests for one of the candidate, before any was seen.
const USUAL_RATIO: f64 = 9.0;

/// Whether the evidence suffices, and how much would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promotion {
    pub sufficient: bool,
    /// Candidate requests of fences with both arms at which it would suffice, at the rates seen.
    pub needed: u64,
}

/// Judges all fences together, as (stable, candidate): the upper bound of candidate's rate
/// minus stable's, at one-sided confidence 1 - `promotion_alpha`, must be at most
/// max(0.5 points, (maxRelativeRisk - 1) x stable's rate).
///
/// The confidence is that of one look. A candidate exactly at the margin, looked at eighty times,
/// passes about once in six at some look; one two points worse about once in a hundred (both
/// simulated). What is worse than that is for the condemnation, which looking does not weaken.
pub(super) fn judge(fences: &[(Counts, Counts)], rules: &Rules) -> Promotion {
    let z = normal_quantile(1.0 - rules.promotion_alpha);
    let Some(seen) = Difference::of(fences) else {
        let expected = Difference::expected(fences);
        return Promotion {
            sufficient: false,
            needed: (expected.least_scale(z, rules) * expected.requests).ceil() as u64,
        };
    };
    let have = seen.requests as u64;
    let sufficient = seen.passes(1.0, z, rules);
    let needed = (seen.least_scale(z, rules) * seen.requests).ceil() as u64;
    Promotion {
        sufficient,
        needed: if sufficient {
            needed.min(have)
        } else {
            needed.max(have + 1)
        },
    }
}

/// The stratified difference of two rates. Fences are strata, because rate and weight may both
/// change from one to the next; their Mantel-Haenszel weights are proportional to
/// n_s n_c / (n_s + n_c), so that a fence in which one arm had no request has none.
///
/// The bound squares and adds the reach of each arm's own interval: Newcombe's method 10
/// (Statistics in Medicine 17, 873-890, 1998), in the stratified form of Yan and Su (Statistics
/// in Biopharmaceutical Research 2, 2010): an arm's Wilson interval is taken at its weighted
/// rate and the number of trials 1 / sum(w^2 / n) that has the variance of the weighted rate.
/// With one fence it is method 10 itself.
#[derive(Debug, Clone, Copy)]
struct Difference {
    stable: Side,
    candidate: Side,
    /// The candidate's requests that are in it.
    requests: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Side {
    rate: f64,
    /// Sum of w^2 / n.
    variance: f64,
}

impl Side {
    fn add(&mut self, counts: Counts, weight: f64) {
        let n = counts.requests as f64;
        self.rate += weight * (counts.failures as f64 / n).min(1.0);
        self.variance += weight * weight / n;
    }
}

impl Difference {
    fn of(fences: &[(Counts, Counts)]) -> Option<Self> {
        let harmonic = |(stable, candidate): &(Counts, Counts)| {
            let (s, c) = (stable.requests as f64, candidate.requests as f64);
            if s > 0.0 && c > 0.0 {
                s * c / (s + c)
            } else {
                0.0
            }
        };
        let whole: f64 = fences.iter().map(harmonic).sum();
        if whole <= 0.0 {
            return None;
        }
        let mut difference = Self {
            stable: Side::default(),
            candidate: Side::default(),
            requests: 0.0,
        };
        for fence in fences {
            let weight = harmonic(fence) / whole;
            if weight <= 0.0 {
                continue;
            }
            difference.stable.add(fence.0, weight);
            difference.candidate.add(fence.1, weight);
            difference.requests += fence.1.requests as f64;
        }
        Some(difference)
    }

    /// Before both arms were seen: one request of a candidate that is as good as stable.
    fn expected(fences: &[(Counts, Counts)]) -> Self {
        let requests: f64 = fences.iter().map(|(s, _)| s.requests as f64).sum();
        let failures: f64 = fences.iter().map(|(s, _)| s.failures as f64).sum();
        let side = |variance| Side {
            rate: (failures / requests.max(1.0)).min(1.0),
            variance,
        };
        Self {
            stable: side(1.0 / USUAL_RATIO),
            candidate: side(1.0),
            requests: 1.0,
        }
    }

    /// Whether it would pass with `scale` times the requests at the same rates.
    fn passes(&self, scale: f64, z: f64, rules: &Rules) -> bool {
        let (candidate, stable) = (self.candidate, self.stable);
        let (_, high) = wilson(candidate.rate, scale / candidate.variance, z);
        let (low, _) = wilson(stable.rate, scale / stable.variance, z);
        let reach = (high - candidate.rate).hypot(stable.rate - low);
        let margin = ((rules.max_relative_risk - 1.0) * stable.rate).max(LEAST_MARGIN);
        candidate.rate - stable.rate + reach <= margin
    }

    /// The least `scale` that passes, by bisection: the reach falls with it.
    fn least_scale(&self, z: f64, rules: &Rules) -> f64 {
        let (mut low, mut high) = (0.0, NEEDED_AT_MOST as f64 / self.requests);
        if !self.passes(high, z, rules) {
            return high;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.passes(middle, z, rules) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(failures: u64, requests: u64) -> Counts {
        Counts { requests, failures }
    }

    fn rules() -> Rules {
        Rules {
            max_error_rate: 0.01,
            max_relative_risk: 1.5,
            alpha: 0.001,
            promotion_alpha: 0.05,
            hung_after_ms: 10_000,
        }
    }

    fn upper(fences: &[(Counts, Counts)], z: f64) -> f64 {
        let d = Difference::of(fences).expect("both arms");
        let (_, high) = wilson(d.candidate.rate, 1.0 / d.candidate.variance, z);
        let (low, _) = wilson(d.stable.rate, 1.0 / d.stable.variance, z);
        d.candidate.rate - d.stable.rate + (high - d.candidate.rate).hypot(d.stable.rate - low)
    }

    #[test]
    fn upper_bounds_of_one_fence_are_those_newcombe_published() {
        // Newcombe 1998, table II, method 10, 95 % two-sided.
        for (candidate, stable, expected) in [
            (counts(56, 70), counts(48, 80), 0.3339),
            (counts(9, 10), counts(3, 10), 0.8090),
            (counts(6, 7), counts(2, 7), 0.8062),
            (counts(5, 56), counts(0, 29), 0.1926),
            (counts(0, 10), counts(0, 20), 0.2775),
            (counts(10, 10), counts(0, 20), 1.0),
        ] {
            let bound = upper(&[(stable, candidate)], 1.959964);
            assert!((bound - expected).abs() < 5e-5, "{bound} is not {expected}");
        }
    }

    #[test]
    fn a_fence_cut_in_equal_halves_says_the_same() {
        let whole = upper(&[(counts(18, 1_800), counts(4, 200))], 1.6449);
        let half = (counts(9, 900), counts(2, 100));
        assert!((upper(&[half, half], 1.6449) - whole).abs() < 1e-12);
    }

    #[test]
    fn changing_weights_and_rates_together_do_not_mislead() {
        // Each fence shows equal rates; the sums would show 8.3 % against 2.8 %.
        let fences = [
            (counts(9, 900), counts(1, 100)),
            (counts(10, 100), counts(90, 900)),
        ];
        let difference = Difference::of(&fences).expect("both arms");
        assert!((difference.candidate.rate - difference.stable.rate).abs() < 1e-12);
    }

    #[test]
    fn fences_with_one_arm_alone_neither_help_nor_harm() {
        let fence = (counts(5, 5_000), counts(0, 560));
        let with_others = [
            fence,
            (counts(0, 0), counts(500, 900)),
            (counts(7, 9), counts(0, 0)),
        ];
        assert_eq!(judge(&[fence], &rules()), judge(&with_others, &rules()));
    }

    #[test]
    fn without_failures_it_takes_a_few_hundred_requests() {
        let none = judge(&[], &rules());
        assert_eq!((none.sufficient, none.needed), (false, 539));
        let some = judge(&[(counts(0, 900), counts(0, 100))], &rules());
        assert_eq!((some.sufficient, some.needed), (false, 539));
        let enough = judge(&[(counts(0, 5_400), counts(0, 600))], &rules());
        assert_eq!((enough.sufficient, enough.needed), (true, 539));
    }

    #[test]
    fn a_candidate_equal_to_a_stable_that_fails_at_1_2_percent_passes() {
        let few = judge(&[(counts(108, 9_000), counts(12, 1_000))], &rules());
        assert!(!few.sufficient);
        let n = few.needed;
        let stable = counts(9 * n * 12 / 1_000, 9 * n);
        let enough = judge(&[(stable, counts(n * 12 / 1_000, n))], &rules());
        assert!(enough.sufficient && n < 3_000, "{n}");
    }

    #[test]
    fn a_worse_candidate_never_passes_and_needs_without_end() {
        let worse = judge(&[(counts(9, 9_000), counts(30, 1_000))], &rules());
        assert_eq!(
            worse,
            Promotion {
                sufficient: false,
                needed: NEEDED_AT_MOST
            }
        );
    }
}
