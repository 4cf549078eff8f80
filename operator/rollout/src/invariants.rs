//! What must hold after every turn, whatever was seen. One set for tests, simulation, and debug
//! builds of the controller, which refuse to act on a state that breaks it.

use crate::observation::{Observation, Workload};
use crate::policy::Policy;
use crate::state::{Phase, PodFault, PromotionStage, State};

/// Checks a state against the one before it.
///
/// # Errors
/// The first broken rule, as a sentence.
pub fn check(policy: &Policy, before: &State, after: &State) -> Result<(), String> {
    weight_is_bounded(policy, after)?;
    no_pause_raises_more_than_it_stands_for(before, after)?;
    one_pod_at_fault(before, after)?;
    fence_tells_of_every_change(before, after)?;
    condemned_stays_off(before, after)?;
    one_candidate_at_a_time(before, after)
}

/// Checks a state against the look that it was decided on, where that look could tell: no weight
/// to an arm without a pod that can serve, as long as the other arm has one. Not past return,
/// where stable is on its way out.
///
/// # Errors
/// The broken rule, as a sentence.
pub fn check_capacity(after: &State, seen: &Observation) -> Result<(), String> {
    let Some(candidate) = after.candidate.as_ref().filter(|_| after.weight > 0) else {
        return Ok(());
    };
    let stage = match after.phase {
        Phase::Promoting { stage } => stage,
        _ => PromotionStage::OpenGates,
    };
    if stage != PromotionStage::OpenGates
        || seen.conflict.is_some()
        || !after.is_about(&seen.workload)
        || is_of_the_past(after, seen)
    {
        return Ok(());
    }
    let left_out = after.left_out();
    let (ready, stable_ready) = match &seen.workload {
        Workload::Deployment(view) if view.revision == candidate.arm.revision => {
            let stable = view.running.iter().filter(|r| r.revision != view.revision);
            let ours = view.candidate.as_ref();
            let ready = ours.map_or(0, |ours| ours.can_serve(left_out));
            (ready, stable.map(|r| r.ready).sum())
        }
        Workload::Subsets(view) if view.candidate_revision == candidate.arm.revision => {
            (view.can_serve(left_out), view.stable_ready)
        }
        _ => return Ok(()),
    };
    if ready < 1 && stable_ready > 0 {
        return Err(format!(
            "weight {} in {:?} without a candidate pod that can serve",
            after.weight, after.phase
        ));
    }
    Ok(())
}

fn is_of_the_past(after: &State, seen: &Observation) -> bool {
    let Workload::Deployment(view) = &seen.workload else {
        return false;
    };
    let known = after.deployment_seen.as_ref();
    known.is_some_and(|known| known.is_later_than(view))
}

fn weight_is_bounded(policy: &Policy, after: &State) -> Result<(), String> {
    let most = match &after.phase {
        Phase::Shifting { step } | Phase::Observing { step, .. } | Phase::Paused { step, .. } => {
            policy.weight_at(*step)
        }
        Phase::Promoting { .. } => 100,
        Phase::Idle if policy.versions.is_some() => 100,
        _ => 0,
    };
    if !(0..=most).contains(&after.weight) {
        return Err(format!(
            "weight {} in {:?}, at most {most}",
            after.weight, after.phase
        ));
    }
    if after.weight > 0 && after.candidate.is_none() && policy.versions.is_none() {
        return Err(format!("weight {} without a candidate", after.weight));
    }
    Ok(())
}

fn no_pause_raises_more_than_it_stands_for(before: &State, after: &State) -> Result<(), String> {
    let Phase::Paused { weight, .. } = after.phase else {
        return Ok(());
    };
    if after.weight > before.weight.max(weight) {
        return Err(format!(
            "weight {} in a pause that stands for {weight}",
            after.weight
        ));
    }
    Ok(())
}

/// A revision has one pod that is at fault instead of it. Only while that is there it is left
/// out, and nothing becomes stable meanwhile.
fn one_pod_at_fault(before: &State, after: &State) -> Result<(), String> {
    if let (Some(pod), Phase::Promoting { stage }) = (after.left_out(), &after.phase)
        && *stage != PromotionStage::OpenGates
    {
        return Err(format!("{stage:?} while pod {pod} is left out"));
    }
    let (Some(old), Some(new)) = (&before.candidate, &after.candidate) else {
        return Ok(());
    };
    let is_same_try = old.arm == new.arm && old.started == new.started;
    let (Some(old), true) = (&old.pod_fault, is_same_try) else {
        return Ok(());
    };
    let may_follow = |fault: &PodFault| fault.pod == old.pod && (old.left_out || !fault.left_out);
    if new.pod_fault.as_ref().is_some_and(may_follow) {
        return Ok(());
    }
    Err(format!(
        "pod {} was at fault, and now {:?}",
        old.pod, new.pod_fault
    ))
}

fn fence_tells_of_every_change(before: &State, after: &State) -> Result<(), String> {
    if after.fence < before.fence {
        return Err(format!(
            "the fence fell from {} to {}",
            before.fence, after.fence
        ));
    }
    let arms = |state: &State| {
        (
            state.weight,
            state.candidate.as_ref().map(|c| c.arm.clone()),
            state.candidate.is_some() && !matches!(state.phase, Phase::Promoting { .. }),
            state.stable.is_some(),
            state.left_out().map(str::to_owned),
        )
    };
    if arms(before) != arms(after) && after.fence == before.fence {
        return Err("arms, weight or lease changed under the same fence".to_owned());
    }
    Ok(())
}

fn condemned_stays_off(before: &State, after: &State) -> Result<(), String> {
    let Some(candidate) = &after.candidate else {
        return Ok(());
    };
    if candidate.condemned && after.weight > 0 {
        return Err(format!(
            "condemned revision {} has weight",
            candidate.arm.revision
        ));
    }
    let rejected_before = before
        .rejected
        .iter()
        .any(|r| r.revision == candidate.arm.revision);
    if rejected_before && after.weight > before.weight {
        return Err(format!(
            "rejected revision {} gained weight",
            candidate.arm.revision
        ));
    }
    Ok(())
}

fn one_candidate_at_a_time(before: &State, after: &State) -> Result<(), String> {
    let (Some(old), Some(new)) = (&before.candidate, &after.candidate) else {
        return Ok(());
    };
    if old.arm.revision != new.arm.revision && before.weight > 0 {
        return Err(format!(
            "candidate {} followed {} while that had weight",
            new.arm.revision, old.arm.revision
        ));
    }
    Ok(())
}
