//! The state of a rollout: stored whole in `status.state` before any of its effects.

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::observation::{ClosedEvidence, DeploymentView, Witness, Workload};

/// Ended uids of a Deployment that are remembered.
const ENDED_UIDS: usize = 10;

/// Everything that the next decision needs to know of the last ones. Written by the leader in
/// one status write with a resourceVersion precondition; read back after a restart.
///
/// Between versions: whoever writes a state has decided by it alone, so a field that it does not
/// know is gone with its next write. A version that adds a field gives it a default that means "as
/// before". A named step that an earlier version does not know is for it no state at all: it holds
/// everything, and says so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Number of the decision about traffic; grows with every change of weight or arms.
    pub fence: i64,
    /// The named step.
    pub phase: Phase,
    /// The candidate's weight in force by this state, percent.
    pub weight: i32,
    /// The revision that serves.
    pub stable: Option<Arm>,
    /// The revision that is tried, or was condemned and still has pods.
    pub candidate: Option<Candidate>,
    /// Revisions that were condemned, newest first, at most 10. A rejection lasts until another
    /// revision was applied in between, or `retry`.
    pub rejected: Vec<Rejection>,
    /// `spec.retry` as last carried out.
    pub retry_seen: String,
    /// The command annotation as last carried out or refused.
    pub command_seen: String,
    /// Since when the workload or a Service has been missing.
    pub missing_since: Option<Millis>,
    /// Mode A: the Deployment that all this is about, as the last change of this state saw it. An
    /// older look at it, from a watch that lags, decides nothing.
    pub deployment_seen: Option<DeploymentSeen>,
    /// Ended rollouts, newest first, at most 10.
    pub history: Vec<Ended>,
    /// The last verdict, one sentence with its numbers.
    pub verdict: String,
}

/// Which look at a Deployment it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSeen {
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Uids of Deployments of this name that came before, newest first, at most 10. An ended uid
    /// never comes back: who shows it shows the past.
    pub ended: Vec<String>,
}

impl DeploymentSeen {
    /// What is remembered of this look after that one.
    pub(crate) fn after(before: Option<&Self>, view: &DeploymentView) -> Self {
        let mut ended = Vec::new();
        if let Some(before) = before.filter(|before| before.is_of_name(view)) {
            ended.clone_from(&before.ended);
            if before.uid != view.uid {
                ended.insert(0, before.uid.clone());
                ended.truncate(ENDED_UIDS);
            }
        }
        Self {
            name: view.name.clone(),
            uid: view.uid.clone(),
            generation: view.generation,
            ended,
        }
    }

    /// Whether that is how it was before.
    pub(crate) fn is_later_than(&self, view: &DeploymentView) -> bool {
        let older = self.uid == view.uid && view.generation < self.generation;
        older || self.is_of_name(view) && self.ended.contains(&view.uid)
    }

    /// States of an earlier version do not know the name.
    pub(crate) fn is_of_name(&self, view: &DeploymentView) -> bool {
        self.name == view.name || self.name.is_empty()
    }
}

impl State {
    /// Whether it is about the workload that is seen, and not about one that the spec named
    /// before, or that was deleted. A state that has met nothing yet is about whatever is there.
    pub(crate) fn is_about(&self, workload: &Workload) -> bool {
        let Some(stable) = &self.stable else {
            return true;
        };
        match (workload, &self.deployment_seen) {
            (Workload::Missing, _) => false,
            (Workload::Deployment(view), Some(known)) => known.uid == view.uid,
            // Mode B tells its stable pods by a label's value.
            (Workload::Deployment(_), None) => stable.pod_label_values.is_empty(),
            (Workload::Subsets(_), known) => known.is_none(),
        }
    }

    /// The candidate's pod that gets no requests although it is there.
    #[must_use]
    pub fn left_out(&self) -> Option<&str> {
        let fault = self.candidate.as_ref()?.pod_fault.as_ref()?;
        fault.left_out.then_some(fault.pod.as_str())
    }
}

