//! The analysis of one candidate revision: strata in, a view for the next decision out.

use std::collections::{BTreeMap, BTreeSet};

use sluice_evidence::Growth;

use super::absolute::Absolute;
use super::mixture::log_add;
use super::relative::Relative;
use super::share::Shares;
use super::tally::{Tally, without};
use super::window::Window;
use super::witnesses::{Finding, Witnesses};
use super::{promotion, sentence};
use crate::Millis;
use crate::observation::{ClosedEvidence, Contest, Counts, EvidenceView, Witness};
use crate::policy::Rules;

/// Most fences that are told apart; the oldest are put together.
const MAX_FENCES: usize = 40;
/// Strata with fewer requests are put together with others of their fence first. Alone they say
/// little (of a failing request and one good one, half of the failures fall on either arm by
/// chance), and slow services have no others. That is exact too: a fence is one weight, so all
/// its requests were placed by the same coin, and the number of requests does not know the arm.
const LEAST_STRATUM: u64 = 10;
/// Shares of the capital of each test; they sum to one.
const FAILURES_SHARE: f64 = 0.6;
const ERRORS_SHARE: f64 = 0.2;
const PROMISE_SHARE: f64 = 0.2;
/// Above this share of the requests the coin says little of the candidate.
const COMPARABLE_SHARE: f64 = 0.55;

/// Judges one candidate revision by its strata.
///
/// Condemned is a candidate when the weighted mean of three e-processes reaches 1/alpha:
/// failures against stable's (three fifths of the capital), failures and 4xx answers together against
/// stable's (a fifth; a 4xx is no failure by itself), and the promise `maxErrorRate` (a fifth). The last is the lesser of two e-processes: the
/// candidate's rate is above the promise, in seconds in which stable keeps it; and the candidate
/// is worse than stable at all. The lesser is an e-process for a candidate of which either is
/// untrue, so one that is no worse than stable is safe in any outage.
///
/// What reaches 1/alpha condemns once the [`Witnesses`] do not contradict: that only takes
/// condemnations away, so alpha stays what it is, whoever is asked and however often.
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
    ignored: Ignored,
    witnesses: Witnesses,
    accusation: Option<Accusation>,
    condemned: Option<String>,
    contested: Option<Contest>,
}

/// Witnesses that are left out. Without them an e-process is one of the others alone. They are
/// named after a look at what they say; as long as all proxies tell the truth and every pod is as
/// good as the next, leaving some out for what they say against the candidate only spares it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Not believed when they condemn. What they say still counts where a promotion is asked
    /// for: no promotion becomes easier.
    pub doubted: BTreeSet<Witness>,
    /// Set aside by a person, or a pod that gets no requests any more because it fails alone: left
    /// out of everything.
    pub set_aside: BTreeSet<Witness>,
}

impl Ignored {
    /// Whether a pod has been found at fault already; a second one is the revision's.
    fn has_pod(&self) -> bool {
        let mut all = self.doubted.iter().chain(&self.set_aside);
        all.any(|witness| matches!(witness, Witness::Pod(_)))
    }
}

/// The capital has reached 1/alpha.
#[derive(Debug, Clone)]
struct Accusation {
    sentence: String,
    since: Millis,
}

/// Evidence of one fence.
#[derive(Debug, Clone)]
struct Fence {
    tally: Tally,
    /// Of the candidate's requests those that each proxy tells of.
    shares: Shares,
    /// Small strata that wait for more.
    pool: Tally,
    /// The candidate's rate against the promise, stable unseen.
    breach: Absolute,
}

impl Analysis {
    /// Goes on from the evidence of the fences that are over, or begins, with the default.
    #[must_use]
    pub fn new(rules: &Rules, closed: ClosedEvidence) -> Self {
        Self::without(rules, closed, Ignored::default())
    }

    /// The same, with some left out of what is added.
    #[must_use]
    pub fn without(rules: &Rules, closed: ClosedEvidence, ignored: Ignored) -> Self {
        let rules = within_bounds(rules);
        let observed = |i: usize| closed.observed.get(i).copied().unwrap_or(0);
        let tolerated = rules.max_relative_risk;
        Self {
            failures: Relative::new(tolerated, (&closed.log_relative, observed(0))),
            errors: Relative::new(tolerated, (&closed.log_errors, observed(1))),
            worse: Relative::new(1.0, (&closed.log_worse, observed(2))),
            promise: Absolute::new(rules.max_error_rate, (&closed.log_absolute, observed(3))),
            window: Window::new(rules.max_error_rate),
            fences: BTreeMap::new(),
            ignored,
            witnesses: Witnesses::default(),
            accusation: None,
            condemned: None,
            contested: None,
            closed,
            rules,
        }
    }

