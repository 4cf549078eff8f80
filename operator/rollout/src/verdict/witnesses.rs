//! Who says that the candidate fails: many, or one alone?
//!
//! What one proxy, or one pod, says alone does not condemn, where others of its kind could tell
//! and say otherwise. This only ever takes condemnations away: what is asked first is whether
//! the e-process of all evidence has reached 1/alpha, so its promise stays as it is.

use std::collections::{BTreeMap, VecDeque};

use sluice_evidence::ArmDelta;

use super::relative::Relative;
use super::tally::without;
use crate::Millis;
use crate::observation::{Counts, Witness};

/// Seconds that are compared.
const SECONDS: i64 = 10;
/// Most proxies, and most pods, that are told apart; the rest are one crowd that is heard, and
/// never accused.
const MAX_TOLD_APART: usize = 1024;
const CROWD: &str = "";
/// Failures that the others would have seen, at the accuser's rate, to be able to tell.
const TELLING: f64 = 3.0;
/// Chance at which that they saw as few is no chance.
const CONTRADICTION: f64 = 0.05;
/// The others confirm a verdict when they alone are so far from a good candidate: one proxy that
/// forges has a good release condemned with a chance of at most one in this many.
const CONFIRMATION: f64 = 20.0;
/// Reports of the others may be on their way for that long.
const GRACE_MS: i64 = 1_000;
/// Others that will be able to tell by then are waited for that long.
const PATIENCE_MS: i64 = 3_000;
/// The share of their requests that is taken to reach the candidate, at least.
const LEAST_SHARE: f64 = 0.1;

/// What is to be done with a verdict of all evidence.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// It stands.
    Confirmed,
    /// The others may tell in a moment.
    Unclear,
    /// One alone says so.
    Alone(Alone),
}

/// One accuser against all others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alone {
    pub who: Witness,
    pub accuser: Counts,
    pub others: Counts,
}

/// Both arms as one witness saw them.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    stable: Counts,
    candidate: Counts,
}

impl Seen {
    fn plus(self, other: Self) -> Self {
        Self {
            stable: self.stable.plus(other.stable),
            candidate: self.candidate.plus(other.candidate),
        }
    }
}

/// The last seconds of every proxy and every pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Witnesses {
    proxies: Sheets,
    /// Of the candidate; none of them has a stable arm.
    pods: Sheets,
    /// The contest that is on, and what all others than its accuser saw since it began.
    contest: Option<(Alone, Seen)>,
}

#[derive(Debug, Clone, Default)]
struct Sheets(BTreeMap<String, VecDeque<(i64, Seen)>>);

impl Witnesses {
    /// Takes in what a proxy saw, as (stable, candidate), and which pods of the candidate that
    /// was.
    pub fn add(
        &mut self,
        at: Millis,
        proxy: &str,
        (stable, candidate): (Counts, Counts),
        pods: &[(String, ArmDelta)],
    ) {
        let second = at.div_euclid(1000);
        let seen = Seen { stable, candidate };
        self.proxies.add(second, proxy, seen);
        for (pod, delta) in pods {
            let candidate = Counts {
                requests: delta.requests.max(delta.failures),
                failures: delta.failures,
            };
            let of_pod = Seen {
                candidate,
                ..Seen::default()
            };
            self.pods.add(second, pod, of_pod);
        }
        let Some((alone, others)) = &mut self.contest else {
            return;
        };
        match &alone.who {
            Witness::Proxy(accuser) if accuser == proxy => {}
            Witness::Proxy(_) => *others = others.plus(seen),
            Witness::Pod(accused) => {
                let accused = pods.iter().filter(|(pod, _)| pod == accused);
                let (requests, failures) = accused.fold((0, 0), |(requests, failures), (_, d)| {
                    (requests + d.requests, failures + d.failures)
                });
                let candidate = without(candidate, requests, failures);
                *others = others.plus(Seen { stable, candidate });
            }
        }
    }

