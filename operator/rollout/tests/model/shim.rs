//! The shim: what `operator/src/controller` does around `decide` and `project`, write by write.

use std::cmp::Ordering;

use sluice_rollout::desired::Hold;

use crate::check;
use crate::machine::{
    Evidence, Look, Machine, SeenCandidate, SeenLife, SeenOwnerKey, Turn, WantedSet,
};
use crate::world::{
    Cluster, Deployment, Effect, Objects, Owner, Plan, Revision, Set, Split, StateRef, World,
};

/// What keeps a late write from doing harm. All of it in the real shim; a test that takes one
/// away must fail.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The status is written only over the version that was read.
    pub status_version: bool,
    /// So is everything else.
    pub object_versions: bool,
    /// The apiserver refuses a TrafficSplit with a smaller fence.
    pub split_fence: bool,
}

impl Rules {
    pub const REAL: Self = Self {
        status_version: true,
        object_versions: true,
        split_fence: true,
    };
}

/// A leader looks and decides: the world with its plan, or none if nothing is to be done. Also
/// whether it wants to be woken.
pub fn decide(
    machine: &mut Machine,
    world: &World,
    leader: usize,
    evidence: Evidence,
) -> Result<(Option<World>, bool), String> {
    let (view, written) = world.view(leader);
    let Some(rollout) = view.rollout else {
        return Ok((None, false));
    };
    let mut next = world.clone();
    // `read_state`: a new state's fence is the clock's seconds, above all that were.
    let known = rollout.state.unwrap_or(StateRef {
        core: Machine::NEW,
        fence: next.top_fence(),
        seen: view.deployment.generation,
        uid: view.deployment.uid,
    });
    let look = look(&view, world, known, evidence);
    let turn = machine.turn(known.core, look)?;
    let mut fence = known.fence + turn.fences;
    let ours = view.split.filter(|split| split.life == rollout.life);
    // `keep_fence`
    if let Some(split) = ours.filter(|split| split.fence > fence) {
        fence = split.fence + 1;
    }
    let state = StateRef {
        core: turn.core,
        fence,
        ..if turn.looked {
            StateRef {
                seen: view.deployment.generation,
                uid: view.deployment.uid,
                ..known
            }
        } else {
            known
        }
    };
    let mut effects = Vec::new();
    if rollout.state != Some(state) {
        effects.push(Effect::Status(state));
    }
    plan(&view, rollout.life, fence, &turn, &mut effects);
    match effects.first() {
        None => return Ok((None, turn.wakes)),
        Some(Effect::Status(_)) => {}
        Some(_) => effects.insert(0, Effect::Confirm),
    }
    let state = rollout.state.map(|state| machine.state(state.core));
    check::taken(state, &view, world, &effects)?;
    next.leaders[leader].plan = Plan { effects, written };
    Ok((Some(next), turn.wakes))
}

fn look(view: &Cluster, world: &World, known: StateRef, evidence: Evidence) -> Look {
    let template = view.deployment.template;
    let life = view.rollout.map_or(0, |rollout| rollout.life);
    // Those of a Deployment that has ended have another owner.
    let has_its_own = view.native_uid == view.deployment.uid;
    let mut running = view.native;
    for (revision, set) in view.sets.iter().enumerate() {
        if let Some(set) = set.filter(|set| set.owner == Owner::Deployment) {
            running[revision] += set.replicas;
        }
    }
    if !has_its_own {
        running = [0; 3];
    }
    let candidate = view.sets[usize::from(template)].and_then(|set| {
        let owner =
            owner(&set, life).filter(|owner| has_its_own || *owner != SeenOwnerKey::Deployment)?;
        Some(SeenCandidate {
            owner,
            replicas: set.replicas,
            ready: set.ready,
            open: set.open,
            broken: set.broken,
        })
    });
    let ours = view.split.filter(|split| split.life == life);
    let said = ours.is_some_and(|split| split.fence == known.fence);
    let applied = said && world.applied.map(|split| split.fence) == Some(known.fence);
    Look {
        template,
        paused: view.deployment.paused,
        complete: view.deployment.complete,
        life: life_of(view.deployment, known),
        running,
        running_ready: !view.native_down,
        candidate,
        said,
        applied,
        evidence,
        retry: view.rollout.is_some_and(|rollout| rollout.retry),
        command: view.rollout.and_then(|rollout| rollout.command),
    }
}

