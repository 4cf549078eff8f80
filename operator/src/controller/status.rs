//! A MeshRollout's status as people and tools read it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sluice_crds::{ArmEvidence, EvidenceStatus, HistoryEntry, MeshRolloutStatus, RevisionStatus};
use sluice_rollout::{
    Millis,
    conditions::step_text,
    observation::{Counts, Observation, Workload},
    policy::Policy,
    state::{Outcome, Phase, State},
};

/// How often figures alone (evidence, ready pods, sentences with counts) are written at most.
const FIGURES: Duration = Duration::from_secs(2);
/// Those of so many rollouts are written that often. Where more try something at one time, each
/// writes them more rarely: all together they cost the apiserver no more.
const FIGURES_OF: u32 = 10;

/// How often one MeshRollout writes figures alone while so many try something.
#[must_use]
pub fn figures_every(trying: u32) -> Duration {
    FIGURES.max(FIGURES * trying / FIGURES_OF)
}

/// One condition, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its type.
    pub kind: &'static str,
    /// True, False or Unknown.
    pub status: &'static str,
    /// CamelCase.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

impl From<sluice_rollout::conditions::Condition> for Fact {
    fn from(told: sluice_rollout::conditions::Condition) -> Self {
        let sluice_rollout::conditions::Condition {
            kind,
            status,
            reason,
            message,
        } = told;
        Self {
            kind,
            status,
            reason,
            message,
        }
    }
}

/// The conditions with their times: that of a condition whose status is as before stays.
#[must_use]
pub fn merge(
    before: &[Condition],
    facts: Vec<Fact>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let since = |fact: &Fact| {
        let earlier = before
            .iter()
            .find(|c| c.type_ == fact.kind && c.status == fact.status);
        earlier.map_or(Time(now), |c| c.last_transition_time.clone())
    };
    facts
        .into_iter()
        .map(|fact| Condition {
            last_transition_time: since(&fact),
            type_: fact.kind.to_owned(),
            status: fact.status.to_owned(),
            reason: fact.reason.to_owned(),
            message: fact.message,
            observed_generation: Some(generation),
        })
        .collect()
}

/// Says what keeps the controller from acting, unless something worse is said already.
#[must_use]
pub fn with_hindrance(mut facts: Vec<Fact>, hindrance: Option<&str>) -> Vec<Fact> {
    let Some(hindrance) = hindrance else {
        return facts;
    };
    if facts.iter().any(|fact| fact.kind == "Stalled") {
        return facts;
    }
    facts.retain(|fact| fact.kind != "Ready" && fact.kind != "Reconciling");
    let (reason, message) = ("Hindered", hindrance.to_owned());
    facts.push(Fact {
        kind: "Ready",
        status: "Unknown",
        reason,
        message: message.clone(),
    });
    facts.push(Fact {
        kind: "Reconciling",
        status: "True",
        reason,
        message,
    });
    facts
}

/// What a status is made of.
pub struct Shown<'a> {
    /// The spec as it is gone by; none when it cannot be.
    pub policy: Option<&'a Policy>,
    /// The state to be written.
    pub state: &'a State,
    /// What it was decided on.
    pub seen: &'a Observation,
    /// The conditions.
    pub facts: Vec<Fact>,
    /// The generation of the spec that was decided on.
    pub generation: i64,
    /// The clock.
    pub now: Timestamp,
}

/// The status, whole.
///
/// # Errors
/// The state cannot be written as JSON: a fault of this program.
pub fn render(
    shown: Shown<'_>,
    before: &MeshRolloutStatus,
) -> serde_json::Result<MeshRolloutStatus> {
    let Shown {
        policy,
        state,
        seen,
        facts,
        generation,
        now,
    } = shown;
    let step = state.phase.step();
    Ok(MeshRolloutStatus {
        observed_generation: Some(generation),
        phase: Some(state.phase.name().to_owned()),
        step: step.and_then(|step| i32::try_from(step).ok()),
        step_text: policy
            .map(|policy| step_text(policy, state))
            .unwrap_or_default(),
        weight: state.weight,
        fence: state.fence,
        stable: state.stable.as_ref().map(|stable| RevisionStatus {
            revision: stable.revision.clone(),
            ready_pods: stable_pods(seen, &stable.revision),
        }),
        candidate: candidate(state, seen),
        evidence: state.candidate.is_some().then(|| evidence(seen)),
        verdict: state.verdict.clone(),
        history: history(state),
        conditions: merge(&before.conditions, facts, generation, now),
        state: Some(serde_json::to_value(state)?),
    })
}

