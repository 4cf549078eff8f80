//! The workload that a state is about is not the one that is seen any more: the spec names
//! another one, or it was deleted.

use super::ROLLBACK_PATIENCE_MS;
use super::turn::Turn;
use crate::observation::Workload;
use crate::state::{Outcome, Phase};

impl Turn<'_> {
    /// Whether there is something to leave behind. A workload that is missing may come back as it
    /// was: of that, the candidate alone is left.
    pub(super) fn is_elsewhere(&self) -> bool {
        if self.seen.workload != Workload::Missing {
            return !self.state.is_about(&self.seen.workload);
        }
        let of_deployment = self.policy.versions.is_none() || self.state.deployment_seen.is_some();
        of_deployment && self.state.candidate.is_some()
    }

    /// The candidate gets no requests any more, then goes; and then the state forgets what it
    /// was about. What is there instead is met in a turn of its own.
    pub(super) fn leave_workload(&mut self) {
        let why = self.why_elsewhere();
        if self.state.candidate.is_some() {
            self.take_candidate_along(why);
            return;
        }
        self.warn(
            "WorkloadReplaced",
            format!("{why}: the revision that it runs now is the stable one"),
        );
        self.state.stable = None;
        self.state.rejected.clear();
        self.state.verdict = String::new();
        self.state.phase = Phase::Idle;
        self.state.weight = 0;
        self.next_fence();
        self.wake_at(self.now + 1);
    }

    fn take_candidate_along(&mut self, why: &str) {
        if let Phase::RollingBack { since } = self.state.phase {
            if !self.proxies_have_left(since) {
                return;
            }
            self.drop_candidate();
            self.state.phase = Phase::Idle;
            self.wake_at(self.now + 1);
            return;
        }
        let Some(candidate) = self.candidate() else {
            return;
        };
        let revision = candidate.arm.revision.clone();
        if !candidate.condemned {
            self.note("Replaced", format!("revision {revision} ends: {why}"));
            self.remember(revision, Outcome::Replaced, why);
            self.state.verdict = format!("Replaced: {why}");
        }
        self.leave_pause();
        self.take_off_traffic();
        self.state.phase = Phase::RollingBack { since: self.now };
        self.wake_at(self.now + ROLLBACK_PATIENCE_MS);
    }

    fn why_elsewhere(&self) -> &'static str {
        match &self.seen.workload {
            Workload::Missing => "the workload does not exist any more",
            Workload::Deployment(_) if self.is_of_same_name() => {
                "the workload was deleted and made anew"
            }
            _ => "the spec names another workload now",
        }
    }

    fn is_of_same_name(&self) -> bool {
        matches!(
            (&self.seen.workload, &self.state.deployment_seen),
            (Workload::Deployment(view), Some(known)) if known.is_of_name(view)
        )
    }

    /// Whether the pods that a state takes its weight from may go: every proxy has left them, or
    /// has had the time for it. `since`: when that was decided.
    pub(super) fn proxies_have_left(&mut self, since: i64) -> bool {
        // Those of another workload's Services are not the ones that have to leave.
        let is_at_home = self.state.is_about(&self.seen.workload) || self.is_of_same_name();
        if is_at_home && self.applied() {
            return true;
        }
        let is_over = self.now >= since + ROLLBACK_PATIENCE_MS;
        if is_over && self.is_said() {
            return true;
        }
        // Proxies are waited for from when they can know: a leader may have died before it wrote
        // the split.
        let since = if is_over { self.now } else { since };
        self.state.phase = Phase::RollingBack { since };
        self.wake_at(since + ROLLBACK_PATIENCE_MS);
        false
    }

    /// The split says what the state says, or there is none to say anything.
    fn is_said(&self) -> bool {
        let said = self.seen.split.fence;
        said == Some(self.state.fence) || said.is_none() && self.seen.services.is_empty()
    }
}
