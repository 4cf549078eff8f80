//! One look at one MeshRollout: observe, decide, write the state, bring about what it asks for.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sluice_rollout::{
    Millis,
    conditions::conditions,
    decide::{Decision, NoteKind, decide},
    desired::Desired,
    invariants,
    observation::{EvidenceView, Observation},
    policy::Policy,
    project::project,
    state::State,
};
use tokio::{sync::OnceCell, time::Instant};
use tracing::{debug, error, warn};

use super::{
    Controller,
    act::{ActError, Told, Writer, split_spec, split_status},
    bypass::Bypass,
    evidence::{Arrived, Evidence, standing},
    exports,
    facts::{DeploymentFacts, Key, RolloutFacts, SplitFacts},
    observe::{observe, services_of},
    seen::{ASKING, PATIENCE, Write},
    status::{Fact, Shown, render, with_hindrance},
    stored::{keep_fence, read_state},
    watches::Namespace,
};
use crate::backoff::Backoff;

/// After a try that failed nothing is looked at for a part of the wait, and never for longer than
/// this, whatever wakes: the evidence of busy proxies would else ask an apiserver in trouble
/// hundreds of times a second.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What is remembered of a MeshRollout between looks; nothing that a restart may not lose.
#[derive(Default)]
pub struct Memory {
    last: Option<Arc<RolloutFacts>>,
    evidence: Option<Box<Evidence>>,
    hindrance: Option<String>,
    backoff: Backoff,
    rest_until: Option<Instant>,
    pub(super) status_written: Option<Instant>,
    split_told: Told,
    phase: Option<&'static str>,
    bypass: Bypass,
    /// The last state that was written and acknowledged, until the cache shows it.
    pub(super) written: Option<Box<State>>,
}

/// Everything that one look reads.
pub(super) struct Look<'a> {
    pub(super) rollout: &'a RolloutFacts,
    pub(super) namespace: &'a Namespace,
    pub(super) split: Option<&'a SplitFacts>,
    pub(super) observation: Observation,
    pub(super) laggards: Vec<String>,
    pub(super) now: Timestamp,
    /// Set once the apiserver has said that the state is the newest one.
    pub(super) state_stands: OnceCell<()>,
}

impl<'a> Look<'a> {
    /// Nothing is seen, since nothing can be decided.
    fn blind(rollout: &'a RolloutFacts, namespace: &'a Namespace, now: Timestamp) -> Self {
        Look {
            rollout,
            namespace,
            split: None,
            observation: Observation::default(),
            laggards: Vec::new(),
            now,
            state_stands: OnceCell::new(),
        }
    }
}

impl Controller {
    /// Looks at one object; says when to look again although nothing happens.
    pub async fn look(&self, key: &Key, memory: &mut Memory) -> Option<Instant> {
        let (term, lapsed) = (self.leadership.term(), self.leadership.lapsed());
        if term.is_none() {
            self.metrics.forget(key, memory.phase.take());
        }
        let Some(number) = term.or(lapsed) else {
            memory.evidence = None;
            memory.written = None;
            return None;
        };
        let Some(rollout) = self.world.rollouts.get(&key.namespace, &key.name) else {
            // Its split and candidate go by their owner references.
            self.metrics.forget(key, memory.phase.take());
            self.queue.asks_about(key, 0);
            self.seen.forget(key);
            if let Some(last) = std::mem::take(memory).last {
                self.tell_of_a_deletion(&last);
            }
            return None;
        };
        if rollout.meta.deleting {
            return None;
        }
        let Some(term) = term else {
            self.stand_in(number, &rollout, memory);
            return None;
        };
        if let Some(until) = memory.rest_until.filter(|until| *until > Instant::now()) {
            return Some(until);
        }
        if let Some(again) = self.wait_for_own_writes(key).await {
            return Some(again);
        }
        memory.last = Some(rollout.clone());
        match self.reconcile(term, &rollout, memory).await {
            Ok(again) => {
                self.metrics.reconciled("ok");
                memory.backoff.reset();
                if let Some(hindrance) = memory.hindrance.take() {
                    debug!(%key, hindrance, "the hindrance is over");
                    return Some(Instant::now());
                }
                again
            }
            Err(error) => Some(self.failed(key, &rollout, memory, &error)),
        }
    }

