//! What git wants: which revision is stable, which one is the candidate.

use super::subject::Subject;
use super::turn::Turn;
use crate::state::{Arm, Candidate, Outcome, Phase, PromotionStage};

impl Turn<'_> {
    /// Compares what git wants with what the state is about.
    pub(super) fn follow_git(&mut self, subject: &Subject) {
        self.follow_versions(subject);
        self.follow_running(subject);
        if self.state.stable.is_none() && !self.meet(subject) {
            return;
        }
        let stable = self.state.stable.clone().unwrap_or_default();
        if subject.wanted.revision == stable.revision {
            self.state.rejected.clear();
            self.give_up_candidate(subject, "git went back to the stable revision");
            return;
        }
        if let Some(candidate) = self.candidate() {
            if candidate.arm.revision == subject.wanted.revision {
                self.notice_unheld(subject);
                return;
            }
            let carried = self.state.weight > 0;
            self.state.rejected.clear();
            if self.is_adopted(subject) {
                // Its pods are the Deployment's own, and may be all that serve.
                self.promoted();
            } else {
                self.give_up_candidate(subject, "git brought another revision");
            }
            if carried || self.state.candidate.is_some() {
                // What is seen is about the old one: the next is met in a turn of its own.
                self.wake_at(self.now + 1);
                return;
            }
        }
        self.meet_candidate(subject);
    }

    /// Mode A: stable has no pod any more, and another revision runs alone, which is neither tried
    /// nor wanted: a promotion came to its end unseen, by a look at ReplicaSets of before. What
    /// runs is what serves.
    fn follow_running(&mut self, subject: &Subject) {
        let (Some(view), Some(stable)) = (subject.deployment, &self.state.stable) else {
            return;
        };
        let [only] = view.running.as_slice() else {
            return;
        };
        let candidate = self.candidate().map(|c| &c.arm.revision);
        let known = [Some(&stable.revision), Some(&view.revision), candidate];
        let is_wanted = stable.revision == view.revision;
        if is_wanted || only.ready == 0 || known.contains(&Some(&only.revision)) {
            return;
        }
        self.note("StableFound", format!("revision {} serves", only.revision));
        self.state.stable.clone_from(&subject.serving);
    }

    /// Mode B: the stable subset is what the spec says, unless the candidate was promoted.
    fn follow_versions(&mut self, subject: &Subject) {
        let (Some((stable, candidate)), Some(serving)) = (&self.policy.versions, &subject.serving)
        else {
            return;
        };
        let Some(known) = &self.state.stable else {
            return;
        };
        let promoted = known.pod_label_values == [candidate.clone()];
        if promoted && known.revision == subject.wanted.revision {
            return;
        }
        let said = known.pod_label_values == [stable.clone()];
        if said && known.revision == serving.revision {
            return;
        }
        // The spec names other subsets now, or the stable subset's own template has changed
        // natively: it serves whatever it is.
        if self.state.candidate.is_none() {
            self.state.weight = 0;
        }
        self.state.stable = Some(serving.clone());
        self.next_fence();
    }

    /// First sight: what serves is stable. False while that cannot be told.
    fn meet(&mut self, subject: &Subject) -> bool {
        let Some(serving) = &subject.serving else {
            return false;
        };
        self.note(
            "StableFound",
            format!("revision {} serves", serving.revision),
        );
        self.state.stable = Some(serving.clone());
        self.next_fence();
        true
    }

    /// The candidate is not wanted any more: off traffic, then gone.
    fn give_up_candidate(&mut self, subject: &Subject, why: &str) {
        let Some(candidate) = self.candidate() else {
            if self.policy.versions.is_none() {
                self.state.phase = Phase::Idle;
            }
            return;
        };
        let revision = candidate.arm.revision.clone();
        let condemned = candidate.condemned;
        if matches!(self.state.phase, Phase::RollingBack { .. }) {
            return;
        }
        if !condemned {
            self.note("Replaced", format!("revision {revision} ends: {why}"));
            self.remember(revision, Outcome::Replaced, why);
            self.state.verdict = format!("Replaced: {why}");
        }
        self.leave_pause();
        // A weight of an earlier fence may still be in force: its write is known, or is on the way.
        let is_off = self.state.weight == 0 && self.applied();
        if !is_off && !self.is_adopted(subject) {
            self.take_off_traffic();
            self.state.phase = Phase::RollingBack { since: self.now };
            return;
        }
        self.drop_candidate();
        self.state.phase = Phase::Idle;
    }

    /// Past return, the Deployment has taken the candidate's pods: it alone says what runs now.
    fn is_adopted(&self, subject: &Subject) -> bool {
        let Phase::Promoting { stage } = self.state.phase else {
            return false;
        };
        let Some(candidate) = self.candidate().filter(|_| self.past_return()) else {
            return false;
        };
        let mut running = subject.deployment.iter().flat_map(|d| &d.running);
        stage == PromotionStage::Release
            || running.any(|running| running.revision == candidate.arm.revision)
    }

    /// The candidate came unheld, and the Deployment was done with it before it could be held.
    fn notice_unheld(&mut self, subject: &Subject) {
        if self.past_return() || !subject.runs_wanted_alone() {
            return;
        }
        self.warn_unheld(subject);
        self.state.stable = Some(Arm {
            revision: subject.wanted.revision.clone(),
            pod_label_values: Vec::new(),
        });
        self.state.rejected.clear();
        self.give_up_candidate(subject, "it serves already, without having been held");
    }

    fn warn_unheld(&mut self, subject: &Subject) {
        self.warn(
            "NotHeld",
            format!(
                "revision {} replaced the stable one without being held; it is stable now. \
                 Was the webhook removed, or the MeshRollout younger than the change?",
                subject.wanted.revision
            ),
        );
    }

    /// A revision that is neither stable nor being tried.
    fn meet_candidate(&mut self, subject: &Subject) {
        let revision = &subject.wanted.revision;
        let nothing_runs = subject.deployment.is_some_and(|d| d.replicas == 0);
        if subject.runs_wanted_alone() {
            self.warn_unheld(subject);
            self.become_stable(subject);
            return;
        }
        if self.rejected(revision) && !self.retry_asked() {
            self.state.phase = match self.state.phase {
                Phase::Rejected { since } => Phase::Rejected { since },
                _ => Phase::Rejected { since: self.now },
            };
            return;
        }
        if nothing_runs {
            self.note(
                "ScaledToZero",
                format!("revision {revision} is stable: nothing runs"),
            );
            self.become_stable(subject);
            return;
        }
        self.try_revision(subject);
    }

    fn become_stable(&mut self, subject: &Subject) {
        self.state.stable = Some(Arm {
            revision: subject.wanted.revision.clone(),
            pod_label_values: Vec::new(),
        });
        self.state.rejected.clear();
        self.state.phase = Phase::Idle;
        self.state.weight = 0;
        self.next_fence();
    }

    fn try_revision(&mut self, subject: &Subject) {
        let revision = subject.wanted.revision.clone();
        if subject.deployment.is_some_and(|d| !d.paused) {
            self.warn(
                "NotHeld",
                format!("revision {revision} came without being held; it is held now"),
            );
        }
        self.note(
            "Preparing",
            format!("revision {revision} gets its first pods"),
        );
        self.state.rejected.clear();
        self.state.retry_seen.clone_from(&self.policy.retry);
        self.state.verdict = String::new();
        self.state.weight = 0;
        let mut candidate = Candidate {
            arm: subject.wanted.clone(),
            started: self.now,
            ..Candidate::default()
        };
        self.state.candidate = None;
        self.next_fence();
        // What proxies counted for this revision before now is not evidence of this try.
        candidate.closed.through_fence = self.state.fence - 1;
        self.state.candidate = Some(candidate);
        self.state.phase = Phase::Preparing;
    }

    fn rejected(&self, revision: &str) -> bool {
        self.state.rejected.iter().any(|r| r.revision == revision)
    }

    /// `spec.retry` has a string that was not carried out yet.
    pub(super) fn retry_asked(&self) -> bool {
        !self.policy.retry.is_empty() && self.policy.retry != self.state.retry_seen
    }

    /// Forgets that the wanted revision was rejected, and tries it from the beginning.
    pub(super) fn retry(&mut self, subject: &Subject) {
        self.state.rejected.clear();
        self.drop_candidate();
        self.try_revision(subject);
    }
}
