//! What the proxies saw, for the next decision: how they stand to the split, and the verdict on
//! the candidate.

use std::{collections::BTreeSet, net::IpAddr};

use sluice_evidence::{Claim, Cursor, Table};
use sluice_rollout::{
    Millis,
    observation::{ClosedEvidence, EvidenceView, SplitView, Witness},
    policy::Rules,
    state::Candidate,
    verdict::{Analysis, Ignored},
};

/// How often claims are compared with what came, ms; by then what came has been told.
const COMPARE_MS: u64 = 6_000;
/// A claim is too large above so many times what came, and so many requests more.
const TIMES: u64 = 2;
const SLACK: u64 = 50;

/// The analysis of one try of one revision in one term of leadership.
pub struct Evidence {
    basis: Basis,
    cursor: Cursor,
    analysis: Analysis,
    /// What was in the state when the analysis began.
    begun: ClosedEvidence,
    ignored: Ignored,
    /// Why some are not believed, one sentence each; those that were not told yet come last.
    doubts: Vec<String>,
    told: usize,
    claims: Vec<Claim>,
    compared_ms: u64,
}

/// The other end of what proxies say that they sent.
pub struct Arrived<'a> {
    /// Uids of the candidate's pods.
    pub pods: Vec<&'a str>,
    /// The address of a pod, by namespace, name and uid.
    pub address_of: &'a dyn Fn(&str, &str, &str) -> Option<IpAddr>,
}

/// What an analysis belongs to; when any of it changes, it begins anew from the state.
#[derive(Clone, Debug, PartialEq)]
struct Basis {
    term: i32,
    revision: String,
    started: Millis,
    rules: Rules,
    /// By people, and the pod that fails alone.
    set_aside: BTreeSet<Witness>,
}

impl Evidence {
    /// The analysis of this candidate: the one in hand if it is the right one, else one that
    /// goes on from what the state holds.
    #[must_use]
    pub fn of(held: Option<Self>, term: i32, candidate: &Candidate, rules: &Rules) -> Self {
        let pod_fault = candidate.pod_fault.iter();
        let faulty = pod_fault.map(|fault| Witness::Pod(fault.pod.clone()));
        let basis = Basis {
            term,
            revision: candidate.arm.revision.clone(),
            started: candidate.started,
            rules: rules.clone(),
            set_aside: candidate.set_aside.iter().cloned().chain(faulty).collect(),
        };
        if let Some(held) = held.filter(|held| held.basis == basis) {
            return held;
        }
        let ignored = Ignored {
            set_aside: basis.set_aside.clone(),
            ..Ignored::default()
        };
        let begun = candidate.closed.clone();
        Self {
            analysis: Analysis::without(&basis.rules, begun.clone(), ignored.clone()),
            cursor: Cursor::default(),
            begun,
            ignored,
            doubts: Vec::new(),
            told: 0,
            claims: Vec::new(),
            compared_ms: 0,
            basis,
        }
    }

    /// Compares what proxies say that they sent to the candidate with what its pods say came
    /// from them. Who claims too much is not believed from now on. Nobody is doubted where it
    /// cannot be told: a pod without a proxy that was just heard of, or a port that proxies do
    /// not see.
    pub fn compare(&mut self, table: &Table, services: &[String], to: &Arrived<'_>, now_ms: u64) {
        if now_ms < self.compared_ms + COMPARE_MS {
            return;
        }
        self.compared_ms = now_ms;
        self.hold(table, to, now_ms);
        let after = self.begun.through_fence;
        self.claims = table.claims(services, &self.basis.revision, after);
    }

    /// Holds the claims of some time ago against what has come by now.
    fn hold(&mut self, table: &Table, to: &Arrived<'_>, now_ms: u64) {
        let mut sees = false;
        let mut liars = Vec::new();
        for claim in std::mem::take(&mut self.claims) {
            let Claim {
                namespace,
                pod,
                pod_uid,
                requests,
            } = &claim;
            let Some(address) = (to.address_of)(namespace, pod, pod_uid) else {
                continue;
            };
            let mut came = 0;
            for uid in &to.pods {
                let (requests, is_vague) = table.came_from(uid, address, now_ms);
                if is_vague {
                    return;
                }
                came += requests;
            }
            sees |= came > 0;
            if *requests > came.saturating_mul(TIMES).saturating_add(SLACK) {
                liars.push((claim, came));
            }
        }
        if sees && !to.pods.is_empty() {
            liars
                .into_iter()
                .for_each(|(claim, came)| self.doubt(&claim, came));
        }
    }

    fn doubt(&mut self, claim: &Claim, came: u64) {
        let witness = Witness::Proxy(format!("{}/{}", claim.namespace, claim.pod));
        let sentence = format!(
            "{witness} says that it sent the candidate {} requests, of which the candidate's pods saw {came}: \
             its word does not count against the revision",
            claim.requests
        );
        if self.ignored.doubted.insert(witness) {
            self.doubts.push(sentence);
            self.begin_anew();
        }
    }

    /// The doubts that nobody was told of yet.
    pub fn news(&mut self) -> Vec<String> {
        let news = self.doubts[self.told..].to_vec();
        self.told = self.doubts.len();
        news
    }

    /// From the evidence that the state held, and what the table holds since.
    fn begin_anew(&mut self) {
        let (rules, ignored) = (&self.basis.rules, self.ignored.clone());
        self.analysis = Analysis::without(rules, self.begun.clone(), ignored);
        self.cursor = Cursor::default();
    }

    /// Reads what is new in the table; what is known now. `services` as `NAMESPACE/NAME`.
    pub fn read(
        &mut self,
        table: &Table,
        services: &[String],
        fence: i64,
        now: Millis,
    ) -> EvidenceView {
        self.take(table, services, now);
        if let Some(pod) = self.analysis.replaced(now) {
            self.ignored.doubted.insert(pod);
            self.begin_anew();
            self.take(table, services, now);
        }
        EvidenceView {
            doubted: self.doubts.clone(),
            ..self.analysis.view(fence, now)
        }
    }

    fn take(&mut self, table: &Table, services: &[String], now: Millis) {
        let after = self.begun.through_fence;
        let revision = &self.basis.revision;
        for growth in self.cursor.take(table, services, revision, after) {
            self.analysis.add(&growth, now);
        }
    }
}

/// How the proxies stand to a split, all its services together, and who keeps it back.
#[must_use]
pub fn standing(
    table: &Table,
    services: &[String],
    fence: Option<i64>,
    complete: bool,
    now_ms: u64,
) -> (SplitView, Vec<String>) {
    let mut view = SplitView {
        fence,
        complete,
        ..SplitView::default()
    };
    let mut laggards = Vec::new();
    let Some(fence) = fence else {
        return (view, laggards);
    };
    for service in services {
        let standing = table.standing(service, fence, now_ms);
        view.expected += standing.expected;
        view.applied += standing.applied;
        view.behind += standing.behind;
        view.away += standing.away;
        view.refusal = view.refusal.or(standing.refusal);
        laggards.extend(standing.laggards);
    }
    (view, laggards)
}

#[cfg(test)]
mod tests;