    /// When the cache does not show all our writes yet: when to look again at the latest. The
    /// watch wakes earlier; after [`PATIENCE`] the apiserver is asked.
    async fn wait_for_own_writes(&self, key: &Key) -> Option<Instant> {
        for overdue in self.seen.overdue(key) {
            let write = &overdue.write;
            if self.cache_is_current(write).await {
                self.seen.caught_up(&write.uid);
            } else if overdue.first {
                warn!(%key, kind = ?write.kind, name = write.name, age = ?overdue.age, "the watch is behind our own write");
            }
        }
        let oldest = self.seen.pending_since(key)?;
        Some((oldest + PATIENCE).max(Instant::now() + ASKING))
    }

    async fn cache_is_current(&self, write: &Write) -> bool {
        let held = self
            .world
            .version(write.kind, &write.namespace, &write.name);
        match self.current_version(write).await {
            Ok(current) => held == current,
            Err(error) => {
                warn!(%error, name = write.name, "our own write could not be read back");
                false
            }
        }
    }

    async fn reconcile(
        &self,
        term: i32,
        rollout: &Arc<RolloutFacts>,
        memory: &mut Memory,
    ) -> Result<Option<Instant>, ActError> {
        let now = Timestamp::now();
        let key = rollout.meta.key();
        let namespace = self.world.namespace(&key.namespace);
        let split = self.world.splits.get(&key.namespace, &key.name);
        let state = match read_state(rollout, split.as_deref(), now) {
            Ok(state) => state,
            Err(unreadable) => {
                let look = Look::blind(rollout, &namespace, now);
                return self.stall(&look, &unreadable, memory).await;
            }
        };
        if memory.written.as_deref() == Some(&state) {
            // The cache shows it: nobody needs it twice.
            memory.written = None;
        }
        let policy = Policy::from_spec(&rollout.spec());
        let look = self.observe(
            term,
            rollout,
            &namespace,
            split.as_deref(),
            &state,
            policy.as_ref().ok(),
            memory,
            now,
        );
        let held = self.webhooks.hold(&key.namespace).await;
        let policy = match policy {
            Ok(policy) => policy,
            Err(error) => {
                let facts =
                    conditions(Err(&error), &state, &look.observation, now.as_millisecond());
                let facts = facts.into_iter().map(Fact::from).collect();
                self.write_status(&look, None, &state, facts, memory)
                    .await?;
                return Ok(None);
            }
        };
        let decision = self.decide(&policy, &state, &look)?;
        let facts = conditions(
            Ok(&policy),
            &decision.state,
            &look.observation,
            now.as_millisecond(),
        );
        let facts = facts.into_iter().map(Fact::from).collect();
        let hindrance = held
            .as_ref()
            .err()
            .map(ToString::to_string)
            .or(memory.hindrance.clone());
        let mut facts = with_hindrance(facts, hindrance.as_deref());
        let services = &look.observation.services;
        let (bypassed, bypass_at) = self.bypassed(&key, &namespace, services, &mut memory.bypass);
        facts.extend(bypassed);
        facts.extend(exports::fact(&namespace, services));
        let write = self.write_status(&look, Some(&policy), &decision.state, facts, memory);
        let figures_at = self.or_eject(&look, &decision.state, write).await?;
        self.tell(rollout, &decision);
        self.tell_of_another_workload(rollout, &state, &decision.state);
        let phase = decision.state.phase.name();
        self.metrics.rollout(
            &key,
            memory.phase.replace(phase),
            phase,
            decision.state.weight,
        );

        let desired = project(&policy, &decision.state, &look.observation);
        let act_at = self.act(&look, &decision.state, &desired, memory).await?;
        held?;
        let decided_at = decision
            .again_at
            .map(|at| instant(at, now.as_millisecond()));
        Ok([figures_at, act_at, decided_at, bypass_at]
            .into_iter()
            .flatten()
            .min())
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn observe<'a>(
        &self,
        term: i32,
        rollout: &'a RolloutFacts,
        namespace: &'a Namespace,
        split: Option<&'a SplitFacts>,
        state: &State,
        policy: Option<&Policy>,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Look<'a> {
        let services: Vec<String> = services_of(rollout, namespace)
            .into_iter()
            .map(|name| format!("{}/{name}", rollout.meta.namespace))
            .collect();
        let ours = split.filter(|split| split.meta.owned_by("MeshRollout", &rollout.meta.uid));
        let fence = ours.map(|split| split.fence);
        let complete = self.relay_is_complete();
        let evidence = match (&state.candidate, policy) {
            (Some(candidate), Some(policy)) => {
                let held = memory.evidence.take().map(|held| *held);
                let evidence = Evidence::of(held, term, candidate, &policy.rules);
                Some(Box::new(evidence))
            }
            _ => None,
        };
        memory.evidence = evidence;
        let arrived = Arrived {
            pods: candidate_pods(namespace, state, policy),
            address_of: &|namespace, name, uid| self.address_of(namespace, name, uid),
        };
        let (view, laggards, mut evidence) = self.hub.with_table(|table| {
            let (view, laggards) = standing(table, &services, fence, complete, self.hub.now_ms());
            let evidence =
                memory
                    .evidence
                    .as_mut()
                    .map_or_else(EvidenceView::default, |evidence| {
                        evidence.compare(table, &services, &arrived, self.hub.now_ms());
                        evidence.read(table, &services, state.fence, now.as_millisecond())
                    });
            (view, laggards, evidence)
        });
        self.queue.asks_about(&rollout.meta.key(), view.expected);
        for doubt in memory.evidence.iter_mut().flat_map(|held| held.news()) {
            let of = rollout.reference();
            self.events.tell(of, true, "WitnessDoubted", &doubt);
        }
        if let Some(verdict) = self.ejected(&rollout.meta.key(), state) {
            evidence.condemned = Some(verdict);
        }
        Look {
            rollout,
            namespace,
            split,
            observation: observe(rollout, namespace, view, evidence),
            laggards,
            now,
            state_stands: OnceCell::new(),
        }
    }