fn stable_pods(seen: &Observation, revision: &str) -> i32 {
    match &seen.workload {
        Workload::Missing => 0,
        Workload::Deployment(view) => view
            .running
            .iter()
            .filter(|r| r.revision == revision)
            .map(|r| r.ready)
            .sum(),
        Workload::Subsets(view) if view.candidate_revision == revision => view.candidate_ready,
        Workload::Subsets(view) => view.stable_ready,
    }
}

/// The revision that is tried, or was rejected and is still what git wants.
fn candidate(state: &State, seen: &Observation) -> Option<RevisionStatus> {
    let tried = state
        .candidate
        .as_ref()
        .map(|candidate| candidate.arm.revision.clone());
    let rejected = || {
        let is_rejected = matches!(state.phase, Phase::Rejected { .. });
        state
            .rejected
            .first()
            .filter(|_| is_rejected)
            .map(|rejection| rejection.revision.clone())
    };
    let revision = tried.or_else(rejected)?;
    let ready_pods = match &seen.workload {
        Workload::Missing => 0,
        Workload::Deployment(view) => {
            let ours = view.candidate.as_ref().filter(|c| c.revision == revision);
            ours.map_or(0, |candidate| candidate.containers_ready)
        }
        Workload::Subsets(view) => view.candidate_ready,
    };
    Some(RevisionStatus {
        revision,
        ready_pods,
    })
}

fn evidence(seen: &Observation) -> EvidenceStatus {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let arm = |counts: &Counts| ArmEvidence {
        requests: number(counts.requests),
        failures: number(counts.failures),
    };
    let view = &seen.evidence;
    EvidenceStatus {
        stable: arm(&view.stable),
        candidate: arm(&view.candidate),
        needed: number(view.needed),
        text: format!("{}/{}", view.candidate.requests, view.needed),
    }
}

fn history(state: &State) -> Vec<HistoryEntry> {
    state
        .history
        .iter()
        .map(|ended| HistoryEntry {
            revision: ended.revision.clone(),
            outcome: match ended.outcome {
                Outcome::Promoted => "Promoted",
                Outcome::RolledBack => "RolledBack",
                Outcome::Replaced => "Replaced",
            }
            .to_owned(),
            why: ended.why.clone(),
            time: Time(timestamp(ended.at)),
        })
        .collect()
}

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or_default()
}

/// How two statuses differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In figures and sentences: worth a write now and then.
    Figures,
    /// In the state or in what a tool waits for: to be written before anything else is done.
    Substance,
}

