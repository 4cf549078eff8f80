//! The analysis of one candidate revision: strata in, a view for the next decision out.

use std::collections::BTreeMap;

use sluice_evidence::{ArmDelta, Stratum};

use super::absolute::Absolute;
use super::mixture::log_add;
use super::relative::Relative;
use super::window::Window;
use super::{promotion, sentence};
use crate::Millis;
use crate::observation::{ClosedEvidence, Counts, EvidenceView};
use crate::policy::Rules;

/// Most fences that are told apart; the oldest are put together.
const MAX_FENCES: usize = 40;
/// Strata with fewer requests are put together with others of their fence first. Alone they say
/// little (of a failing request and one good one, half of the failures fall on either arm by
/// chance), and slow services have no others. That is exact too: a fence is one weight, so all
/// its requests were placed by the same coin, and the number of requests does not know the arm.
const LEAST_STRATUM: u64 = 10;
/// Shares of the capital of each test; they sum to one.
const FAILURES_SHARE: f64 = 0.5;
const ERRORS_SHARE: f64 = 0.25;
const PROMISE_SHARE: f64 = 0.25;
/// Above this share of the requests the coin says little of the candidate.
const COMPARABLE_SHARE: f64 = 0.55;

/// Judges one candidate revision by its strata.
///
/// Condemned is a candidate when the weighted mean of three e-processes reaches 1/alpha:
/// failures against stable's (half of the capital), failures and 4xx answers together against
/// stable's (a quarter; a 4xx is no failure by itself), and the promise `maxErrorRate` (a quarter). The last is the lesser of two e-processes: the
/// candidate's rate is above the promise, in seconds in which stable keeps it; and the candidate
/// is worse than stable at all. The lesser is an e-process for a candidate of which either is
/// untrue, so one that is no worse than stable is safe in any outage.
#[derive(Debug, Clone)]
pub struct Analysis {
    rules: Rules,
    failures: Relative,
    errors: Relative,
    worse: Relative,
    promise: Absolute,
    window: Window,
    fences: BTreeMap<i64, Fence>,
    /// Fences that are told apart no more, and those of the leader before.
    closed: ClosedEvidence,
    condemned: Option<String>,
}

/// Evidence of one fence.
#[derive(Debug, Clone)]
struct Fence {
    tally: Tally,
    /// Small strata that wait for more.
    pool: Tally,
    /// The candidate's rate against the promise, stable unseen.
    breach: Absolute,
}

/// Both arms' requests, failures and 4xx answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub stable: Counts,
    pub candidate: Counts,
    client_errors: (u64, u64),
}

impl Analysis {
    /// Goes on from the evidence of the fences that are over, or begins, with the default.
    #[must_use]
    pub fn new(rules: &Rules, closed: ClosedEvidence) -> Self {
        let rules = within_bounds(rules);
        let observed = |i: usize| closed.observed.get(i).copied().unwrap_or(0);
        let tolerated = rules.max_relative_risk;
        let mut analysis = Self {
            failures: Relative::new(tolerated, (&closed.log_relative, observed(0))),
            errors: Relative::new(tolerated, (&closed.log_errors, observed(1))),
            worse: Relative::new(1.0, (&closed.log_worse, observed(2))),
            promise: Absolute::new(rules.max_error_rate, (&closed.log_absolute, observed(3))),
            window: Window::new(rules.max_error_rate),
            fences: BTreeMap::new(),
            condemned: None,
            closed,
            rules,
        };
        let whole = analysis.whole();
        analysis.condemn(whole, whole);
        analysis
    }