    /// Judges a verdict that all evidence came to `waited_ms` ago. `heed_pods`: whether a pod
    /// may still be at fault instead of the revision.
    pub fn judge(&mut self, now: Millis, waited_ms: i64, heed_pods: bool) -> Finding {
        if let Some((alone, others)) = &self.contest {
            if !confirms(*others) {
                return Finding::Alone(alone.clone());
            }
            let was_pod = matches!(alone.who, Witness::Pod(_));
            self.contest = None;
            if was_pod {
                return Finding::Confirmed;
            }
        }
        let second = now.div_euclid(1000);
        match self.compare(second, waited_ms, heed_pods) {
            Compared::Confirmed => Finding::Confirmed,
            Compared::Unclear => Finding::Unclear,
            Compared::Alone(alone, others) => {
                self.contest = Some((alone.clone(), others));
                Finding::Alone(alone)
            }
        }
    }

    /// Proxies first: one that forges could name any pod, but a broken pod is seen by all.
    fn compare(&self, second: i64, waited_ms: i64, heed_pods: bool) -> Compared {
        let proxies = &self.proxies;
        let of_proxies = proxies.compare(second, waited_ms, Witness::Proxy, None);
        if !heed_pods || !matches!(of_proxies, Compared::Confirmed) {
            return of_proxies;
        }
        let stable = proxies.sum(second).stable;
        self.pods
            .compare(second, waited_ms, Witness::Pod, Some(stable))
    }

    /// The accused pod of the contest, once it gets no requests any more while others do: it is
    /// gone, or its place was taken.
    pub fn gone(&self, now: Millis) -> Option<Witness> {
        let (Alone { who, .. }, _) = self.contest.as_ref()?;
        let Witness::Pod(pod) = who else { return None };
        let second = now.div_euclid(1000);
        let others = self.pods.sum(second).candidate.requests;
        let its = self.pods.of(second, pod).candidate.requests;
        (its == 0 && others as f64 >= TELLING).then(|| who.clone())
    }
}

enum Compared {
    Confirmed,
    Unclear,
    Alone(Alone, Seen),
}

impl Sheets {
    fn add(&mut self, second: i64, name: &str, seen: Seen) {
        let name = if self.0.contains_key(name) || self.make_room(second) {
            name
        } else {
            CROWD
        };
        let sheet = self.0.entry(name.to_owned()).or_default();
        match sheet.back_mut() {
            Some((at, sum)) if *at >= second => *sum = sum.plus(seen),
            _ => sheet.push_back((second, seen)),
        }
        while sheet.front().is_some_and(|(at, _)| *at <= second - SECONDS) {
            sheet.pop_front();
        }
    }

    fn make_room(&mut self, second: i64) -> bool {
        if self.0.len() >= MAX_TOLD_APART {
            let is_recent = |(at, _): &(i64, Seen)| *at > second - SECONDS;
            self.0
                .retain(|_, sheet| sheet.back().is_some_and(is_recent));
        }
        self.0.len() < MAX_TOLD_APART
    }

    fn of(&self, second: i64, name: &str) -> Seen {
        self.0
            .get(name)
            .map_or_else(Seen::default, |sheet| recent(sheet, second))
    }

    fn sum(&self, second: i64) -> Seen {
        let sheets = self.0.values().map(|sheet| recent(sheet, second));
        sheets.fold(Seen::default(), Seen::plus)
    }

    /// Seconds that the sheets go back.
    fn span(&self, second: i64) -> f64 {
        let begins = self.0.values().filter_map(|sheet| sheet.front());
        let first = begins.map(|(at, _)| *at).min().unwrap_or(second);
        (second - first + 1).clamp(1, SECONDS) as f64
    }