    /// Takes in what one proxy saw, and what arrived at `at`. Evidence of a fence that was closed
    /// before this analysis began is in it already and left out.
    pub fn add(&mut self, growth: &Growth, at: Millis) {
        let fence = growth.fence;
        let proxy = Witness::Proxy(growth.reporter.clone());
        if fence <= self.closed.through_fence || self.ignored.set_aside.contains(&proxy) {
            return;
        }
        let told = Tally::of(&growth.stratum).without(&growth.pods, &self.ignored.set_aside);
        let seen = self.fences.entry(fence).or_insert_with(|| Fence {
            tally: Tally::default(),
            shares: Shares::default(),
            pool: Tally::default(),
            breach: Absolute::new(self.rules.max_error_rate, (&[], 0)),
        });
        seen.tally = seen.tally.plus(&told);
        seen.shares.add(&growth.reporter, told.candidate);
        if self.ignored.doubted.contains(&proxy) {
            return;
        }
        let tally = told.without(&growth.pods, &self.ignored.doubted);
        let arms = (tally.stable, tally.candidate_errors());
        self.witnesses.add(at, &growth.reporter, arms, &growth.pods);
        self.window.add(at, tally.stable, tally.candidate);
        let kept = self.window.kept_by_stable();
        for candidate in &kept {
            self.promise.observe(*candidate);
        }
        let Some(seen) = self.fences.get_mut(&fence) else {
            return;
        };
        seen.breach.observe(tally.candidate);
        let ready = seen.whole_stratum(tally);
        let seen = seen.tally;
        if let Some(stratum) = &ready {
            self.compare(stratum);
        }
        self.merge_oldest();
        // Where nothing was compared, nothing has changed.
        if ready.is_some() || !kept.is_empty() {
            self.accuse(seen, at);
        }
    }

    /// A pod that was found at fault and gets no requests any more: the revision can be judged
    /// without it, by an analysis that begins anew.
    #[must_use]
    pub fn replaced(&self, now: Millis) -> Option<Witness> {
        self.witnesses.gone(now)
    }

    /// What is known at `now` while `current_fence` is in force.
    #[must_use]
    pub fn view(&mut self, current_fence: i64, now: Millis) -> EvidenceView {
        self.condemn(now);
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
            contested: self.contested.clone(),
            doubted: Vec::new(),
            breach: breach.map(|fence| sentence::breach(&fence.tally, &self.rules)),
            shared_outage: outage
                .map(|(stable, candidate)| sentence::outage(stable, candidate, &self.rules)),
            sufficient: promotion.sufficient && self.accusation.is_none(),
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

    /// Logs of the shares of the capital: failures, errors, promise.
    fn terms(&self) -> [f64; 3] {
        let promise = self.promise.log_value().min(self.worse.log_value());
        [
            FAILURES_SHARE.ln() + self.failures.log_value(),
            ERRORS_SHARE.ln() + self.errors.log_value(),
            PROMISE_SHARE.ln() + promise,
        ]
    }

    /// Accuses once the capital reaches 1/alpha. The sentence tells of the fence if the
    /// candidate did worse in it than before, else of the whole.
    fn accuse(&mut self, fence: Tally, at: Millis) {
        if self.accusation.is_some() {
            return;
        }
        let terms = self.terms();
        if capital(terms) < -self.rules.alpha.ln() {
            return;
        }
        let whole = self.whole();
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
        self.accusation = Some(Accusation {
            sentence: words(&tally, &self.rules),
            since: at,
        });
    }

    /// Condemns whom the capital accuses, unless one witness alone says so.
    fn condemn(&mut self, now: Millis) {
        let Some(accusation) = &self.accusation else {
            return;
        };
        if self.condemned.is_some() {
            return;
        }
        let waited = now.saturating_sub(accusation.since);
        let heed_pods = !self.ignored.has_pod();
        match self.witnesses.judge(now, waited, heed_pods) {
            Finding::Unclear => {}
            Finding::Confirmed => {
                self.contested = None;
                self.condemned = Some(accusation.sentence.clone());
            }
            Finding::Alone(alone) => {
                self.contested = Some(Contest {
                    why: sentence::alone(&alone),
                    witness: alone.who,
                });
            }
        }
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
        let cap = Shares::cap(self.fences.values().map(|fence| &fence.shares));
        for fence in self.fences.values() {
            let surplus = cap.as_ref().map_or(0, |cap| cap.surplus(&fence.shares));
            let candidate = without(fence.tally.candidate, surplus, 0);
            closed.take_in(fence.tally.stable, candidate);
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
        self.forget_accusation(&mut closed);
        closed
    }

    /// Whoever goes on from here does not know who accused: of a capital that has reached
    /// 1/alpha, and condemns nobody yet, only so much is left that it says nothing. Less capital
    /// is an e-process all the same.
    fn forget_accusation(&self, closed: &mut ClosedEvidence) {
        if self.accusation.is_none() || self.condemned.is_some() {
            return;
        }
        let excess = capital(self.terms()).max(0.0);
        let logs = [
            &mut closed.log_relative,
            &mut closed.log_errors,
            &mut closed.log_worse,
            &mut closed.log_absolute,
        ];
        for log in logs.into_iter().flatten() {
            *log -= excess;
        }
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

fn capital(terms: [f64; 3]) -> f64 {
    terms.into_iter().fold(f64::NEG_INFINITY, log_add)
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
