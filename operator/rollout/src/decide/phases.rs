//! The verdicts, and what each phase waits for.

use sluice_crds::OnNoTraffic;

use super::capacity::TELLING_WEIGHT;
use super::subject::Subject;
use super::turn::Turn;
use crate::observation::Witness;
use crate::policy::{PolicyStep, pods_for};
use crate::state::{Outcome, PauseReason, Phase, PromotionStage};

impl Turn<'_> {
    /// Verdicts against the candidate come before everything that could help it. False when one
    /// has fallen that cannot be carried out yet: nothing may help it meanwhile.
    pub(super) fn judge(&mut self, subject: &Subject) -> bool {
        let Some(candidate) = self.candidate().filter(|c| !c.condemned) else {
            return true;
        };
        let leaves = matches!(self.state.phase, Phase::RollingBack { .. });
        if leaves || self.past_return() {
            return true;
        }
        let Some(why) = self
            .seen
            .evidence
            .condemned
            .clone()
            .or_else(|| self.deadline(subject, candidate.started, candidate.paused_ms))
        else {
            return true;
        };
        if subject.stable_ready == 0 && self.state.weight > 0 {
            self.state.verdict = format!("Rollback waits for a ready stable pod: {why}");
            self.warn("NoStablePod", self.state.verdict.clone());
            return false;
        }
        self.condemn(&why);
        true
    }

    /// Why the time is over, if it is. Paused time does not count.
    fn deadline(&self, subject: &Subject, started: i64, paused_ms: i64) -> Option<String> {
        if matches!(self.state.phase, Phase::Paused { .. }) {
            return None;
        }
        let spent = self.now - started - paused_ms;
        if spent < self.policy.deadline_ms {
            return None;
        }
        let evidence = &self.seen.evidence;
        let lacking = subject.lacking(self.ready(subject), self.needed(subject));
        let late = lacking.unwrap_or_else(|| match self.state.left_out() {
            Some(pod) => format!("pod {pod}, which fails alone, was not deleted"),
            None => format!(
                "the evidence did not suffice ({} of {} requests)",
                evidence.candidate.requests, evidence.needed
            ),
        });
        let deadline = self.policy.deadline_ms / 1000;
        Some(format!("the deadline of {deadline} s is over, and {late}"))
    }

    /// Moves the phase on, as far as what is seen allows.
    pub(super) fn advance(&mut self, subject: &Subject) {
        let Some(candidate) = self.candidate() else {
            if let Phase::RollingBack { .. } = self.state.phase {
                self.state.phase = Phase::Idle;
            }
            return;
        };
        let paused = matches!(self.state.phase, Phase::Paused { .. });
        if !candidate.condemned && !paused && !self.past_return() {
            let deadline = candidate.started + candidate.paused_ms + self.policy.deadline_ms;
            // One that is over was seen by `judge`, which waits for something else to change.
            if deadline > self.now {
                self.wake_at(deadline);
            }
        }
        self.pause_at_zero(subject);
        match self.state.phase.clone() {
            Phase::Idle => {}
            Phase::Preparing => self.prepare(subject),
            Phase::Shifting { step } => self.shift(subject, step),
            Phase::Observing { step, since } => self.observe(subject, step, since),
            Phase::Paused {
                step,
                why,
                since,
                weight,
            } => {
                let weight = weight.min(self.target(step));
                if weight > self.state.weight {
                    self.bring_weight(subject, weight);
                }
                self.paused(subject, step, &why, since);
            }
            Phase::Promoting { stage } => self.promote(subject, stage),
            Phase::RollingBack { since } => self.roll_back(since),
            Phase::Rejected { since } => self.keep_rejected(since),
        }
    }

    fn prepare(&mut self, subject: &Subject) {
        self.warn_of_trouble(subject);
        if self.candidate().is_some_and(|c| c.started == self.now) {
            // What is seen may be pods of an earlier try: the beginning is a turn of its own.
            self.wake_at(self.now + 1);
            return;
        }
        let needed = pods_for(self.policy.capacity_weight_at(0), subject.replicas);
        if self.ready(subject) < needed {
            return;
        }
        self.state.verdict = String::new();
        self.enter(0);
        if let Phase::Shifting { step } = self.state.phase {
            self.shift(subject, step);
        }
    }

    /// Nothing is to run: neither requests nor the deadline say anything of the revision now.
    fn pause_at_zero(&mut self, subject: &Subject) {
        if subject.replicas > 0 || subject.deployment.is_none() {
            return;
        }
        let last = self.policy.steps.len().saturating_sub(1);
        let step = match self.state.phase {
            Phase::Preparing => 0,
            Phase::Shifting { step } | Phase::Observing { step, .. } => step,
            Phase::Promoting {
                stage: PromotionStage::OpenGates,
            } => last,
            _ => return,
        };
        self.take_off_traffic();
        self.note(
            "ScaledToZero",
            "nothing is to run: the revision is tried further when there are replicas".to_owned(),
        );
        self.pause(step, PauseReason::ScaledToZero);
    }

    fn warn_of_trouble(&mut self, subject: &Subject) {
        let Some(trouble) = subject.candidate().and_then(|c| c.trouble.clone()) else {
            return;
        };
        let verdict = format!("Candidate pods do not start: {trouble}");
        if self.state.verdict != verdict {
            self.warn("CandidatePods", trouble);
            self.state.verdict = verdict;
        }
    }

    /// Capacity first, then the weight, then every proxy has it: the step is under observation.
    fn shift(&mut self, subject: &Subject, step: usize) {
        if self.leave_out(subject) || self.pause_contested(step) {
            return;
        }
        let target = self.target(step);
        if !self.bring_weight(subject, target) || !self.applied() {
            return;
        }
        self.state.phase = Phase::Observing {
            step,
            since: self.now,
        };
        self.observe(subject, step, self.now);
    }

    fn observe(&mut self, subject: &Subject, step: usize, since: i64) {
        let evidence = &self.seen.evidence;
        if let Some(outage) = evidence.shared_outage.clone() {
            self.warn("SharedOutage", outage.clone());
            self.state.verdict = format!("Paused: {outage}");
            self.pause(step, PauseReason::SharedOutage);
            return;
        }
        if self.leave_out(subject) || self.pause_contested(step) || self.relapsed(subject, step) {
            return;
        }
        let Some(&PolicyStep::Weight { hold_ms, .. }) = self.policy.steps.get(step) else {
            return;
        };
        self.step_down_or_up(step, since + hold_ms);
        let target = self.target(step);
        if !self.bring_weight(subject, target) || !self.applied() {
            return;
        }
        let hurried = self.candidate().is_some_and(|c| c.promote_now);
        if hurried {
            self.pass(subject, step);
            return;
        }
        if self.now < since + hold_ms {
            self.wake_at(since + hold_ms);
            return;
        }
        if subject.candidate().is_some_and(|c| c.ungated > 0) {
            return;
        }
        let at_telling = target == self.policy.weight_at(step);
        let silent = self.seen.evidence.in_step == 0;
        match self.policy.on_no_traffic {
            OnNoTraffic::Rollback if silent => {
                self.condemn("no request came in the step's hold (onNoTraffic: Rollback)");
            }
            OnNoTraffic::Advance if silent => self.pass(subject, step),
            _ if self.seen.evidence.sufficient && at_telling => self.pass(subject, step),
            _ => {}
        }
    }

    /// One witness alone speaks against the candidate: nothing moves until that is settled.
    fn pause_contested(&mut self, step: usize) -> bool {
        let Some(contest) = self.seen.evidence.contested.clone() else {
            return false;
        };
        let advice = match contest.witness {
            Witness::Proxy(_) => {
                "It is rolled back when others confirm it; `resume` sets that proxy aside"
            }
            Witness::Pod(_) => {
                "Delete that pod and it goes on, `resume` sets it aside; it is rolled back when another pod fails"
            }
        };
        let why = format!("{}. {advice}", contest.why);
        self.warn("Contested", why.clone());
        self.state.verdict = format!("Paused: {why}");
        let witness = contest.witness;
        self.pause(step, PauseReason::Contested { witness });
        true
    }

    /// It failed above 50 %, not at 50 % beside stable, and fails above 50 % again: condemned.
    fn relapsed(&mut self, subject: &Subject, step: usize) -> bool {
        let again = self
            .candidate()
            .is_some_and(|c| !c.stepped_down && c.stepped_up == Some(step));
        let Some(breach) = self.seen.evidence.breach.clone().filter(|_| again) else {
            return false;
        };
        if subject.stable_ready == 0 {
            return false;
        }
        self.condemn(&format!(
            "{breach}; at {TELLING_WEIGHT} % it did as well as stable: it does not bear the load"
        ));
        true
    }

    /// A breach above 50 % first sets the weight to 50, where fault and outage can be told
    /// apart; when nothing came of it there for the step's whole hold, the step goes on.
    fn step_down_or_up(&mut self, step: usize, held_at: i64) {
        let breach = self.seen.evidence.breach.clone();
        let high = self.policy.weight_at(step) > TELLING_WEIGHT;
        let Some(candidate) = &mut self.state.candidate else {
            return;
        };
        if let Some(breach) = breach.filter(|_| high && !candidate.stepped_down) {
            candidate.stepped_down = true;
            self.state.verdict = format!("Weight back to {TELLING_WEIGHT} %: {breach}");
            self.warn("SteppedDown", breach);
            self.state.phase = Phase::Observing {
                step,
                since: self.now,
            };
        } else if candidate.stepped_down
            && self.now >= held_at
            && self.seen.evidence.in_step > 0
            && self.seen.evidence.breach.is_none()
            && self.seen.evidence.sufficient
            // What came before the weight went down says nothing of the breach.
            && self.seen.evidence.in_step >= self.seen.evidence.needed
            && self.state.weight == TELLING_WEIGHT
            && self.applied()
        {
            if let Some(candidate) = &mut self.state.candidate {
                candidate.stepped_down = false;
                candidate.stepped_up = Some(step);
            }
            self.note(
                "SteppedUp",
                "the breach is over at 50 %: the step goes on".to_owned(),
            );
            self.state.phase = Phase::Shifting { step };
        }
    }

    fn pass(&mut self, subject: &Subject, step: usize) {
        let evidence = &self.seen.evidence;
        self.note(
            "StepPassed",
            format!(
                "{} % passed: candidate failed {} of {} requests, stable {} of {}",
                self.state.weight,
                evidence.candidate.failures,
                evidence.candidate.requests,
                evidence.stable.failures,
                evidence.stable.requests
            ),
        );
        self.enter(step + 1);
        match self.state.phase.clone() {
            Phase::Shifting { step } => self.shift(subject, step),
            Phase::Promoting { stage } => self.promote(subject, stage),
            _ => {}
        }
    }

    fn paused(&mut self, subject: &Subject, step: usize, why: &PauseReason, since: i64) {
        match why {
            PauseReason::Condemned | PauseReason::Command => {}
            PauseReason::ScaledToZero => {
                if subject.replicas > 0 {
                    self.leave_pause();
                    self.note("Resumed", "the workload has replicas again".to_owned());
                    self.state.phase = Phase::Shifting { step };
                }
            }
            PauseReason::SharedOutage => {
                if self.seen.evidence.shared_outage.is_none() {
                    self.leave_pause();
                    self.note("Resumed", "stable keeps its promise again".to_owned());
                    self.state.verdict = String::new();
                    self.state.phase = Phase::Shifting { step };
                }
            }
            PauseReason::Contested { .. } => {
                if self.seen.evidence.contested.is_none() {
                    self.leave_pause();
                    self.note("Resumed", "nobody speaks against it any more".to_owned());
                    self.state.verdict = String::new();
                    self.state.phase = Phase::Shifting { step };
                } else if self.leave_out(subject) {
                    self.leave_pause();
                    self.state.phase = Phase::Shifting { step };
                }
            }
            PauseReason::Step => {
                let Some(&PolicyStep::Pause {
                    duration_ms: Some(duration),
                }) = self.policy.steps.get(step)
                else {
                    return;
                };
                if self.now < since + duration {
                    self.wake_at(since + duration);
                    return;
                }
                self.leave_pause();
                self.enter(step + 1);
            }
        }
    }

    /// The weight is no lease any more, and gates open: a new decision about traffic.
    pub(super) fn begin_promotion(&mut self) {
        self.state.phase = Phase::Promoting {
            stage: PromotionStage::OpenGates,
        };
        self.next_fence();
        self.note(
            "Promoting",
            "all steps are passed: the revision becomes stable".to_owned(),
        );
    }

    fn promote(&mut self, subject: &Subject, stage: PromotionStage) {
        let Some(view) = subject.deployment else {
            if self.may_be_promoted(subject) {
                self.promoted();
            }
            return;
        };
        match stage {
            PromotionStage::OpenGates => {
                let full = subject
                    .candidate()
                    .is_some_and(|c| c.replicas == view.replicas && c.ready >= view.replicas);
                if self.may_be_promoted(subject) && full {
                    self.state.phase = Phase::Promoting {
                        stage: PromotionStage::Adopt,
                    };
                }
            }
            // An empty ReplicaSet cannot be told from any other: there is nothing to hand over.
            PromotionStage::Adopt if view.replicas == 0 => self.promoted(),
            PromotionStage::Adopt => {
                if subject.adopted() {
                    self.state.phase = Phase::Promoting {
                        stage: PromotionStage::Release,
                    };
                }
            }
            PromotionStage::Release => {
                if view.complete && !view.paused {
                    self.promoted();
                }
            }
        }
    }

    /// It bears everything, and every proxy knows. A pod that fails alone would serve with the
    /// others again: it has to go first.
    fn may_be_promoted(&mut self, subject: &Subject) -> bool {
        self.bring_weight(subject, 100) && self.applied() && self.state.left_out().is_none()
    }

    pub(super) fn promoted(&mut self) {
        let Some(candidate) = self.state.candidate.take() else {
            return;
        };
        let evidence = &self.seen.evidence;
        let why = format!(
            "failed {} of {} requests, stable {} of {}",
            evidence.candidate.failures,
            evidence.candidate.requests,
            evidence.stable.failures,
            evidence.stable.requests
        );
        self.state.verdict = format!("Promoted: {why}");
        self.note(
            "Promoted",
            format!("revision {} is stable: {why}", candidate.arm.revision),
        );
        self.remember(candidate.arm.revision.clone(), Outcome::Promoted, &why);
        let mode_b = self.policy.versions.is_some();
        self.state.stable = Some(candidate.arm);
        // Mode A's pods are the Deployment's own now, found without a label value.
        if !mode_b && let Some(stable) = &mut self.state.stable {
            stable.pod_label_values.clear();
        }
        self.state.weight = if mode_b { 100 } else { 0 };
        self.state.phase = Phase::Idle;
        self.next_fence();
    }

    fn roll_back(&mut self, since: i64) {
        if !self.proxies_have_left(since) {
            return;
        }
        let condemned = self.candidate().is_some_and(|c| c.condemned);
        if condemned {
            self.state.phase = Phase::Rejected { since: self.now };
            self.keep_rejected(self.now);
            return;
        }
        self.drop_candidate();
        self.state.phase = Phase::Idle;
        self.wake_at(self.now + 1);
    }

    fn keep_rejected(&mut self, since: i64) {
        let until = since + self.policy.keep_candidate_ms;
        if self.policy.keep_candidate_pods > 0 && self.now < until {
            self.wake_at(until);
            return;
        }
        self.drop_candidate();
    }
}
