//! Commands of people: the annotation `COMMAND@REVISION`, and `spec.retry`.

use super::subject::Subject;
use super::turn::Turn;
use crate::policy::PolicyStep;
use crate::state::{PauseReason, Phase};

/// Fewer digits than this do not tell revisions apart safely.
const LEAST_DIGITS: usize = 6;
/// Most witnesses that are set aside for one revision.
const MAX_SET_ASIDE: usize = 10;

impl Turn<'_> {
    /// Carries out what was asked, once.
    pub(super) fn obey(&mut self, subject: &Subject) {
        self.obey_spec_retry(subject);
        let asked = &self.seen.command;
        if asked.is_empty() || *asked == self.state.command_seen {
            return;
        }
        self.state.command_seen.clone_from(asked);
        match self.read(asked, subject) {
            Ok(command) => self.carry_out(&command, subject),
            Err(why) => self.warn("CommandRefused", format!("`{asked}`: {why}")),
        }
    }

    /// A new string in `spec.retry` is spent when it is seen: one that comes while the revision is
    /// still tried must not overrule a verdict that falls later.
    fn obey_spec_retry(&mut self, subject: &Subject) {
        if !self.retry_asked() {
            return;
        }
        if self.may_retry() {
            self.note(
                "Retry",
                "spec.retry has a new value: the revision is tried again".to_owned(),
            );
            self.retry(subject);
        } else if self.state.candidate.is_some() {
            self.note(
                "Retry",
                "spec.retry has a new value, but the revision is not rejected: nothing is tried again"
                    .to_owned(),
            );
            self.state.retry_seen.clone_from(&self.policy.retry);
        }
    }

    /// The command's name, if it is pinned to the revision that this is about.
    fn read(&self, asked: &str, subject: &Subject) -> Result<String, String> {
        let (command, revision) = asked
            .split_once('@')
            .ok_or("write COMMAND@REVISION, as `sluice` does")?;
        if revision.len() < LEAST_DIGITS {
            return Err(format!(
                "give at least {LEAST_DIGITS} digits of the revision"
            ));
        }
        if !subject.wanted.revision.starts_with(revision) {
            return Err(format!(
                "it is pinned to another revision; this one is {}",
                subject.wanted.revision
            ));
        }
        let trying = self.state.candidate.is_some() || self.may_retry();
        if !trying {
            return Err("no revision is being tried".to_owned());
        }
        Ok(command.to_owned())
    }

    fn carry_out(&mut self, command: &str, subject: &Subject) {
        let done = match command {
            "retry" => self.command_retry(subject),
            "abort" => self.command_abort(),
            "pause" => self.command_pause(),
            "resume" => self.command_resume(),
            "skip" => self.command_skip(),
            "promote" => self.command_promote(),
            _ => Err("the commands are promote, pause, resume, abort, retry and skip"),
        };
        match done {
            Ok(()) => self.note("Command", format!("`{command}` carried out")),
            Err(why) => self.warn("CommandRefused", format!("`{command}`: {why}")),
        }
    }

    fn may_retry(&self) -> bool {
        let rejected = !self.state.rejected.is_empty();
        match self.state.phase {
            Phase::Paused {
                why: PauseReason::Condemned,
                ..
            } => true,
            Phase::Rejected { .. } | Phase::RollingBack { .. } => rejected,
            _ => false,
        }
    }

    fn command_retry(&mut self, subject: &Subject) -> Result<(), &'static str> {
        if !self.may_retry() {
            return Err("the revision is not rejected");
        }
        self.retry(subject);
        Ok(())
    }

    fn command_abort(&mut self) -> Result<(), &'static str> {
        if self.past_return() {
            return Err("the promotion cannot be taken back any more; revert in git");
        }
        if matches!(
            self.state.phase,
            Phase::RollingBack { .. } | Phase::Rejected { .. }
        ) {
            return Err("the revision is already rejected");
        }
        self.leave_pause();
        self.reject("aborted by command");
        Ok(())
    }

    fn command_pause(&mut self) -> Result<(), &'static str> {
        let (Phase::Shifting { step } | Phase::Observing { step, .. }) = self.state.phase else {
            return Err("only a step with a weight can be paused");
        };
        self.pause(step, PauseReason::Command);
        Ok(())
    }

    fn command_resume(&mut self) -> Result<(), &'static str> {
        let Phase::Paused { step, why, .. } = self.state.phase.clone() else {
            return Err("it is not paused");
        };
        match why {
            PauseReason::Condemned => Err("the revision is condemned: say retry or abort"),
            PauseReason::Step => {
                self.leave_pause();
                self.enter(step + 1);
                Ok(())
            }
            PauseReason::ScaledToZero => Err("nothing is to run: give the workload replicas"),
            PauseReason::Command | PauseReason::SharedOutage | PauseReason::Contested { .. } => {
                self.set_aside();
                self.leave_pause();
                self.state.phase = Phase::Shifting { step };
                Ok(())
            }
        }
    }

    /// A person takes the revision's side: what the witness says who alone spoke against it
    /// counts no more.
    fn set_aside(&mut self) {
        let Phase::Paused {
            why: PauseReason::Contested { witness },
            ..
        } = self.state.phase.clone()
        else {
            return;
        };
        let Some(candidate) = &mut self.state.candidate else {
            return;
        };
        self.state.verdict = String::new();
        if !candidate.set_aside.contains(&witness) {
            candidate.set_aside.push(witness);
        }
        let surplus = candidate.set_aside.len().saturating_sub(MAX_SET_ASIDE);
        candidate.set_aside.drain(..surplus);
    }

    fn command_skip(&mut self) -> Result<(), &'static str> {
        let Some(step) = self.state.phase.step() else {
            return Err("there is no step to skip now");
        };
        if self.candidate().is_some_and(|c| c.condemned) {
            return Err("the revision is condemned: say retry or abort");
        }
        self.set_aside();
        self.leave_pause();
        self.enter(step + 1);
        Ok(())
    }

    fn command_promote(&mut self) -> Result<(), &'static str> {
        let Some(candidate) = self.state.candidate.as_mut().filter(|c| !c.condemned) else {
            return Err("the revision is condemned: say retry first");
        };
        candidate.promote_now = true;
        if let Phase::Paused { step, .. } = self.state.phase {
            self.set_aside();
            self.leave_pause();
            self.enter(step + 1);
        }
        Ok(())
    }

    /// Git may have changed the steps under way. A step that is no more, or is a pause now, becomes
    /// the last one that raises nothing; and no step keeps more weight than it has now.
    pub(super) fn fit_step(&mut self) {
        let Some(mut step) = self.state.phase.step() else {
            return;
        };
        let policy = self.policy;
        let paused = matches!(self.state.phase, Phase::Paused { .. });
        let fits = match policy.steps.get(step) {
            Some(PolicyStep::Weight { .. }) => true,
            Some(PolicyStep::Pause { .. }) => paused,
            None => false,
        };
        if !fits {
            let weights = |most: i32| {
                let is_such = move |s: &PolicyStep| matches!(s, PolicyStep::Weight { weight, .. } if *weight <= most);
                policy.steps.iter().map(is_such)
            };
            let last = weights(self.state.weight).rposition(|is_such| is_such);
            let first = || weights(100).position(|is_such| is_such);
            step = last.or_else(first).unwrap_or(0);
            match &mut self.state.phase {
                Phase::Paused { step: held, .. } => *held = step,
                phase => *phase = Phase::Shifting { step },
            }
        }
        self.set_weight(self.state.weight.min(policy.weight_at(step)));
    }

    /// Goes to a step: a weight, a pause, or promotion after the last.
    pub(super) fn enter(&mut self, step: usize) {
        let hurried = self.candidate().is_some_and(|c| c.promote_now);
        match self.policy.steps.get(step) {
            None => self.begin_promotion(),
            Some(PolicyStep::Weight { .. }) => self.state.phase = Phase::Shifting { step },
            Some(PolicyStep::Pause { .. }) if hurried => self.enter(step + 1),
            Some(PolicyStep::Pause { .. }) => self.pause(step, PauseReason::Step),
        }
    }
}
