//! One turn of the machine: the state being changed, and the small moves that all phases use.

use super::{Decision, HISTORY, MISSING_PATIENCE_MS, Note, NoteKind};
use crate::Millis;
use crate::observation::{Observation, Workload};
use crate::policy::Policy;
use crate::state::{
    Candidate, DeploymentSeen, Ended, Outcome, PauseReason, Phase, Rejection, State,
};
use sluice_crds::FailureAction;

pub(super) struct Turn<'a> {
    pub(super) policy: &'a Policy,
    pub(super) seen: &'a Observation,
    pub(super) now: Millis,
    pub(super) state: State,
    before: &'a State,
    notes: Vec<Note>,
    again_at: Option<Millis>,
    /// What was seen under the present fence is to be read once more, so it is not closed.
    pub(super) keeps_evidence_open: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        policy: &'a Policy,
        state: &'a State,
        seen: &'a Observation,
        now: Millis,
    ) -> Self {
        Self {
            policy,
            seen,
            now,
            state: state.clone(),
            before: state,
            notes: Vec::new(),
            again_at: None,
            keeps_evidence_open: false,
        }
    }

    pub(super) fn end(mut self) -> Decision {
        // Notes tell of changes: a turn that changed nothing has nothing to tell.
        if self.state == *self.before {
            self.notes.clear();
        } else {
            self.remember_look();
        }
        Decision {
            state: self.state,
            notes: self.notes,
            again_at: self.again_at,
        }
    }

    /// Which look the new state was decided on.
    fn remember_look(&mut self) {
        if self.sees_the_past() || self.is_elsewhere() {
            return;
        }
        match &self.seen.workload {
            Workload::Missing => {}
            Workload::Deployment(view) => {
                let before = self.state.deployment_seen.as_ref();
                self.state.deployment_seen = Some(DeploymentSeen::after(before, view));
            }
            Workload::Subsets(_) => self.state.deployment_seen = None,
        }
    }

    /// Whether something outside the rollout forbids any step. Conditions say what it is.
    pub(super) fn blocked(&mut self) -> bool {
        let missing = self.seen.workload == Workload::Missing
            || !self.seen.missing_services.is_empty()
            || self.seen.services.is_empty();
        if missing {
            let since = *self.state.missing_since.get_or_insert(self.now);
            if self.now < since + MISSING_PATIENCE_MS {
                self.wake_at(since + MISSING_PATIENCE_MS);
            }
            return true;
        }
        self.state.missing_since = None;
        self.paused_by_somebody()
    }

    /// The look at the Deployment is older than the one that led to the state: deciding on it
    /// could take a commit of long ago for one that came in between, and forget a rejection.
    pub(super) fn sees_the_past(&self) -> bool {
        let (Workload::Deployment(view), Some(known)) =
            (&self.seen.workload, &self.state.deployment_seen)
        else {
            return false;
        };
        known.is_later_than(view)
    }

    fn paused_by_somebody(&self) -> bool {
        matches!(
            &self.seen.workload,
            Workload::Deployment(view)
                if view.paused_by_git.is_some() || view.paused_by_hand.is_some()
        )
    }

    pub(super) fn wake_at(&mut self, at: Millis) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn note(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note {
            kind: NoteKind::Normal,
            reason,
            message,
        });
    }

    pub(super) fn warn(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note {
            kind: NoteKind::Warning,
            reason,
            message,
        });
    }

    /// A new decision about traffic: evidence under the old fence is closed.
    pub(super) fn next_fence(&mut self) {
        self.state.fence += 1;
        let closed = &self.seen.evidence.closed;
        if let Some(candidate) = &mut self.state.candidate
            && !self.keeps_evidence_open
            && closed.through_fence > candidate.closed.through_fence
        {
            candidate.closed = closed.clone();
        }
    }

    pub(super) fn set_weight(&mut self, weight: i32) {
        if self.state.weight == weight {
            return;
        }
        self.state.weight = weight;
        self.next_fence();
    }

    /// The candidate gets nothing, as a lease again: what a promotion said is not so any more, even
    /// where its weight was 0 already for want of pods.
    pub(super) fn take_off_traffic(&mut self) {
        if self.state.weight == 0 && matches!(self.state.phase, Phase::Promoting { .. }) {
            self.next_fence();
        }
        self.set_weight(0);
    }

    /// Every proxy that counts routes by the state's fence.
    pub(super) fn applied(&self) -> bool {
        let split = &self.seen.split;
        split.fence == Some(self.state.fence)
            && split.complete
            && split.behind == 0
            && !split.too_many_away()
    }

    /// Leaves a pause: its time does not count for the deadline.
    pub(super) fn leave_pause(&mut self) {
        let Phase::Paused { since, .. } = self.state.phase else {
            return;
        };
        if let Some(candidate) = &mut self.state.candidate {
            candidate.paused_ms += self.now - since;
        }
    }

    /// The verdict is against the candidate: off traffic now, whatever else is going on.
    pub(super) fn condemn(&mut self, why: &str) {
        let Some(candidate) = &mut self.state.candidate else {
            return;
        };
        candidate.condemned = true;
        candidate.promote_now = false;
        self.leave_pause();
        if self.policy.on_failure == FailureAction::Rollback {
            self.reject(why);
            return;
        }
        self.take_off_traffic();
        self.state.verdict = format!("Taken off traffic: {why}");
        self.warn(
            "Condemned",
            format!("{why}; say abort or retry (spec.onFailure.action: Pause)"),
        );
        let step = self.state.phase.step().unwrap_or(0);
        self.pause(step, PauseReason::Condemned);
    }

    /// Waits, at the weight that the way up to here has earned.
    pub(super) fn pause(&mut self, step: usize, why: PauseReason) {
        let weight = match why {
            PauseReason::Condemned | PauseReason::ScaledToZero => 0,
            PauseReason::Step => self.target(step),
            PauseReason::Command | PauseReason::SharedOutage | PauseReason::Contested { .. } => {
                self.earned()
            }
        };
        self.state.phase = Phase::Paused {
            step,
            why,
            since: self.now,
            weight,
        };
    }

    /// The candidate is rejected: its weight is 0, its pods go when proxies have left them.
    pub(super) fn reject(&mut self, why: &str) {
        let Some(candidate) = &mut self.state.candidate else {
            return;
        };
        candidate.condemned = true;
        let revision = candidate.arm.revision.clone();
        self.take_off_traffic();
        self.state.verdict = format!("Rolled back: {why}");
        self.warn("RolledBack", format!("revision {revision}: {why}"));
        let rejection = Rejection {
            revision: revision.clone(),
            why: why.to_owned(),
            at: self.now,
        };
        self.state.rejected = vec![rejection];
        self.remember(revision, Outcome::RolledBack, why);
        self.state.phase = Phase::RollingBack { since: self.now };
    }

    pub(super) fn remember(&mut self, revision: String, outcome: Outcome, why: &str) {
        let ended = Ended {
            revision,
            outcome,
            why: why.to_owned(),
            at: self.now,
        };
        self.state.history.insert(0, ended);
        self.state.history.truncate(HISTORY);
    }

    /// The candidate is no more; its pods, if any are left, go.
    pub(super) fn drop_candidate(&mut self) {
        if self.state.candidate.take().is_some() {
            self.state.weight = 0;
            self.next_fence();
        }
    }

    pub(super) fn candidate(&self) -> Option<&Candidate> {
        self.state.candidate.as_ref()
    }

    /// Past this the candidate's ReplicaSet may already be the Deployment's own.
    pub(super) fn past_return(&self) -> bool {
        use crate::state::PromotionStage::{Adopt, Release};
        matches!(
            self.state.phase,
            Phase::Promoting {
                stage: Adopt | Release
            }
        )
    }
}