    /// Takes in one stratum of `fence` that arrived at `at`. Evidence of a fence that was closed
    /// before this analysis began is in it already and left out.
    pub fn add(&mut self, fence: i64, stratum: &Stratum, at: Millis) {
        if fence <= self.closed.through_fence {
            return;
        }
        let tally = Tally::of(stratum);
        self.window.add(at, tally.stable, tally.candidate);
        for candidate in self.window.kept_by_stable() {
            self.promise.observe(candidate);
        }
        let seen = self.fences.entry(fence).or_insert_with(|| Fence {
            tally: Tally::default(),
            pool: Tally::default(),
            breach: Absolute::new(self.rules.max_error_rate, (&[], 0)),
        });
        seen.tally = seen.tally.plus(&tally);
        seen.breach.observe(tally.candidate);
        let ready = seen.whole_stratum(tally);
        let seen = seen.tally;
        if let Some(stratum) = ready {
            self.compare(&stratum);
        }
        self.merge_oldest();
        self.condemn(seen, self.whole());
    }

    /// What is known at `now` while `current_fence` is in force.
    #[must_use]
    pub fn view(&self, current_fence: i64, now: Millis) -> EvidenceView {
        let whole = self.whole();
        let closed = self.close(current_fence);
        let promotion = promotion::judge(&closed.fences, &self.rules);
        let current = self.fences.get(&current_fence);
        let outage = self.window.outage(now);
        let breach = current.filter(|fence| {
            outage.is_none() && fence.breaches(&self.rules) && !self.window.stable_breaks(now)
        });
        EvidenceView {
            stable: whole.stable,
            candidate: whole.candidate,
            condemned: self.condemned.clone(),
            breach: breach.map(|fence| sentence::breach(&fence.tally, &self.rules)),
            shared_outage: outage
                .map(|(stable, candidate)| sentence::outage(stable, candidate, &self.rules)),
            sufficient: promotion.sufficient && self.condemned.is_none(),
            needed: promotion.needed.saturating_add(closed.unpaired.1.requests),
            in_step: current.map_or(0, |fence| fence.tally.candidate.requests),
            closed,
        }
    }

    fn compare(&mut self, stratum: &Tally) {
        self.failures.observe(stratum.stable, stratum.candidate);
        self.worse.observe(stratum.stable, stratum.candidate);
        self.errors
            .observe(stratum.stable_errors(), stratum.candidate_errors());
    }

    /// Condemns once the capital reaches 1/alpha. The sentence tells of the fence if the
    /// candidate did worse in it than before, else of the whole.
    fn condemn(&mut self, fence: Tally, whole: Tally) {
        if self.condemned.is_some() {
            return;
        }
        let promise = self.promise.log_value().min(self.worse.log_value());
        let terms = [
            FAILURES_SHARE.ln() + self.failures.log_value(),
            ERRORS_SHARE.ln() + self.errors.log_value(),
            PROMISE_SHARE.ln() + promise,
        ];
        let capital = terms.into_iter().fold(f64::NEG_INFINITY, log_add);
        if capital < -self.rules.alpha.ln() {
            return;
        }
        let tally = if fence.gap() > whole.gap() {
            fence
        } else {
            whole
        };
        let [failures, errors, promise] = terms;
        let words = if errors > failures.max(promise) {
            sentence::more_errors
        } else if promise > failures {
            sentence::broken_promise
        } else {
            sentence::worse
        };
        self.condemned = Some(words(&tally, &self.rules));
    }

    /// Totals of the revision.
    fn whole(&self) -> Tally {
        let closed = self
            .closed
            .fences
            .iter()
            .chain([&self.closed.unpaired])
            .map(|&(stable, candidate)| Tally {
                stable,
                candidate,
                ..Tally::default()
            });
        let open = self.fences.values().map(|fence| fence.tally);
        closed
            .chain(open)
            .fold(Tally::default(), |sum, tally| sum.plus(&tally))
    }

    /// All evidence up to now, as a later leader will start from it.
    fn close(&self, through_fence: i64) -> ClosedEvidence {
        let mut closed = self.closed.clone();
        for fence in self.fences.values() {
            closed.take_in(fence.tally.stable, fence.tally.candidate);
        }
        closed.through_fence = through_fence.max(closed.through_fence);
        let kept = [
            self.failures.kept(),
            self.errors.kept(),
            self.worse.kept(),
            self.promise.kept(),
        ];
        closed.observed = kept.iter().map(|(_, observed)| *observed).collect();
        [
            closed.log_relative,
            closed.log_errors,
            closed.log_worse,
            closed.log_absolute,
        ] = kept.map(|(logs, _)| logs);
        closed
    }

