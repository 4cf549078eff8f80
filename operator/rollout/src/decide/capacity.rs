//! Capacity before weight: the candidate gets what its ready pods bear, in every phase.

use super::subject::Subject;
use super::turn::Turn;
use crate::policy::pods_for;
use crate::state::Phase;

/// Above this weight the coin says little: a breach is looked at here first.
pub(super) const TELLING_WEIGHT: i32 = 50;

impl Turn<'_> {
    /// The weight that a step is to have.
    pub(super) fn target(&self, step: usize) -> i32 {
        let weight = self.policy.weight_at(step);
        if self.candidate().is_some_and(|c| c.stepped_down) {
            weight.min(TELLING_WEIGHT)
        } else {
            weight
        }
    }

    /// The weight that the way up to here has earned, though pods may lack for it now.
    pub(super) fn earned(&self) -> i32 {
        let earned = match self.state.phase {
            Phase::Observing { step, .. } => self.target(step),
            Phase::Shifting { step } => step.checked_sub(1).map_or(0, |last| self.target(last)),
            _ => 0,
        };
        earned.max(self.state.weight)
    }

    /// Candidate pods that the present step needs.
    pub(super) fn needed(&self, subject: &Subject) -> i32 {
        let step = self.state.phase.step().unwrap_or(0);
        pods_for(self.policy.capacity_weight_at(step), subject.replicas)
    }

    /// Candidate pods that can serve what the candidate gets.
    pub(super) fn ready(&self, subject: &Subject) -> i32 {
        subject.can_serve(self.state.left_out())
    }

    /// Sets the weight once there are pods for it; true while it is in the state.
    pub(super) fn bring_weight(&mut self, subject: &Subject, target: i32) -> bool {
        if self.ready(subject) < pods_for(target, subject.replicas) {
            return false;
        }
        if self.state.weight != target {
            self.set_weight(target);
            let revision = &subject.wanted.revision;
            self.note("Weight", format!("revision {revision} gets {target} %"));
        }
        true
    }

    /// What the candidate's ready pods do not bear goes back to stable at once. The last act of
    /// every turn. Past return stable is on its way out: a look of before could send requests to
    /// nobody, and where the candidate has no pod its proxies turn to stable by themselves.
    pub(super) fn keep_capacity(&mut self, subject: &Subject) {
        let wanted = &subject.wanted.revision;
        let is_tried = self.candidate().is_some_and(|c| c.arm.revision == *wanted);
        if !is_tried || self.past_return() || subject.stable_ready == 0 {
            return;
        }
        let ready = self.ready(subject);
        let needed = pods_for(self.state.weight, subject.replicas);
        if ready >= needed {
            return;
        }
        let allowed = 100 * ready.max(0) / subject.replicas.max(1);
        if allowed >= self.state.weight {
            return;
        }
        self.set_weight(allowed);
        let lacking = subject.lacking(ready, needed).unwrap_or_default();
        self.warn(
            "CapacityLost",
            format!("{lacking}: weight lowered to {allowed} %"),
        );
    }
}