    pub(super) fn decide(
        &self,
        policy: &Policy,
        state: &State,
        look: &Look<'_>,
    ) -> Result<Decision, ActError> {
        let mut decision = decide(policy, state, &look.observation, look.now.as_millisecond());
        let ours = look
            .split
            .filter(|split| split.meta.owned_by("MeshRollout", &look.rollout.meta.uid));
        let wanted = project(policy, &decision.state, &look.observation).split;
        let wanted = wanted.map(|split| split_spec(&split, &look.observation.services));
        let next = &mut decision.state;
        keep_fence(next, ours, wanted.as_ref(), &look.observation);
        // A stop is better than an effect that no rule allows: what is in force stays.
        let is_sound = || {
            invariants::check(policy, state, &decision.state)?;
            invariants::check_capacity(&decision.state, &look.observation)
        };
        if cfg!(debug_assertions)
            && let Err(broken) = is_sound()
        {
            error!(broken, before = ?state, after = ?decision.state, "a decision breaks an invariant");
            return Err(ActError::Waits(format!(
                "a decision was refused because it breaks a rule of the machine ({broken}): report this"
            )));
        }
        if decision.state != *state {
            self.metrics.decided();
        }
        Ok(decision)
    }

    /// Writes the status of a decision, if it differs; figures alone now and then. Gives when they
    /// are due.
    async fn write_status(
        &self,
        look: &Look<'_>,
        policy: Option<&Policy>,
        state: &State,
        facts: Vec<Fact>,
        memory: &mut Memory,
    ) -> Result<Option<Instant>, ActError> {
        let rollout = look.rollout;
        let stored = rollout.status();
        let before = stored.clone().unwrap_or_default();
        let generation = rollout.meta.generation;
        let shown = Shown {
            policy,
            state,
            seen: &look.observation,
            facts,
            generation,
            now: look.now,
        };
        let next = render(shown, &before).map_err(|error| ActError::Failed {
            what: "rendering the status".to_owned(),
            message: error.to_string(),
        })?;
        let due_at = self.store(look, stored.as_ref(), next, memory).await?;
        if due_at.is_none() {
            memory.written = Some(Box::new(state.clone()));
        }
        Ok(due_at)
    }

    /// The state is written: brings about what it asks for. Gives when there is more to do
    /// although nothing happens.
    async fn act(
        &self,
        look: &Look<'_>,
        state: &State,
        desired: &Desired,
        memory: &mut Memory,
    ) -> Result<Option<Instant>, ActError> {
        let writer = self.writer(look);
        let split = writer.split(
            look.split,
            desired.split.as_ref(),
            &look.observation.services,
        );
        self.or_eject(look, state, split).await?;
        let mut again = None;
        let governed = governed(look);
        let leaving = leaving(look, state);
        writer.candidates_elsewhere(governed, &leaving).await?;
        if let Some(deployment) = governed {
            writer.hold(deployment, desired.hold).await?;
            writer
                .candidate(deployment, desired.candidate.as_ref(), &leaving)
                .await?;
            let free_at = writer
                .autoscalers(deployment, desired.scale_down, look.now)
                .await?;
            again = free_at.map(|at| instant(at, look.now.as_millisecond()));
        }
        // The counts of a fence that is being replaced at this moment say nothing.
        let current = look.split.filter(|split| {
            desired
                .split
                .as_ref()
                .is_some_and(|d| d.fence == split.fence)
        });
        let Some(split) = current else {
            return Ok(again);
        };
        let split = split.object();
        let status = split_status(&split, &look.observation.split, &look.laggards, look.now);
        let figures_at = writer
            .write_split_status(split, status, &mut memory.split_told)
            .await?;
        Ok([again, figures_at].into_iter().flatten().min())
    }