fn life_of(shown: Deployment, known: StateRef) -> SeenLife {
    match shown.uid.cmp(&known.uid) {
        Ordering::Less => SeenLife::Ended,
        Ordering::Greater => SeenLife::New,
        Ordering::Equal if shown.generation < known.seen => SeenLife::Past,
        Ordering::Equal => SeenLife::Same,
    }
}

fn owner(set: &Set, life: u8) -> Option<SeenOwnerKey> {
    match set.owner {
        Owner::Deployment => Some(SeenOwnerKey::Deployment),
        Owner::Nobody => Some(SeenOwnerKey::Nobody),
        Owner::Rollout(its) => (its == life).then_some(SeenOwnerKey::Rollout),
    }
}

/// The writes after the status, in order: the split, the hold, the ReplicaSets.
fn plan(view: &Cluster, life: u8, fence: u8, turn: &Turn, effects: &mut Vec<Effect>) {
    let split = turn.split.map(|(weight, revision, leased)| Split {
        life,
        fence,
        weight,
        revision,
        leased,
    });
    match (view.split, split) {
        (Some(stranger), _) if stranger.life != life => effects.push(Effect::DeleteSplit),
        (None, None) => {}
        (Some(_), None) => effects.push(Effect::DeleteSplit),
        (None, Some(split)) => effects.push(Effect::CreateSplit(split)),
        (Some(there), Some(split)) if there == split => {}
        (Some(there), Some(split)) if there.fence > split.fence => return,
        (Some(_), Some(split)) => effects.push(Effect::ReplaceSplit(split)),
    }
    let paused = view.deployment.paused;
    match turn.hold {
        Hold::Hold if !paused => effects.push(Effect::Pause(true)),
        Hold::Release if paused => effects.push(Effect::Pause(false)),
        _ => {}
    }
    sets(view, life, turn, effects);
}

fn sets(view: &Cluster, life: u8, turn: &Turn, effects: &mut Vec<Effect>) {
    let split = view
        .split
        .filter(|split| split.life == life && split.weight > 0);
    let sends_to = split.and_then(|split| split.revision);
    for revision in 0..3 {
        let Some(set) = view.sets[usize::from(revision)] else {
            continue;
        };
        let wanted = turn.candidate.is_some_and(|c| c.revision == revision);
        let ours = owner(&set, life).is_some_and(|owner| owner != SeenOwnerKey::Deployment);
        let leaving = [turn.about, sends_to].contains(&Some(revision));
        if ours && !wanted && !leaving {
            effects.push(Effect::DeleteSet(revision));
        }
    }
    let Some(wanted) = turn.candidate else {
        return;
    };
    if wanted.revision != view.deployment.template {
        return;
    }
    match view.sets[usize::from(wanted.revision)] {
        None => create(wanted, life, effects),
        Some(set) if set.owner == Owner::Rollout(life) => keep(set, wanted, effects),
        // Another's: it is waited for. The Deployment's: nothing of it is ours.
        Some(_) => {}
    }
}

fn create(wanted: WantedSet, life: u8, effects: &mut Vec<Effect>) {
    effects.push(Effect::CheckTemplate(wanted.revision));
    let set = Set {
        owner: Owner::Rollout(life),
        replicas: wanted.replicas,
        ready: 0,
        open: wanted.open,
        broken: false,
    };
    effects.push(Effect::CreateSet(wanted.revision, set));
}

