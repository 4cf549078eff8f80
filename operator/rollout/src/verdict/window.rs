//! The last seconds of both arms: does stable keep the promise, is there a shared outage?

use std::collections::VecDeque;

use super::proportion::wilson;
use crate::Millis;
use crate::observation::Counts;

/// Seconds that are kept.
const KEPT: i64 = 15;
/// A second is judged with this many around it, on both sides.
const AROUND: i64 = 2;
/// Seconds over which an outage is seen.
const OUTAGE: i64 = 10;
/// Seconds for which stable must keep the promise again.
const RECOVERY: i64 = 5;
/// A break is clear when the rate is beyond this many times the promise: a stable arm that
/// always fails a little more often than promised is no outage.
const CLEARLY: f64 = 1.5;
/// One-sided 99 %.
const Z: f64 = 2.3263;
/// Fewer failures are never an outage.
const LEAST_FAILURES: u64 = 3;

/// One second of all proxies, by the time at which their records arrived. Both arms of a
/// stratum arrive together, so a late one compares like with like all the same.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at: i64,
    stable: Counts,
    candidate: Counts,
    judged: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Window {
    promise: f64,
    seconds: VecDeque<Second>,
    outage: bool,
}

impl Window {
    pub fn new(promise: f64) -> Self {
        Self {
            promise,
            seconds: VecDeque::new(),
            outage: false,
        }
    }

    /// Takes in one stratum.
    pub fn add(&mut self, at: Millis, stable: Counts, candidate: Counts) {
        let newest = self.seconds.back().map_or(i64::MIN, |second| second.at);
        let at = at.div_euclid(1000).max(newest);
        if at > newest {
            self.seconds.push_back(Second {
                at,
                ..Second::default()
            });
        }
        if let Some(second) = self.seconds.back_mut() {
            second.stable = second.stable.plus(stable);
            second.candidate = second.candidate.plus(candidate);
        }
        self.seconds.retain(|second| second.at > at - KEPT);
        self.outage = !self.recovered(at) && (self.outage || self.breaks(at));
    }

    /// The candidate's counts of the seconds that can be judged now and in which stable kept
    /// the promise; each second is given once. A second is judged when those after it are known
    /// too, so that the first moments of an outage are not taken for good ones.
    pub fn kept_by_stable(&mut self) -> Vec<Counts> {
        let Some(newest) = self.seconds.back().map(|second| second.at) else {
            return Vec::new();
        };
        let mut kept = Vec::new();
        for i in 0..self.seconds.len() {
            let second = self.seconds[i];
            if second.judged || second.at > newest - AROUND {
                continue;
            }
            self.seconds[i].judged = true;
            let (stable, _) = self.sum(second.at - AROUND..=second.at + AROUND);
            if self.keeps(stable) {
                kept.push(second.candidate);
            }
        }
        kept
    }

    /// Whether stable broke the promise in the last seconds before `now`, however little.
    pub fn stable_breaks(&self, now: Millis) -> bool {
        let (stable, _) = self.last(RECOVERY, now.div_euclid(1000));
        stable.requests > 0 && !self.keeps(stable)
    }

    /// While both arms break the promise: (stable, candidate) of the last seconds.
    pub fn outage(&self, now: Millis) -> Option<(Counts, Counts)> {
        self.outage.then(|| self.last(OUTAGE, now.div_euclid(1000)))
    }

    fn keeps(&self, stable: Counts) -> bool {
        stable.requests > 0 && stable.failures as f64 <= self.promise * stable.requests as f64
    }

    fn breaks(&self, second: i64) -> bool {
        let (stable, candidate) = self.last(OUTAGE, second);
        [stable, candidate].into_iter().all(|arm| {
            let (low, _) = wilson(arm.rate(), arm.requests as f64, Z);
            arm.failures >= LEAST_FAILURES && low > self.clearly()
        })
    }

    fn recovered(&self, second: i64) -> bool {
        let (stable, _) = self.last(RECOVERY, second);
        stable.requests > 0 && stable.rate() <= self.clearly()
    }

    fn clearly(&self) -> f64 {
        (CLEARLY * self.promise).min(f64::midpoint(1.0, self.promise))
    }

    fn last(&self, seconds: i64, now: i64) -> (Counts, Counts) {
        self.sum(now - seconds + 1..=now)
    }

    fn sum(&self, range: std::ops::RangeInclusive<i64>) -> (Counts, Counts) {
        self.seconds
            .iter()
            .filter(|second| range.contains(&second.at))
            .fold(Default::default(), |(stable, candidate), second| {
                (stable.plus(second.stable), candidate.plus(second.candidate))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(failures: u64, requests: u64) -> Counts {
        Counts { requests, failures }
    }

    #[test]
    fn an_outage_is_seen_within_its_first_second_and_ends_when_stable_keeps_the_promise_again() {
        let mut window = Window::new(0.01);
        let mut seen = Vec::new();
        for second in 0..40 {
            let failing = (10..20).contains(&second);
            let (stable, candidate) = if failing { (270, 30) } else { (1, 0) };
            window.add(second * 1000, counts(stable, 900), counts(candidate, 100));
            if window.outage(second * 1000).is_some() {
                seen.push(second);
            }
        }
        assert_eq!(seen, (10..24).collect::<Vec<_>>());
    }

    #[test]
    fn a_candidate_that_fails_alone_is_no_outage() {
        let mut window = Window::new(0.01);
        for second in 0..10 {
            window.add(second * 1000, counts(5, 900), counts(50, 100));
            assert!(window.outage(second * 1000).is_none());
        }
    }

    #[test]
    fn an_outage_lasts_while_there_is_no_traffic_that_shows_its_end() {
        let mut window = Window::new(0.01);
        window.add(0, counts(300, 900), counts(30, 100));
        assert!(window.outage(600_000).is_some());
        window.add(600_000, counts(0, 90), counts(0, 10));
        assert!(window.outage(600_000).is_none());
    }

    #[test]
    fn a_stable_arm_that_always_fails_at_1_2_percent_is_no_outage() {
        let mut window = Window::new(0.01);
        for second in 0..100 {
            window.add(second * 1000, counts(600, 50_000), counts(600, 50_000));
            assert!(window.outage(second * 1000).is_none());
        }
    }

    #[test]
    fn seconds_before_and_within_an_outage_are_not_held_against_the_candidate() {
        let mut window = Window::new(0.01);
        let mut kept = Vec::new();
        for second in 0..12 {
            let failures = if second >= 5 { 300 } else { 0 };
            let candidate = counts(failures / 9, 100 + second as u64);
            window.add(second * 1000, counts(failures, 900), candidate);
            kept.extend(window.kept_by_stable());
        }
        let seconds: Vec<_> = kept
            .iter()
            .map(|candidate| candidate.requests - 100)
            .collect();
        assert_eq!(seconds, [0, 1, 2]);
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut window = Window::new(0.01);
        window.add(i64::MAX, counts(0, 9), counts(0, 1));
        window.add(i64::MIN, counts(0, 9), counts(0, 1));
        window.add(0, counts(9, 9), counts(1, 1));
        assert!(window.kept_by_stable().is_empty());
    }
}
