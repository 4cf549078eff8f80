//! `project`: which objects a state asks for.

use crate::desired::{Desired, DesiredCandidate, DesiredSplit, Hold, ScaleDown};
use crate::observation::{DeploymentView, Observation, Workload};
use crate::policy::{Policy, pods_for};
use crate::state::{Candidate, PauseReason, Phase, PromotionStage, State};

/// The objects that the state asks for, given what is there.
#[must_use]
pub fn project(policy: &Policy, state: &State, seen: &Observation) -> Desired {
    if seen.conflict.is_some() {
        return Desired::default();
    }
    if state.stable.is_none() {
        return Desired {
            hold: first_deployment(seen),
            ..Desired::default()
        };
    }
    let split = split(policy, state, seen);
    // What another workload is to be is not in this state.
    let view = match &seen.workload {
        Workload::Deployment(view) if state.is_about(&seen.workload) => view,
        _ => {
            return Desired {
                split,
                ..Desired::default()
            };
        }
    };
    Desired {
        split,
        hold: hold(state, view),
        candidate: candidate(policy, state, view),
        scale_down: scale_down(state),
    }
}

/// Held from the candidate's first pods on, so that it is in force before any weight is.
pub(crate) fn scale_down(state: &State) -> ScaleDown {
    match &state.phase {
        Phase::Paused {
            why: PauseReason::Condemned,
            since,
            ..
        } => ScaleDown::Free { since: *since },
        Phase::Preparing
        | Phase::Shifting { .. }
        | Phase::Observing { .. }
        | Phase::Paused { .. }
        | Phase::Promoting { .. } => ScaleDown::Hold,
        Phase::Idle | Phase::RollingBack { .. } | Phase::Rejected { .. } => ScaleDown::Free {
            since: state.history.first().map_or(0, |ended| ended.at),
        },
    }
}

fn split(policy: &Policy, state: &State, seen: &Observation) -> Option<DesiredSplit> {
    if seen.services.is_empty() {
        return None;
    }
    let mut split = DesiredSplit {
        fence: state.fence,
        pod_label: policy.pod_label.clone(),
        weight: state.weight,
        hung_after_ms: policy.rules.hung_after_ms,
        ..DesiredSplit::default()
    };
    if let Some(candidate) = &state.candidate {
        split.revision.clone_from(&candidate.arm.revision);
        split.candidate = Some(candidate.arm.pod_label_values.clone());
        split.excluded = state.left_out().map(str::to_owned).into_iter().collect();
        split.leased = !matches!(state.phase, Phase::Promoting { .. });
    }
    // Mode B: both subsets run on after the end, and neither may get the other's share.
    if let Some((stable, candidate)) = &policy.versions {
        split.stable = vec![stable.clone()];
        split.candidate = Some(vec![candidate.clone()]);
    }
    Some(split)
}

/// A Deployment that was made anew may be held by the stable revision of the one before, and would
/// never get a pod.
fn first_deployment(seen: &Observation) -> Hold {
    match &seen.workload {
        Workload::Deployment(view) if view.running.is_empty() => release(view),
        _ => Hold::Leave,
    }
}

fn release(view: &DeploymentView) -> Hold {
    let is_ours = view.paused_by_git.is_none() && view.paused_by_hand.is_none();
    if view.paused && is_ours {
        Hold::Release
    } else {
        Hold::Leave
    }
}

fn hold(state: &State, view: &DeploymentView) -> Hold {
    if view.paused_by_git.is_some() || view.paused_by_hand.is_some() {
        return Hold::Leave;
    }
    let serves_wanted = state
        .stable
        .as_ref()
        .is_some_and(|s| s.revision == view.revision);
    let releasing = matches!(
        state.phase,
        Phase::Promoting {
            stage: PromotionStage::Release
        }
    );
    if serves_wanted || releasing {
        return release(view);
    }
    if view.paused { Hold::Leave } else { Hold::Hold }
}

fn candidate(policy: &Policy, state: &State, view: &DeploymentView) -> Option<DesiredCandidate> {
    let candidate = state.candidate.as_ref()?;
    // At the end its ReplicaSet is the Deployment's own: an old look may not show that, and would
    // have another one made.
    let stage = PromotionStage::Release;
    let is_given_away = state.phase == Phase::Promoting { stage };
    if candidate.arm.revision != view.revision || is_given_away {
        return None;
    }
    Some(DesiredCandidate {
        revision: candidate.arm.revision.clone(),
        replicas: replicas(policy, state, candidate, view),
        // Plain clients would reach a pod that is left out, too.
        gates_open: matches!(state.phase, Phase::Promoting { .. }) && state.left_out().is_none(),
        adopt: matches!(
            state.phase,
            Phase::Promoting {
                stage: PromotionStage::Adopt
            }
        ),
    })
}

fn replicas(policy: &Policy, state: &State, candidate: &Candidate, view: &DeploymentView) -> i32 {
    if view.replicas == 0 {
        return 0;
    }
    let there = view.candidate.as_ref().map_or(0, |c| c.replicas);
    // Neither a step down nor fewer `replicas` make the share of the requests any smaller that is
    // being served: its pods stay, unless all are to go.
    let carries = state.weight > 0 && view.replicas > 0;
    let serving = if carries { there } else { 0 };
    // One that is left out carries nothing.
    let left_out = i32::from(state.left_out().is_some());
    let for_step = |step: usize| {
        let weight = policy.capacity_weight_at(step).max(state.weight);
        (pods_for(weight, view.replicas) + left_out).max(serving)
    };
    match &state.phase {
        Phase::Idle | Phase::RollingBack { .. } => there,
        Phase::Preparing => for_step(0),
        Phase::Paused {
            why: PauseReason::Condemned,
            ..
        } => there,
        Phase::Shifting { step } | Phase::Observing { step, .. } | Phase::Paused { step, .. } => {
            for_step(*step)
        }
        Phase::Promoting { .. } => view.replicas + left_out,
        // Pods made while gates were open have none to shut: plain clients would keep them.
        Phase::Rejected { .. } if view.candidate.as_ref().is_some_and(|c| c.ungated > 0) => 0,
        Phase::Rejected { .. } if candidate.condemned => there.min(policy.keep_candidate_pods),
        Phase::Rejected { .. } => 0,
    }
}