/// A named step of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all_fields = "camelCase")]
pub enum Phase {
    /// Nothing is tried: stable has everything (mode B after promotion: the candidate has).
    #[default]
    Idle,
    /// The candidate gets its first pods; weight 0.
    Preparing,
    /// The step's capacity, then its weight, is being brought about.
    Shifting {
        /// Index into the policy's steps.
        step: usize,
    },
    /// The step's weight is applied; evidence is gathered.
    Observing {
        /// Index into the policy's steps.
        step: usize,
        /// When the weight was first seen applied.
        since: Millis,
    },
    /// Waiting, at a weight that never rises above `weight`.
    Paused {
        /// Index into the policy's steps.
        step: usize,
        /// What for.
        why: PauseReason,
        /// Since when.
        since: Millis,
        /// The weight that it stands for: less is in force while pods are lacking.
        #[serde(default)]
        weight: i32,
    },
    /// All evidence is in: the candidate becomes the stable revision.
    Promoting {
        /// How far this has gone.
        stage: PromotionStage,
    },
    /// Weight 0 is decided; waiting until proxies have applied it (10 s at most).
    RollingBack {
        /// Since when.
        since: Millis,
    },
    /// The candidate is condemned; stable serves, the hold stays.
    Rejected {
        /// Since when, for `keepCandidateFor`.
        since: Millis,
    },
}

impl Phase {
    /// The step that the phase is about, if it is about one.
    #[must_use]
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Shifting { step } | Self::Observing { step, .. } | Self::Paused { step, .. } => {
                Some(*step)
            }
            _ => None,
        }
    }

    /// The name for `status.phase`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Preparing => "Preparing",
            Self::Shifting { .. } => "Shifting",
            Self::Observing { .. } => "Observing",
            Self::Paused { .. } => "Paused",
            Self::Promoting { .. } => "Promoting",
            Self::RollingBack { .. } => "RollingBack",
            Self::Rejected { .. } => "Rejected",
        }
    }
}

/// What a pause waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum PauseReason {
    /// A pause step: `resume`, `promote`, or its duration.
    Step,
    /// A person's `pause`: `resume`.
    Command,
    /// Both arms break the promise: ends when stable keeps it again.
    SharedOutage,
    /// One witness alone speaks against it, and others contradict: ends when others confirm, or
    /// by `resume`, which sets the witness aside.
    Contested {
        /// Who.
        witness: Witness,
    },
    /// Nothing is to run: ends when the workload has replicas again.
    ScaledToZero,
    /// Condemned with `onFailure.action: Pause`: `abort` or `retry`.
    Condemned,
}

/// Promotion goes in order; each stage is level-triggered from what is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromotionStage {
    /// Full capacity, gates opened, all candidate pods Ready: can still be taken back.
    OpenGates,
    /// Our ReplicaSet is given to the Deployment.
    Adopt,
    /// The hold is released.
    Release,
}

/// A revision and the pods that run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arm {
    /// Hash of the pod template.
    pub revision: String,
    /// Values of the pod label that tells arms apart.
    pub pod_label_values: Vec<String>,
}

/// The revision that is tried.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Candidate {
    /// Its revision and pods.
    #[serde(flatten)]
    pub arm: Arm,
    /// When it was first seen.
    pub started: Millis,
    /// Time spent in Paused so far, for the deadline.
    pub paused_ms: i64,
    /// Set once it is condemned: the weight never rises again.
    pub condemned: bool,
    /// Above 50 % a breach first sets the weight to 50: set when that was done.
    pub stepped_down: bool,
    /// The step at which it went back to 50 % and failed nothing there: when it fails above 50 %
    /// once more, it is the load that it cannot bear.
    pub stepped_up: Option<usize>,
    /// Witnesses that a person has set aside, newest last, at most 10.
    pub set_aside: Vec<Witness>,
    /// The one pod that failed while its others did not; a second one is the revision's fault.
    pub pod_fault: Option<PodFault>,
    /// A person said `promote`: steps pass without evidence and holds, never without capacity.
    pub promote_now: bool,
    /// Evidence of fences that are over, so that a new leader goes on with it.
    pub closed: ClosedEvidence,
}

/// A pod that fails alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFault {
    /// Its name.
    pub pod: String,
    /// What was seen of it, one sentence with numbers.
    pub why: String,
    /// It is there, and gets no requests. False once it is gone; what it answered counts no more.
    pub left_out: bool,
}

/// A condemned revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Which.
    pub revision: String,
    /// Why, in one sentence with numbers.
    pub why: String,
    /// When.
    pub at: Millis,
}

/// An ended rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Which revision.
    pub revision: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in one sentence.
    pub why: String,
    /// When.
    pub at: Millis,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is the stable revision now.
    Promoted,
    /// It was condemned, aborted, or ran out of time.
    RolledBack,
    /// Git brought another revision, or went back, before it ended.
    Replaced,
}