fn keep(set: Set, wanted: WantedSet, effects: &mut Vec<Effect>) {
    let revision = wanted.revision;
    if set.open != wanted.open {
        effects.push(Effect::Gates(revision, wanted.open));
    }
    if set.replicas != wanted.replicas {
        effects.push(Effect::Scale(revision, wanted.replicas));
        return;
    }
    let available = if set.open { set.ready } else { 0 };
    if wanted.adopt && available >= crate::world::REPLICAS {
        effects.push(Effect::Release(revision));
    }
}

/// A leader's next write reaches the apiserver.
///
/// # Errors
/// What it broke.
pub fn act(machine: &Machine, rules: Rules, world: &World, leader: usize) -> Result<World, String> {
    let mut next = world.clone();
    let plan = &mut next.leaders[leader].plan;
    let effect = plan.effects.remove(0);
    let written = plan.written;
    if !accepted(rules, &world.cluster, effect, written) {
        // A conflict: the rest is dropped, and the leader looks again.
        plan.effects.clear();
        return Ok(next);
    }
    if effect == Effect::Confirm {
        return Ok(next);
    }
    let mut objects = effect.object();
    write(&mut next.cluster, effect, &mut objects);
    next.touch(objects);
    if let Some(frozen) = &mut next.leaders[leader].frozen {
        frozen.waits |= frozen.kinds.meets(objects);
    }
    check::write(machine, world, &mut next, effect)?;
    Ok(next)
}

fn accepted(rules: Rules, cluster: &Cluster, effect: Effect, written: Objects) -> bool {
    let unwritten = !written.meets(effect.object());
    let same = unwritten || !rules.object_versions;
    let set = |revision: Revision| cluster.sets[usize::from(revision)];
    match effect {
        Effect::Status(_) | Effect::Confirm => {
            cluster.rollout.is_some() && (unwritten || !rules.status_version)
        }
        Effect::CreateSplit(_) => cluster.split.is_none(),
        Effect::ReplaceSplit(new) => {
            let newer = |old: Split| !rules.split_fence || new.fence > old.fence || new == old;
            cluster.split.is_some_and(newer) && same
        }
        Effect::DeleteSplit => cluster.split.is_some() && same,
        Effect::Pause(_) => same,
        Effect::Gates(revision, _)
        | Effect::DeleteSet(revision)
        | Effect::Scale(revision, _)
        | Effect::Release(revision) => set(revision).is_some() && same,
        Effect::CheckTemplate(revision) => cluster.deployment.template == revision,
        Effect::CreateSet(revision, _) => set(revision).is_none(),
    }
}

fn write(cluster: &mut Cluster, effect: Effect, objects: &mut Objects) {
    if let Effect::DeleteSet(revision) | Effect::Scale(revision, _) = effect {
        *objects = objects.plus(Objects::pods(revision));
    }
    let sets = &mut cluster.sets;
    let mut change = |revision: Revision, change: &dyn Fn(&mut Set)| {
        sets[usize::from(revision)].as_mut().map(change);
    };
    match effect {
        Effect::Status(state) => {
            if let Some(rollout) = &mut cluster.rollout {
                rollout.state = Some(state);
            }
        }
        Effect::CreateSplit(split) | Effect::ReplaceSplit(split) => cluster.split = Some(split),
        Effect::DeleteSplit => cluster.split = None,
        Effect::Pause(paused) => {
            cluster.deployment.paused = paused;
            cluster.deployment.generation += 1;
        }
        Effect::Gates(revision, open) => change(revision, &|set| set.open = open),
        Effect::Scale(revision, replicas) => change(revision, &|set| {
            set.replicas = replicas;
            set.ready = set.ready.min(replicas);
            set.broken &= replicas > 0;
        }),
        Effect::Release(revision) => change(revision, &|set| set.owner = Owner::Nobody),
        Effect::DeleteSet(revision) => sets[usize::from(revision)] = None,
        Effect::CheckTemplate(_) | Effect::Confirm => {}
        Effect::CreateSet(revision, set) => sets[usize::from(revision)] = Some(set),
    }
}
