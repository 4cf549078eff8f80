//! The state as it is stored in a MeshRollout's status, and its fence beside the TrafficSplit's.

use jiff::Timestamp;
use sluice_crds::TrafficSplitSpec;
use sluice_rollout::{observation::Observation, state::State};

use super::{
    act::ActError,
    facts::{RolloutFacts, SplitFacts},
};

/// The state as it was written; for a MeshRollout without one a new state. Its fence begins
/// above every fence of an earlier life of this name, which proxies may still report.
///
/// # Errors
/// Somebody has edited it.
pub fn read_state(
    rollout: &RolloutFacts,
    split: Option<&SplitFacts>,
    now: Timestamp,
) -> Result<State, ActError> {
    let Some(written) = &rollout.state else {
        let last = split.map_or(0, |split| split.object.spec.fence);
        return Ok(State {
            fence: now.as_second().max(last),
            ..State::default()
        });
    };
    serde_json::from_str(written).map_err(|error| {
        ActError::Waits(format!(
            "status.state cannot be read ({error}): was it edited? Remove it, and the rollout begins anew"
        ))
    })
}

/// Raises the fence where the split asks for it. A split that says anything else (of other
/// Services, or what a changed spec asks for) is another decision about traffic: it gets a fence
/// of its own, and the evidence under the old one is closed, as `decide` does. A split whose fence
/// is above the state's (a status that was restored from a backup) would refuse every write.
pub fn keep_fence(
    state: &mut State,
    split: Option<&SplitFacts>,
    wanted: Option<&TrafficSplitSpec>,
    seen: &Observation,
) {
    let (Some(split), Some(wanted)) = (split, wanted) else {
        return;
    };
    let spec = &split.object.spec;
    let says_another = spec != wanted && spec.fence == state.fence;
    if seen.services.is_empty() || !says_another && spec.fence <= state.fence {
        return;
    }
    state.fence = spec.fence + 1;
    let closed = &seen.evidence.closed;
    if let Some(candidate) = &mut state.candidate
        && closed.through_fence > candidate.closed.through_fence
    {
        candidate.closed = closed.clone();
    }
}

#[cfg(test)]
mod tests;
