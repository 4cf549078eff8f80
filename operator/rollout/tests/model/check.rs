//! What must hold at every write and in every world, beside the rules of `invariants`.

use sluice_rollout::invariants;
use sluice_rollout::state::{Phase, PromotionStage, State};

use crate::machine::{Machine, candidate, is_against, is_past_return, stable};
use crate::world::{Cluster, Command, Effect, Revision, Split, StateRef, World};

/// A write was accepted: `after` is the world with it.
///
/// # Errors
/// The rule that it broke.
pub fn write(
    machine: &Machine,
    before: &World,
    after: &mut World,
    effect: Effect,
) -> Result<(), String> {
    match effect {
        Effect::Status(state) => status(machine, before, after, state),
        Effect::CreateSplit(split) | Effect::ReplaceSplit(split) => traffic(before, split),
        Effect::Release(revision) => {
            // A late one may come when git has moved on; what it gives away has passed every step.
            let against = stored(machine, before).is_some_and(|state| is_against(state, revision));
            if against {
                return Err(format!("condemned revision {revision} is given away"));
            }
            after.ghost.given = Some(revision);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn status(
    machine: &Machine,
    before: &World,
    after: &mut World,
    new: StateRef,
) -> Result<(), String> {
    let at = |state: StateRef| State {
        fence: state.fence.into(),
        ..machine.state(state.core).clone()
    };
    let next = at(new);
    let old = before.cluster.rollout.and_then(|rollout| rollout.state);
    let last = old.map(at).unwrap_or_default();
    if old.is_some() {
        invariants::check(machine.policy(), &last, &next)?;
    }
    if let Some((revision, _)) = after.ghost.condemned
        && candidate(&next) == Some(revision)
        && next.weight > last.weight
    {
        return Err(format!("condemned revision {revision} gains weight"));
    }
    // Where git has moved on before the verdict was written, another revision was in between.
    if let Some(revision) = candidate(&next)
        && revision == before.cluster.deployment.template
        && is_against(&next, revision)
        && !is_against(&last, revision)
    {
        after.ghost.condemned = Some((revision, new.fence));
    }
    Ok(())
}

/// Proxies keep what has the highest fence, and no verdict is overruled by an older decision.
fn traffic(before: &World, new: Split) -> Result<(), String> {
    let older = [before.applied, before.cluster.split];
    for old in older.into_iter().flatten() {
        if new.fence < old.fence || new.fence == old.fence && new != old {
            return Err(format!("{new:?} is written after {old:?}"));
        }
    }
    let Some((revision, verdict)) = before.ghost.condemned else {
        return Ok(());
    };
    // A write that was under way before the verdict's own may still land before that one.
    if new.revision == Some(revision) && new.weight > 0 && new.fence >= verdict {
        return Err(format!("condemned revision {revision} gets {}", new.weight));
    }
    Ok(())
}

/// Pods of ours go only when proxies were told to leave them.
///
/// # Errors
/// A ReplicaSet would be deleted that gets requests.
pub fn taken(
    state: Option<&State>,
    view: &Cluster,
    world: &World,
    effects: &[Effect],
) -> Result<(), String> {
    let Some(split) = world.cluster.split.filter(|split| split.weight > 0) else {
        return Ok(());
    };
    let waits = |phase: &Phase| matches!(phase, Phase::RollingBack { .. } | Phase::Rejected { .. });
    let waited = state.is_some_and(|state| waits(&state.phase));
    let is_last = view == &world.cluster;
    let goes = split
        .revision
        .is_some_and(|revision| effects.contains(&Effect::DeleteSet(revision)));
    let is_ours = view
        .rollout
        .is_some_and(|rollout| rollout.life == split.life);
    if goes && is_ours && is_last && !waited {
        return Err("pods are taken while the split sends them requests".to_owned());
    }
    Ok(())
}

/// Ready pods of other revisions are replaced by those of `template`.
///
/// # Errors
/// Nobody promoted it.
pub fn replaced(machine: &Machine, before: &World, template: Revision) -> Result<(), String> {
    let state = stored(machine, before);
    let promoted = state.is_some_and(|state| is_past_return(state, template));
    let given = before.ghost.given == Some(template);
    (promoted || given || before.ghost.unheld)
        .then_some(())
        .ok_or_else(|| format!("revision {template} replaces stable pods unpromoted"))
}

/// What holds in every world.
///
/// # Errors
/// The rule that is broken.
pub fn world(machine: &Machine, world: &World) -> Result<(), String> {
    let Some(rollout) = world.cluster.rollout else {
        return Ok(());
    };
    let (Some(state), Some(split)) = (rollout.state, world.cluster.split) else {
        return Ok(());
    };
    if split.life != rollout.life {
        return Ok(());
    }
    if split.fence > state.fence {
        return Err("the split is ahead of the state".to_owned());
    }
    let core = machine.state(state.core);
    let says = (core.weight, candidate(core));
    if split.fence == state.fence && says != (split.weight.into(), split.revision) {
        return Err(format!("one fence, two decisions: {split:?} and {says:?}"));
    }
    Ok(())
}

/// The end of a fair run, and what was known at its beginning.
pub struct End<'a> {
    pub machine: &'a Machine,
    pub world: &'a World,
    pub begin: &'a World,
    pub is_good: bool,
    /// Whether somebody's word may be waited for.
    pub waits_for_people: bool,
}

impl End<'_> {
    /// The end is a right one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let cluster = &self.world.cluster;
        let Some(rollout) = cluster.rollout else {
            return self.nothing_is_left();
        };
        let Some(state) = rollout.state.map(|state| self.machine.state(state.core)) else {
            return Err("the MeshRollout was never looked at".to_owned());
        };
        let template = cluster.deployment.template;
        match &state.phase {
            Phase::Idle => self.is_served(state, template),
            Phase::Rejected { .. } => self.is_rejected(state, template),
            Phase::Paused { .. } if self.waits_for_people => Ok(()),
            phase => Err(format!("stuck in {phase:?}")),
        }
    }

    fn nothing_is_left(&self) -> Result<(), String> {
        let cluster = &self.world.cluster;
        if cluster.split.is_some() || self.own_sets() {
            return Err("something is left of a deleted MeshRollout".to_owned());
        }
        Ok(())
    }

    fn own_sets(&self) -> bool {
        use crate::world::Owner;
        let mut sets = self.world.cluster.sets.iter().flatten();
        sets.any(|set| set.owner != Owner::Deployment)
    }

    fn off_traffic(&self, state: &State) -> Result<(), String> {
        let split = self.world.cluster.split;
        let quiet = split.is_some_and(|split| split.weight == 0 && split.revision.is_none());
        if state.candidate.is_some() || !quiet || self.world.applied != split {
            return Err("an arm is left in the split".to_owned());
        }
        if self.own_sets() {
            return Err("a ReplicaSet is left".to_owned());
        }
        Ok(())
    }

    fn is_served(&self, state: &State, template: Revision) -> Result<(), String> {
        self.off_traffic(state)?;
        let deployment = self.world.cluster.deployment;
        if stable(state) != Some(template) || deployment.paused || !deployment.complete {
            return Err("git's revision does not serve alone".to_owned());
        }
        let began = self.began();
        let was_given = self.begin.ghost.given == Some(template);
        let was_stable = was_given || began.is_none_or(|began| is_past_return(began, template));
        let word = rollout_word(self.world, Command::Promote);
        if !self.is_good && !was_stable && !word && !self.begin.ghost.unheld {
            return Err("a bad revision is promoted".to_owned());
        }
        Ok(())
    }

    fn is_rejected(&self, state: &State, template: Revision) -> Result<(), String> {
        self.off_traffic(state)?;
        if !is_against(state, template) || !self.world.cluster.deployment.paused {
            return Err("rejected, but not held".to_owned());
        }
        let serves = stable(state).map_or(0, |stable| self.pods(stable));
        if serves == 0 {
            return Err("no stable pods".to_owned());
        }
        let was_against = self
            .began()
            .is_some_and(|began| is_against(began, template));
        let word = rollout_word(self.world, Command::Abort);
        if self.is_good && !was_against && !word && self.machine.has_no_deadline() {
            return Err("a good revision is rejected".to_owned());
        }
        // The first revision's own pods may be left, where its successor was adopted and another
        // one came before they were gone.
        let is_left = template == 0 && self.world.cluster.native[0] > 0;
        if self.pods(template) > 0 && !is_left && !self.begin.ghost.unheld {
            return Err("a rejected revision has pods among the stable ones".to_owned());
        }
        Ok(())
    }

    fn pods(&self, revision: Revision) -> u8 {
        let index = usize::from(revision);
        let cluster = &self.world.cluster;
        cluster.native[index] + cluster.sets[index].map_or(0, |set| set.ready)
    }

    fn began(&self) -> Option<&State> {
        stored(self.machine, self.begin)
    }
}

/// Somebody has said so of the revision that git wants.
fn rollout_word(world: &World, word: Command) -> bool {
    let said = world.cluster.rollout.and_then(|rollout| rollout.command);
    said == Some((word, world.cluster.deployment.template))
}

fn stored<'a>(machine: &'a Machine, world: &World) -> Option<&'a State> {
    let state = world.cluster.rollout?.state?;
    Some(machine.state(state.core))
}

/// Whether promotion has gone so far that the Deployment may take the candidate.
pub fn is_promoting(machine: &Machine, world: &World) -> bool {
    use PromotionStage::{Adopt, Release};
    let past = |state: &State| {
        matches!(
            state.phase,
            Phase::Promoting {
                stage: Adopt | Release
            }
        )
    };
    stored(machine, world).is_some_and(past)
}
