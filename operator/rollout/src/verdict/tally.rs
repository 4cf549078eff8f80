//! What was seen of both arms together.

use std::collections::BTreeSet;

use sluice_evidence::{ArmDelta, Stratum};

use crate::observation::{Counts, Witness};

/// Both arms' requests, failures and 4xx answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub stable: Counts,
    pub candidate: Counts,
    pub client_errors: (u64, u64),
}

impl Tally {
    /// Hostile counters may say that more went wrong than was asked.
    pub fn of(stratum: &Stratum) -> Self {
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

    pub fn plus(&self, other: &Self) -> Self {
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

    /// Without what these pods of the candidate answered.
    pub fn without(self, pods: &[(String, ArmDelta)], left_out: &BTreeSet<Witness>) -> Self {
        let is_left_out = |pod: &str| {
            let mut names = left_out.iter();
            names.any(|witness| matches!(witness, Witness::Pod(name) if name == pod))
        };
        pods.iter()
            .filter(|(pod, _)| is_left_out(pod))
            .fold(self, |tally, (_, delta)| Self {
                candidate: without(tally.candidate, delta.requests, delta.failures),
                ..tally
            })
    }

    pub fn requests(&self) -> u64 {
        self.stable.requests.saturating_add(self.candidate.requests)
    }

    /// By how much the candidate fails or answers 4xx more often.
    pub fn gap(&self) -> f64 {
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

/// Counts without a part of them.
pub(super) fn without(counts: Counts, requests: u64, failures: u64) -> Counts {
    let failures = counts.failures.saturating_sub(failures);
    Counts {
        requests: counts.requests.saturating_sub(requests).max(failures),
        failures,
    }
}
