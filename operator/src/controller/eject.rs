//! A condemned candidate is taken off traffic although the apiserver does not answer: proxies
//! are told by the relay, and keep to it until a split with a higher fence comes.
//!
//! **Invariants**
//! - Only a decision of the machine that condemns the candidate at weight 0 ejects it, and only
//!   below the fence of that decision: when that is written, in whatever order, it holds.
//! - A refusal is an answer: whoever may not write does not go round the apiserver.
//! - An eject that is known is a verdict: whoever leads next carries it out, also where the
//!   evidence that it was made of is lost, or would not suffice again.

use std::{future::Future, pin::pin, time::Duration};

use jiff::Timestamp;
use sluice_evidence::relay::Eject;
use sluice_rollout::{policy::Policy, state::State};
use tracing::warn;

use super::{
    Controller,
    act::ActError,
    facts::{Key, RolloutFacts, SplitFacts},
    reconcile::{Look, Memory},
    stored::read_state,
};

/// How long a write that takes a candidate off traffic is waited for before proxies are told
/// without it. The write itself goes on.
const PROMPT: Duration = Duration::from_secs(1);

impl Controller {
    /// Waits for a write that brings about `state`, or a part of it. Where that condemns the
    /// candidate and the apiserver does not answer, the candidate is ejected.
    pub(super) async fn or_eject<T>(
        &self,
        look: &Look<'_>,
        state: &State,
        write: impl Future<Output = Result<T, ActError>>,
    ) -> Result<T, ActError> {
        let Some(eject) = due(&look.rollout.meta.key(), look.split, state, look.now) else {
            return write.await;
        };
        let mut write = pin!(write);
        match tokio::time::timeout(PROMPT, &mut write).await {
            Ok(Err(silent @ ActError::Silent { .. })) => {
                self.eject(eject);
                Err(silent)
            }
            Ok(answered) => answered,
            Err(_) => {
                self.eject(eject);
                write.await
            }
        }
    }

    /// A look in a term that could not be renewed: nothing is written, but what is condemned now
    /// is ejected all the same. Should another lead by now, its splits have higher fences, or it
    /// learns of the eject from the replicas that hold it.
    pub(super) fn stand_in(&self, lapsed: i32, rollout: &RolloutFacts, memory: &mut Memory) {
        let key = rollout.meta.key();
        let now = Timestamp::now();
        let split = self.world.splits.get(&key.namespace, &key.name);
        let (Ok(policy), Ok(shown)) = (
            Policy::from_spec(&rollout.spec()),
            read_state(rollout, split.as_deref(), now),
        ) else {
            return;
        };
        // The watch may have ended before it showed our last write.
        let written = memory.written.clone();
        let newer = written.filter(|written| written.fence > shown.fence);
        let state = newer.map_or(shown, |newer| *newer);
        let namespace = self.world.namespace(&key.namespace);
        let look = self.observe(
            lapsed,
            rollout,
            &namespace,
            split.as_deref(),
            &state,
            Some(&policy),
            memory,
            now,
        );
        let Ok(decision) = self.decide(&policy, &state, &look) else {
            return;
        };
        if let Some(eject) = due(&key, look.split, &decision.state, now) {
            self.eject(eject);
        }
    }

    /// The verdict that an eject stands for, where one reaches the state's fence: this process's
    /// own, or one that replicas hold for an earlier leader.
    pub(super) fn ejected(&self, key: &Key, state: &State) -> Option<String> {
        let candidate = state.candidate.as_ref()?;
        let eject = self.hub.ejects.of(&key.namespace, &key.name)?;
        if eject.revision != candidate.arm.revision || eject.fence < state.fence {
            return None;
        }
        let since = Timestamp::from_millisecond(eject.since_ms).unwrap_or_default();
        Some(format!(
            "{} (off traffic since {since:.0}, while the apiserver did not answer)",
            eject.why
        ))
    }

    /// Lets go of ejects that are over.
    pub(super) fn forget_ejects(&self) {
        self.hub.ejects.retain(|eject| {
            let split = self.world.splits.get(&eject.namespace, &eject.rollout);
            split.is_some_and(|split| split.fence <= eject.fence)
        });
    }

    fn eject(&self, eject: Eject) {
        if !self.hub.ejects.add(eject.clone()) {
            return;
        }
        self.metrics.ejects.inc();
        let Eject {
            namespace,
            rollout,
            revision,
            fence,
            why,
            ..
        } = eject;
        warn!(
            namespace,
            rollout,
            revision,
            fence,
            why,
            "the apiserver does not answer: proxies are told to take the candidate off traffic"
        );
    }
}

/// The eject that a state asks for while the split does not say what it does.
fn due(key: &Key, split: Option<&SplitFacts>, state: &State, now: Timestamp) -> Option<Eject> {
    let candidate = state.candidate.as_ref()?;
    let condemned = candidate.condemned && state.weight == 0;
    if !condemned || split?.fence >= state.fence {
        return None;
    }
    let verdict = state.verdict.as_str();
    let why = verdict.split_once(": ").map_or(verdict, |(_, why)| why);
    Some(Eject {
        namespace: key.namespace.clone(),
        rollout: key.name.clone(),
        revision: candidate.arm.revision.clone(),
        fence: state.fence - 1,
        since_ms: now.as_millisecond(),
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests;
