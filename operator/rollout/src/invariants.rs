//! What must hold after every turn, whatever was seen. One set for tests, simulation, and debug
//! builds of the controller, which refuse to act on a state that breaks it.

use crate::policy::Policy;
use crate::state::{Phase, State};

/// Checks a state against the one before it.
///
/// # Errors
/// The first broken rule, as a sentence.
pub fn check(policy: &Policy, before: &State, after: &State) -> Result<(), String> {
    weight_is_bounded(policy, after)?;
    fence_tells_of_every_change(before, after)?;
    condemned_stays_off(before, after)?;
    one_candidate_at_a_time(before, after)
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