    /// Whoever saw most failures against all others. `stable`: what the others are compared
    /// with, where their own sheets do not tell.
    fn compare(
        &self,
        second: i64,
        waited_ms: i64,
        witness: fn(String) -> Witness,
        stable: Option<Counts>,
    ) -> Compared {
        let seen = self
            .0
            .iter()
            .map(|(name, sheet)| (name, recent(sheet, second)));
        let accuser = seen
            .filter(|(name, seen)| *name != CROWD && seen.candidate.failures > 0)
            .max_by_key(|(_, seen)| seen.candidate.failures);
        let Some((name, accuser)) = accuser else {
            return Compared::Confirmed;
        };
        let rest = self.0.iter().filter(|(other, _)| *other != name);
        let rest = rest.map(|(_, sheet)| recent(sheet, second));
        let mut others = rest.fold(Seen::default(), Seen::plus);
        let total = others.stable.plus(others.candidate).requests as f64;
        if let Some(stable) = stable {
            others.stable = stable;
        }
        let rate = accuser.candidate.rate();
        let expected = rate * others.candidate.requests as f64;
        let candidate = (LEAST_SHARE * total).max(others.candidate.requests as f64);
        let soon = rate * candidate / self.span(second) * (PATIENCE_MS as f64 / 1000.0);
        if confirms(others) {
            return Compared::Confirmed;
        }
        if expected < TELLING {
            return if soon >= TELLING && waited_ms < PATIENCE_MS {
                Compared::Unclear
            } else {
                Compared::Confirmed
            };
        }
        if chance_of_at_most(others.candidate.failures, expected) > CONTRADICTION {
            return Compared::Confirmed;
        }
        if waited_ms < GRACE_MS {
            return Compared::Unclear;
        }
        let alone = Alone {
            who: witness(name.clone()),
            accuser: accuser.candidate,
            others: others.candidate,
        };
        Compared::Alone(alone, others)
    }
}

fn recent(sheet: &VecDeque<(i64, Seen)>, second: i64) -> Seen {
    let recent = sheet.iter().filter(|(at, _)| *at > second - SECONDS);
    recent.fold(Seen::default(), |sum, (_, seen)| sum.plus(*seen))
}

/// Whether these requests alone show a candidate that is worse than stable. They are taken as
/// one stratum: the same coin placed them, but for steps of the last seconds.
fn confirms(others: Seen) -> bool {
    let mut alone = Relative::new(1.0, (&[], 0));
    alone.observe(others.stable, others.candidate);
    alone.log_value() >= CONFIRMATION.ln()
}

/// The chance of at most `seen` events where `mean` are expected (Poisson); above a hundred by
/// the normal distribution.
fn chance_of_at_most(seen: u64, mean: f64) -> f64 {
    if mean > 100.0 {
        let z = (seen as f64 + 0.5 - mean) / mean.sqrt();
        return if z <= -1.645 { CONTRADICTION } else { 1.0 };
    }
    let mut term = (-mean).exp();
    let mut sum = term;
    for k in 1..=seen.min(1_000) {
        term *= mean / k as f64;
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_chances_are_those_of_the_tables() {
        for (seen, mean, chance) in [(0, 3.0, 0.0498), (1, 3.0, 0.1991), (4, 10.0, 0.0293)] {
            assert!((chance_of_at_most(seen, mean) - chance).abs() < 5e-5);
        }
        assert!(chance_of_at_most(900, 1_000.0) <= CONTRADICTION);
        assert!(chance_of_at_most(990, 1_000.0) > CONTRADICTION);
    }

    #[test]
    fn endless_names_take_a_bounded_place_and_are_still_heard() {
        let mut witnesses = Witnesses::default();
        let one = Counts {
            requests: 1,
            failures: 0,
        };
        for n in 0..5_000 {
            witnesses.add(1_000, &format!("proxy-{n}"), (one, one), &[]);
        }
        assert_eq!(witnesses.proxies.0.len(), MAX_TOLD_APART + 1);
        assert_eq!(witnesses.proxies.sum(1).stable.requests, 5_000);
    }
}