/// Compares the status that stands with the one that should.
#[must_use]
pub fn difference(before: Option<&MeshRolloutStatus>, next: &MeshRolloutStatus) -> Difference {
    let Some(before) = before else {
        return Difference::Substance;
    };
    if before == next {
        return Difference::None;
    }
    let conditions = |status: &MeshRolloutStatus| -> Vec<_> {
        let told = status.conditions.iter();
        told.map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone()))
            .collect()
    };
    let substance = before.observed_generation != next.observed_generation
        || before.state != next.state
        || before.phase != next.phase
        || conditions(before) != conditions(next);
    if substance {
        Difference::Substance
    } else {
        Difference::Figures
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_rollout::{
        observation::{CandidateView, DeploymentView, EvidenceView, RunningRevision},
        state::{Arm, Candidate, Rejection},
    };

    use super::*;

    #[test]
    fn figures_of_many_rollouts_cost_no_more_writes_than_those_of_ten() {
        for trying in [0, 1, 10] {
            assert_eq!(figures_every(trying), Duration::from_secs(2));
        }
        assert_eq!(figures_every(100), Duration::from_secs(20));
    }

    fn ready(status: &'static str) -> Fact {
        Fact {
            kind: "Ready",
            status,
            reason: "Why",
            message: "because".to_owned(),
        }
    }

    fn observing() -> (State, Observation) {
        let arm = |revision: &str| Arm {
            revision: revision.to_owned(),
            ..Arm::default()
        };
        let state = State {
            fence: 7,
            weight: 25,
            phase: Phase::Observing { step: 1, since: 0 },
            stable: Some(arm("r1")),
            candidate: Some(Candidate {
                arm: arm("r2"),
                ..Candidate::default()
            }),
            ..State::default()
        };
        let running = RunningRevision {
            revision: "r1".to_owned(),
            ready: 3,
            pods: 3,
            ..Default::default()
        };
        let ours = CandidateView {
            revision: "r2".to_owned(),
            containers_ready: 1,
            ..Default::default()
        };
        let view = DeploymentView {
            running: vec![running],
            candidate: Some(ours),
            ..Default::default()
        };
        let counts = |requests, failures| Counts { requests, failures };
        let seen = Observation {
            workload: Workload::Deployment(view),
            evidence: EvidenceView {
                stable: counts(900, 1),
                candidate: counts(100, 2),
                needed: 400,
                ..EvidenceView::default()
            },
            ..Observation::default()
        };
        (state, seen)
    }

    fn shown<'a>(state: &'a State, seen: &'a Observation) -> Shown<'a> {
        let facts = vec![ready("Unknown")];
        Shown {
            policy: None,
            state,
            seen,
            facts,
            generation: 4,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_status_tells_phase_weight_pods_and_evidence() {
        let (state, seen) = observing();
        let status = render(shown(&state, &seen), &MeshRolloutStatus::default()).unwrap();
        assert_eq!(status.phase.as_deref(), Some("Observing"));
        assert_eq!((status.step, status.weight, status.fence), (Some(1), 25, 7));
        assert_eq!(status.stable.unwrap().ready_pods, 3);
        assert_eq!(status.candidate.unwrap().ready_pods, 1);
        let evidence = status.evidence.unwrap();
        assert_eq!(
            (evidence.text.as_str(), evidence.candidate.failures),
            ("100/400", 2)
        );
        assert_eq!(status.observed_generation, Some(4));
    }

    #[test]
    fn the_state_comes_back_as_it_was_written() {
        let (state, seen) = observing();
        let status = render(shown(&state, &seen), &MeshRolloutStatus::default()).unwrap();
        assert_eq!(
            serde_json::from_value::<State>(status.state.unwrap()).unwrap(),
            state
        );
    }

    #[test]
    fn a_rejected_revision_is_named_after_its_pods_are_gone() {
        let (state, seen) = observing();
        let rejected = Rejection {
            revision: "r2".to_owned(),
            why: "bad".to_owned(),
            at: 0,
        };
        let state = State {
            phase: Phase::Rejected { since: 0 },
            candidate: None,
            rejected: vec![rejected],
            ..state
        };
        let status = render(shown(&state, &seen), &MeshRolloutStatus::default()).unwrap();
        assert_eq!(status.candidate.unwrap().revision, "r2");
    }

    #[test]
    fn the_time_of_a_condition_is_when_its_status_changed() {
        let (early, late) = (Timestamp::UNIX_EPOCH, timestamp(60_000));
        let first = merge(&[], vec![ready("Unknown")], 1, early);
        let same = merge(&first, vec![ready("Unknown")], 2, late);
        assert_eq!(same[0].last_transition_time, Time(early));
        assert_eq!(same[0].observed_generation, Some(2));
        let changed = merge(&same, vec![ready("True")], 2, late);
        assert_eq!(changed[0].last_transition_time, Time(late));
    }

    #[test]
    fn figures_alone_are_no_matter_of_substance() {
        let (state, mut seen) = observing();
        let before = render(shown(&state, &seen), &MeshRolloutStatus::default()).unwrap();
        assert_eq!(difference(Some(&before), &before), Difference::None);
        seen.evidence.candidate.requests += 1;
        let next = render(shown(&state, &seen), &before).unwrap();
        assert_eq!(difference(Some(&before), &next), Difference::Figures);
        let state = State {
            verdict: "Rolled back: 9 of 10".to_owned(),
            ..state
        };
        let next = render(shown(&state, &seen), &before).unwrap();
        assert_eq!(difference(Some(&before), &next), Difference::Substance);
        assert_eq!(difference(None, &next), Difference::Substance);
    }

    #[test]
    fn a_hindrance_takes_the_place_of_ready_but_not_of_stalled() {
        let hindered = with_hindrance(vec![ready("True")], Some("no webhook"));
        assert_eq!(hindered.len(), 2);
        assert_eq!(
            (hindered[0].status, hindered[0].message.as_str()),
            ("Unknown", "no webhook")
        );
        let stalled = vec![Fact {
            kind: "Stalled",
            ..ready("True")
        }];
        assert_eq!(with_hindrance(stalled.clone(), Some("no webhook")), stalled);
    }
}