    pub(super) fn writer<'a>(&'a self, look: &'a Look<'_>) -> Writer<'a> {
        Writer {
            client: &self.client,
            leadership: &self.leadership,
            seen: &self.seen,
            metrics: &self.metrics,
            webhooks: &self.webhooks,
            rollout: look.rollout,
            namespace: look.namespace,
            state_stands: &look.state_stands,
        }
    }

    /// What is as it should be is one event, whatever came to pass in one turn; each warning is one
    /// of its own.
    fn tell(&self, rollout: &RolloutFacts, decision: &Decision) {
        let (warnings, news): (Vec<_>, Vec<_>) = decision
            .notes
            .iter()
            .partition(|note| note.kind == NoteKind::Warning);
        let tell = |is_warning, reason, message: &str| {
            let of = rollout.reference();
            self.events.tell(of, is_warning, reason, message);
        };
        if let Some(first) = news.first() {
            let messages: Vec<_> = news.iter().map(|note| note.message.as_str()).collect();
            tell(false, first.reason, &messages.join("; "));
        }
        for warning in warnings {
            tell(true, warning.reason, &warning.message);
        }
    }

    /// Counts, tells and remembers a failure; when to try again.
    fn failed(
        &self,
        key: &Key,
        rollout: &RolloutFacts,
        memory: &mut Memory,
        error: &ActError,
    ) -> Instant {
        let wait = memory.backoff.wait();
        memory.rest_until = Some(Instant::now() + (wait / 4).min(LONGEST_REST));
        let is_passing = matches!(error, ActError::Conflict(_) | ActError::NotLeading(_));
        self.metrics
            .reconciled(if is_passing { "conflict" } else { "failed" });
        if is_passing {
            debug!(%key, %error, "looked at again");
        } else {
            warn!(%key, %error, ?wait, "not done; tried again");
            let message = error.to_string();
            if memory.hindrance.as_ref() != Some(&message) {
                self.events
                    .tell(rollout.reference(), true, "Hindered", &message);
                memory.hindrance = Some(message);
            }
        }
        Instant::now() + wait
    }
}

/// Uids of the candidate's pods.
fn candidate_pods<'a>(
    namespace: &'a Namespace,
    state: &State,
    policy: Option<&Policy>,
) -> Vec<&'a str> {
    let (Some(candidate), Some(policy)) = (&state.candidate, policy) else {
        return Vec::new();
    };
    let values = &candidate.arm.pod_label_values;
    let pods = namespace.pods.iter().filter(|pod| {
        let value = pod.meta.labels.get(&policy.pod_label);
        value.is_some_and(|value| values.iter().any(|held| held == value))
    });
    pods.map(|pod| pod.meta.uid.as_str()).collect()
}

/// The revisions whose pods stay though they may not be wanted: the one that the state is about,
/// which it lets go of once proxies have left it; and the one that the split gave a weight when it
/// was looked at, if only because another process had no time left to write it anew.
fn leaving<'a>(look: &Look<'a>, state: &'a State) -> Vec<&'a str> {
    let uid = &look.rollout.meta.uid;
    let split = look.split.filter(|s| s.meta.owned_by("MeshRollout", uid));
    let tried = state.candidate.as_ref().map(|c| c.arm.revision.as_str());
    let sent = split.and_then(|split| split.sends_to.as_deref());
    [tried, sent].into_iter().flatten().collect()
}

/// The Deployment that the MeshRollout governs.
fn governed<'a>(look: &Look<'a>) -> Option<&'a DeploymentFacts> {
    let workload = look.rollout.workload.as_ref()?;
    let mut deployments = look.namespace.deployments.iter();
    deployments
        .find(|d| d.meta.name == workload.name && !d.meta.deleting)
        .map(AsRef::as_ref)
}

/// The monotonic time of a wall-clock time; never the past, so that a clock that jumps cannot
/// make a busy loop.
fn instant(at: Millis, now: Millis) -> Instant {
    let wait = u64::try_from(at.saturating_sub(now)).unwrap_or_default();
    Instant::now() + Duration::from_millis(wait.max(1))
}

#[cfg(test)]
mod tests;
