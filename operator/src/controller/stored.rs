//! The state as it is stored in a MeshRollout's status, and its fence beside the TrafficSplit's.

use jiff::Timestamp;
use kube::{Api, api::PostParams};
use serde::Serialize;
use serde_json::Value;
use sluice_crds::{MeshRollout, MeshRolloutStatus, TrafficSplitSpec};
use sluice_rollout::{observation::Observation, state::State};
use tokio::time::Instant;

use super::{
    Controller,
    act::{ActError, REQUEST, answer},
    facts::{MANAGER, RolloutFacts, SplitFacts},
    reconcile::{Look, Memory},
    seen::Kind,
    status::{Difference, Fact, difference, figures_every, merge},
};

/// The state that is stored says what this program does not understand.
#[derive(Debug, thiserror::Error)]
#[error(
    "status.state cannot be read ({0}): another version of the operator wrote it, or somebody edited it. \
     All stays as it is, and nobody judges a candidate that has a weight, until it can be read: bring that \
     version back, or remove status.state, and the rollout begins anew"
)]
pub struct Unreadable(#[from] serde_json::Error);

/// The state as it was written; for a MeshRollout without one a new state. Its fence begins
/// above every fence of an earlier life of this name, which proxies may still report.
///
/// # Errors
/// Another version has written it, or somebody has edited it.
pub fn read_state(
    rollout: &RolloutFacts,
    split: Option<&SplitFacts>,
    now: Timestamp,
) -> Result<State, Unreadable> {
    let Some(written) = rollout.state() else {
        let last = split.map_or(0, |split| split.fence);
        return Ok(State {
            fence: now.as_second().max(last),
            ..State::default()
        });
    };
    Ok(serde_json::from_value(written)?)
}

/// Whether the apiserver has kept what it was sent of an object's `part`. The CRD of an earlier
/// version drops fields that it does not know, and says nothing.
///
/// # Errors
/// It has not; the sentence names the first field.
pub fn kept(
    crd: &str,
    part: &str,
    sent: &impl Serialize,
    stored: &impl Serialize,
) -> Result<(), ActError> {
    // What cannot be written as JSON was not sent.
    let [sent, stored] =
        [serde_json::to_value(sent), serde_json::to_value(stored)].map(Result::unwrap_or_default);
    let Some(field) = difference_at(&sent, &stored) else {
        return Ok(());
    };
    Err(ActError::Waits(format!(
        "{part}{field} was not kept as it was written: the CRD {crd} is older than this operator. Install the CRDs \
         of this version (crds.install=true in the chart's values); nothing is decided until what is written is kept"
    )))
}

/// Path of the first field that is stored otherwise than it was sent, a dot before each name.
fn difference_at(sent: &Value, stored: &Value) -> Option<String> {
    match (sent, stored) {
        (Value::Null, _) => None,
        (Value::Object(fields), Value::Object(_)) => fields.iter().find_map(|(name, value)| {
            let below = difference_at(value, &stored[name])?;
            Some(format!(".{name}{below}"))
        }),
        (Value::Array(items), Value::Array(kept)) if items.len() == kept.len() => {
            let mut pairs = items.iter().zip(kept);
            pairs.find_map(|(sent, stored)| difference_at(sent, stored))
        }
        // The apiserver writes 0.0 as 0.
        (Value::Number(sent), Value::Number(stored)) => {
            (sent.as_f64() != stored.as_f64()).then(String::new)
        }
        _ => (sent != stored).then(String::new),
    }
}

impl Controller {
    /// Writes a status whole, if it differs from the one that is stored; figures alone now and then.
    /// Gives when they are due.
    pub(super) async fn store(
        &self,
        look: &Look<'_>,
        before: Option<&MeshRolloutStatus>,
        next: MeshRolloutStatus,
        memory: &mut Memory,
    ) -> Result<Option<Instant>, ActError> {
        let rollout = look.rollout;
        match difference(before, &next) {
            Difference::None => return Ok(None),
            Difference::Substance => {}
            Difference::Figures => {
                let every = figures_every(self.metrics.trying());
                let due = memory.status_written.map(|written| written + every);
                if let Some(due) = due.filter(|due| *due > Instant::now()) {
                    return Ok(Some(due));
                }
            }
        }
        let is_first = before.is_none_or(|status| status.state.is_none());
        let object = rollout.with(Some(next));
        let api = Api::<MeshRollout>::namespaced(self.client.clone(), &rollout.meta.namespace);
        let name = &rollout.meta.name;
        let what = format!("status of MeshRollout {name}");
        let params = |dry_run| PostParams {
            dry_run,
            field_manager: Some(MANAGER.to_owned()),
        };
        // The rest of the status is for who looks; this is what the next decision is made from.
        let state_of = |rollout: &MeshRollout| rollout.status.as_ref()?.state.clone();
        let is_kept = |stored: &MeshRollout| {
            let crd = "meshrollouts.sluice.dev";
            kept(crd, "status.state", &state_of(&object), &state_of(stored))
        };
        if is_first {
            // A CRD without the field hides a state that is there, and a write would end it.
            let dry_run = params(true);
            let request = api.replace_status(name, &dry_run, &object);
            is_kept(&answer(what.clone(), REQUEST, request).await?)?;
            // By now it is shown again; the watch may not have told of it yet.
            let shown = answer(what.clone(), REQUEST, api.get(name)).await?;
            if state_of(&shown).is_some() {
                return Err(ActError::Conflict(what));
            }
        }
        let write = params(false);
        let request = async { api.replace_status(name, &write, &object).await };
        let stored = self.writer(look).send(Kind::Rollout, what, request).await?;
        is_kept(&stored)?;
        look.state_stands.set(()).ok();
        memory.status_written = Some(Instant::now());
        Ok(None)
    }

    /// The stored state cannot be read: it stays, all that it has brought about stays, and that
    /// is said.
    pub(super) async fn stall(
        &self,
        look: &Look<'_>,
        unreadable: &Unreadable,
        memory: &mut Memory,
    ) -> Result<Option<Instant>, ActError> {
        let (reason, message) = ("StateUnreadable", unreadable.to_string());
        let fact = |kind, status| Fact {
            kind,
            status,
            reason,
            message: message.clone(),
        };
        let facts = vec![fact("Ready", "False"), fact("Stalled", "True")];
        let generation = look.rollout.meta.generation;
        let stored = look.rollout.status();
        let before = stored.clone().unwrap_or_default();
        let next = MeshRolloutStatus {
            observed_generation: Some(generation),
            conditions: merge(&before.conditions, facts, generation, look.now),
            ..before
        };
        self.store(look, stored.as_ref(), next, memory).await
    }
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
    let spec = split.object().spec;
    let says_another = spec != *wanted && spec.fence == state.fence;
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