    fn merge_oldest(&mut self) {
        while self.fences.len() > MAX_FENCES / 2 {
            if let Some((_, fence)) = self.fences.pop_first() {
                self.closed
                    .take_in(fence.tally.stable, fence.tally.candidate);
            }
        }
    }
}

impl ClosedEvidence {
    fn take_in(&mut self, stable: Counts, candidate: Counts) {
        if stable.requests == 0 || candidate.requests == 0 {
            self.unpaired = add(self.unpaired, (stable, candidate));
            return;
        }
        self.fences.push((stable, candidate));
        while self.fences.len() > MAX_FENCES {
            let oldest = self.fences.remove(0);
            self.fences[0] = add(self.fences[0], oldest);
        }
    }
}

impl Fence {
    /// The stratum that can be compared now: this one, or the pool that it has filled.
    fn whole_stratum(&mut self, stratum: Tally) -> Option<Tally> {
        if stratum.requests() >= LEAST_STRATUM {
            return Some(stratum);
        }
        self.pool = self.pool.plus(&stratum);
        (self.pool.requests() >= LEAST_STRATUM).then(|| std::mem::take(&mut self.pool))
    }

    fn breaches(&self, rules: &Rules) -> bool {
        let candidate = self.tally.candidate.requests as f64;
        candidate > COMPARABLE_SHARE * self.tally.requests() as f64
            && self.breach.log_value() >= -rules.alpha.ln()
    }
}

impl Tally {
    /// Hostile counters may say that more went wrong than was asked.
    fn of(stratum: &Stratum) -> Self {
        let counts = |arm: &ArmDelta| Counts {
            requests: arm
                .requests
                .max(arm.failures.saturating_add(arm.client_errors)),
            failures: arm.failures,
        };
        Self {
            stable: counts(&stratum.stable),
            candidate: counts(&stratum.candidate),
            client_errors: (
                stratum.stable.client_errors,
                stratum.candidate.client_errors,
            ),
        }
    }

    fn plus(&self, other: &Self) -> Self {
        let (stable, candidate) = self.client_errors;
        Self {
            stable: self.stable.plus(other.stable),
            candidate: self.candidate.plus(other.candidate),
            client_errors: (
                stable.saturating_add(other.client_errors.0),
                candidate.saturating_add(other.client_errors.1),
            ),
        }
    }

    fn requests(&self) -> u64 {
        self.stable.requests.saturating_add(self.candidate.requests)
    }

    /// By how much the candidate fails or answers 4xx more often.
    fn gap(&self) -> f64 {
        self.candidate_errors().rate() - self.stable_errors().rate()
    }

    /// Stable's requests, with failures and 4xx answers together.
    pub fn stable_errors(&self) -> Counts {
        self.stable.and_errors(self.client_errors.0)
    }

    /// The candidate's requests, with failures and 4xx answers together.
    pub fn candidate_errors(&self) -> Counts {
        self.candidate.and_errors(self.client_errors.1)
    }
}

impl Counts {
    fn and_errors(self, client_errors: u64) -> Self {
        self.plus(Self {
            requests: 0,
            failures: client_errors,
        })
    }
}

fn add(one: (Counts, Counts), other: (Counts, Counts)) -> (Counts, Counts) {
    (one.0.plus(other.0), one.1.plus(other.1))
}

/// The rules, within the ranges for which the formulas are defined.
fn within_bounds(rules: &Rules) -> Rules {
    let within = |value: f64, low: f64, high: f64| {
        if value.is_nan() {
            low
        } else {
            value.clamp(low, high)
        }
    };
    Rules {
        max_error_rate: within(rules.max_error_rate, 1e-6, 0.999),
        max_relative_risk: within(rules.max_relative_risk, 1.0, 1e4),
        alpha: within(rules.alpha, 1e-9, 0.5),
        promotion_alpha: within(rules.promotion_alpha, 1e-6, 0.5),
        ..rules.clone()
    }
}
