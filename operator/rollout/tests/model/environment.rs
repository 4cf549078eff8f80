//! What may happen next, and what becomes of the world by it.

use std::fmt;

use sluice_rollout::state::Phase;

use crate::check;
use crate::machine::{Evidence, Machine, stable};
use crate::shim::{self, Rules};
use crate::world::{
    Budget, Cluster, Command, Frozen, Objects, Owner, REPLICAS, Revision, Rollout, World,
};

/// One step of anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A leader looks and decides.
    Decide(usize, Evidence),
    /// A leader's next write.
    Act(usize),
    /// The process dies; its successor begins with the same lists.
    Crash(usize),
    /// Watches of a leader stop.
    Freeze(usize, Objects),
    /// They go on.
    Thaw(usize),
    /// Git brings a template; the webhook answers, or is not asked.
    Commit(Revision, bool),
    /// The MeshRollout is deleted.
    Delete,
    /// It is made anew.
    Recreate,
    /// The garbage collector takes what a deleted MeshRollout owned.
    Collect,
    /// The Deployment is deleted, and git makes it anew.
    Renew,
    /// A pod of our ReplicaSet begins to fail alone.
    Break(Revision),
    /// A person deletes it.
    Mend(Revision),
    /// Pods of our ReplicaSet become ready.
    Ready(Revision),
    /// They fall away.
    Fall(Revision),
    /// The Deployment's own pods become unready, or ready again.
    Native,
    /// Proxies route by the split.
    Apply,
    /// The Deployment takes a ReplicaSet without an owner.
    Adopt(Revision),
    /// The Deployment's controller does its next step.
    Roll,
    /// Time passes.
    Tick,
    /// A new string in `spec.retry`.
    Retry,
    /// A person's word.
    Ask(Command),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Freeze(leader, Objects::ROLLOUT) => write!(f, "Freeze({leader}, MeshRollouts)"),
            Self::Freeze(leader, Objects::SPLIT) => write!(f, "Freeze({leader}, TrafficSplits)"),
            Self::Freeze(leader, Objects::DEPLOYMENT) => write!(f, "Freeze({leader}, Deployments)"),
            Self::Freeze(leader, _) => write!(f, "Freeze({leader}, ReplicaSets and pods)"),
            other => write!(f, "{other:?}"),
        }
    }
}

const KINDS: [Objects; 4] = [
    Objects::ROLLOUT,
    Objects::SPLIT,
    Objects::DEPLOYMENT,
    Objects::SETS,
];
const EVIDENCE: [Evidence; 5] = [
    Evidence::None,
    Evidence::Enough,
    Evidence::Condemned,
    Evidence::Breach,
    Evidence::Outage,
];
const WITH_A_POD: [Evidence; 4] = [
    Evidence::None,
    Evidence::Enough,
    Evidence::Condemned,
    Evidence::PodFault,
];
const COMMANDS: [Command; 6] = [
    Command::Pause,
    Command::Resume,
    Command::Abort,
    Command::Promote,
    Command::Skip,
    Command::Retry,
];

/// Everything that may happen next.
pub fn actions(machine: &Machine, world: &World) -> Vec<Action> {
    let mut actions = Vec::new();
    for leader in 0..2 {
        of_leader(machine, world, leader, &mut actions);
    }
    of_cluster(world, &mut actions);
    of_people(world, &mut actions);
    actions
}

fn of_leader(machine: &Machine, world: &World, leader: usize, actions: &mut Vec<Action>) {
    let its = &world.leaders[leader];
    let waits = its.frozen.is_some_and(|frozen| frozen.waits);
    if !its.plan.effects.is_empty() {
        actions.push(Action::Act(leader));
    } else if !waits && (!overlaps(world, leader) || world.budget.overlaps > 0) {
        let says = evidence(machine, world, &world.view(leader).0);
        actions.extend(says.iter().map(|says| Action::Decide(leader, *says)));
    }
    if !its.plan.effects.is_empty() || waits {
        actions.push(Action::Crash(leader));
    }
    if its.frozen.is_some() {
        actions.push(Action::Thaw(leader));
    } else if world.budget.freezes > 0 {
        let stops = |kinds: &Objects| kinds.meets(world.budget.stops);
        let kinds = KINDS.into_iter().filter(stops);
        actions.extend(kinds.map(|kinds| Action::Freeze(leader, kinds)));
    }
}

fn overlaps(world: &World, leader: usize) -> bool {
    !world.leaders[1 - leader].plan.effects.is_empty()
}

/// What proxies may have seen: nothing before there was any weight.
fn evidence(machine: &Machine, world: &World, view: &Cluster) -> &'static [Evidence] {
    let state = view.rollout.and_then(|rollout| rollout.state);
    let Some(state) = state.map(|state| machine.state(state.core)) else {
        return &EVIDENCE[..1];
    };
    let Some(candidate) = state
        .candidate
        .as_ref()
        .filter(|_| state.phase != Phase::Preparing)
    else {
        return &EVIDENCE[..1];
    };
    if is_broken(&world.cluster) && candidate.pod_fault.is_none() {
        return &WITH_A_POD;
    }
    if world.budget.outages {
        &EVIDENCE
    } else {
        &EVIDENCE[..3]
    }
}

pub fn is_broken(cluster: &Cluster) -> bool {
    cluster.sets.iter().flatten().any(|set| set.broken)
}

fn of_cluster(world: &World, actions: &mut Vec<Action>) {
    let cluster = &world.cluster;
    for revision in 0..3 {
        let Some(set) = cluster.sets[usize::from(revision)] else {
            continue;
        };
        if set.ready < set.replicas {
            actions.push(Action::Ready(revision));
        }
        if set.ready > 0 && set.owner != Owner::Deployment && world.budget.faults > 0 {
            actions.push(Action::Fall(revision));
        }
        if set.owner == Owner::Nobody {
            actions.push(Action::Adopt(revision));
        }
        let is_ours = set.owner != Owner::Deployment;
        if set.ready > 1 && !set.broken && is_ours && world.budget.breaks > 0 {
            actions.push(Action::Break(revision));
        }
        if set.broken {
            actions.push(Action::Mend(revision));
        }
    }
    if cluster.native_down || world.budget.faults > 0 {
        actions.push(Action::Native);
    }
    actions.extend([Action::Apply, Action::Roll, Action::Collect, Action::Tick]);
}

fn of_people(world: &World, actions: &mut Vec<Action>) {
    let budget = &world.budget;
    let template = world.cluster.deployment.template;
    for revision in (0..3).filter(|r| *r != template && budget.edits > 0) {
        actions.push(Action::Commit(revision, true));
        if budget.faults > 0 {
            actions.push(Action::Commit(revision, false));
        }
    }
    if budget.renewals > 0 {
        actions.push(Action::Renew);
    }
    let Some(rollout) = world.cluster.rollout else {
        actions.push(Action::Recreate);
        return;
    };
    if budget.lives > 0 {
        actions.push(Action::Delete);
    }
    if budget.retries > 0 && !rollout.retry {
        actions.push(Action::Retry);
    }
    if budget.commands > 0 {
        actions.extend(COMMANDS.map(Action::Ask));
    }
}

/// The world after an action; none if nothing comes of it.
///
/// # Errors
/// The rule that was broken.
pub fn step(
    machine: &mut Machine,
    rules: Rules,
    world: &World,
    action: Action,
) -> Result<Option<World>, String> {
    let mut next = world.clone();
    match action {
        Action::Decide(leader, says) => {
            let Some(decided) = shim::decide(machine, world, leader, says)?.0 else {
                return Ok(None);
            };
            next = decided;
            if overlaps(world, leader) && world.budget.overlaps != Budget::ANY {
                next.budget.overlaps -= 1;
            }
        }
        Action::Act(leader) => next = shim::act(machine, rules, world, leader)?,
        Action::Crash(leader) => {
            let leader = &mut next.leaders[leader];
            leader.plan.effects.clear();
            if let Some(frozen) = &mut leader.frozen {
                frozen.waits = false;
            }
        }
        Action::Freeze(leader, kinds) => {
            next.budget.freezes -= 1;
            next.leaders[leader].frozen = Some(frozen(&world.cluster, kinds));
        }
        Action::Thaw(leader) => next.leaders[leader].frozen = None,
        Action::Tick => next.each_core(&mut |core| *core = machine.later(*core)),
        Action::Commit(revision, is_asked) => commit(machine, &mut next, revision, is_asked),
        Action::Delete => {
            next.budget.lives -= 1;
            next.ghost.condemned = None;
            next.ghost.unheld |= check::is_promoting(machine, world);
            next.cluster.rollout = None;
            next.touch(Objects::ROLLOUT);
        }
        Action::Recreate => recreate(&mut next),
        Action::Renew => renew(&mut next),
        Action::Retry => {
            next.budget.retries -= 1;
            next.ghost.condemned = None;
            if let Some(rollout) = &mut next.cluster.rollout {
                rollout.retry = true;
            }
            next.touch(Objects::ROLLOUT);
        }
        Action::Ask(command) => ask(&mut next, command),
        Action::Roll => roll(machine, world, &mut next)?,
        _ => of_pods(&mut next, action),
    }
    settle_deployment(&mut next.cluster);
    let running = |world: &World| (world.cluster.native, world.cluster.deployment.complete);
    if running(&next) != running(world) {
        next.touch(Objects::DEPLOYMENT);
    }
    check::world(machine, &next)?;
    next.normalise();
    Ok((next != *world).then_some(next))
}

fn of_pods(next: &mut World, action: Action) {
    match action {
        Action::Ready(revision) => pods(next, revision, |set| set.ready = set.replicas),
        Action::Fall(revision) => {
            next.budget.faults -= 1;
            pods(next, revision, |set| set.ready = 0);
        }
        Action::Break(revision) => {
            next.budget.breaks -= 1;
            pods(next, revision, |set| set.broken = true);
        }
        Action::Mend(revision) => pods(next, revision, |set| {
            set.broken = false;
            set.ready = set.ready.saturating_sub(1);
        }),
        Action::Native => {
            if !next.cluster.native_down {
                next.budget.faults -= 1;
            }
            next.cluster.native_down ^= true;
        }
        Action::Apply => next.applied = next.cluster.split,
        Action::Adopt(revision) => {
            pods(next, revision, |set| set.owner = Owner::Deployment);
            next.touch(Objects::set(revision));
        }
        Action::Collect => collect(next),
        _ => {}
    }
}

fn pods(next: &mut World, revision: Revision, change: impl Fn(&mut crate::world::Set)) {
    next.cluster.sets[usize::from(revision)]
        .as_mut()
        .map(change);
    next.touch(Objects::pods(revision));
}

fn frozen(cluster: &Cluster, kinds: Objects) -> Frozen {
    let mut view = Cluster::default();
    match kinds {
        Objects::ROLLOUT => view.rollout = cluster.rollout,
        Objects::SPLIT => view.split = cluster.split,
        Objects::DEPLOYMENT => view.deployment = cluster.deployment,
        _ => {
            view.sets = cluster.sets;
            view.native = cluster.native;
            view.native_uid = cluster.native_uid;
            view.native_down = cluster.native_down;
        }
    }
    Frozen {
        kinds,
        view,
        written: Objects::default(),
        waits: false,
    }
}

fn commit(machine: &Machine, next: &mut World, revision: Revision, is_asked: bool) {
    next.budget.edits -= 1;
    if !is_asked {
        next.budget.faults -= 1;
    }
    let state = next.cluster.rollout.and_then(|rollout| rollout.state);
    let serves = state.and_then(|state| stable(machine.state(state.core)));
    let deployment = &mut next.cluster.deployment;
    deployment.template = revision;
    deployment.generation += 1;
    match serves.filter(|_| is_asked) {
        Some(serves) => deployment.paused = serves != revision,
        // Not held, and not released: git says nothing of `paused`.
        None if !is_asked => deployment.paused = false,
        None => {}
    }
    let runs = next.cluster.native.iter().filter(|pods| **pods > 0).count()
        + next
            .cluster
            .sets
            .iter()
            .flatten()
            .filter(|s| s.owner == Owner::Deployment)
            .count();
    // The webhook goes by the status: at the end of a promotion it still lets the old one pass.
    let passes = serves == Some(revision) && check::is_promoting(machine, next);
    // What nobody has met yet is a first deployment.
    let is_met = state.is_some_and(|state| state.uid == next.cluster.deployment.uid);
    let is_held = serves.is_some() && is_asked && !passes && is_met;
    next.ghost.unheld = !is_held || next.ghost.unheld && runs > 1;
    if next
        .ghost
        .condemned
        .is_some_and(|(against, _)| against != revision)
    {
        next.ghost.condemned = None;
    }
    next.touch(Objects::DEPLOYMENT);
}

/// A new Deployment of the same name and template. Pods go with the old one, but for ours.
fn renew(next: &mut World) {
    next.budget.renewals -= 1;
    next.ghost.condemned = None;
    next.ghost.unheld = true;
    let cluster = &mut next.cluster;
    cluster.deployment = crate::world::Deployment {
        template: cluster.deployment.template,
        uid: cluster.deployment.uid + 1,
        ..Default::default()
    };
    cluster.native = [0; 3];
    cluster.native_uid = cluster.deployment.uid;
    for set in &mut cluster.sets {
        *set = set.filter(|set| set.owner != Owner::Deployment);
    }
    next.touch(Objects::DEPLOYMENT.plus(Objects::SETS));
}

fn recreate(next: &mut World) {
    // There is one deletion at most, so two lives.
    next.cluster.rollout = Some(Rollout {
        life: 1,
        state: None,
        retry: false,
        command: None,
    });
    next.touch(Objects::ROLLOUT);
}

fn ask(next: &mut World, command: Command) {
    next.budget.commands -= 1;
    if command == Command::Retry {
        next.ghost.condemned = None;
    }
    let template = next.cluster.deployment.template;
    if let Some(rollout) = &mut next.cluster.rollout {
        rollout.command = Some((command, template));
    }
    next.touch(Objects::ROLLOUT);
}

fn collect(next: &mut World) {
    let life = next.cluster.rollout.map(|rollout| rollout.life);
    if next
        .cluster
        .split
        .is_some_and(|split| Some(split.life) != life)
    {
        next.cluster.split = None;
        next.touch(Objects::SPLIT);
        return;
    }
    for revision in 0..3 {
        let set = next.cluster.sets[usize::from(revision)];
        let Some(Owner::Rollout(its)) = set.map(|set| set.owner) else {
            continue;
        };
        if Some(its) != life {
            next.cluster.sets[usize::from(revision)] = None;
            next.touch(Objects::set(revision).plus(Objects::pods(revision)));
        }
    }
}

/// The Deployment's controller: a rolling update pod by pod; while it is paused, only an adopted
/// ReplicaSet of the template that is as large as it shall be takes the others' place.
fn roll(machine: &Machine, world: &World, next: &mut World) -> Result<(), String> {
    let template = usize::from(world.cluster.deployment.template);
    let adopted = world.cluster.sets[template].filter(|set| set.owner == Owner::Deployment);
    let full = adopted.is_some_and(|set| set.replicas == REPLICAS);
    if world.cluster.deployment.paused {
        return if full {
            retire_others(machine, world, next)
        } else {
            Ok(())
        };
    }
    if full || adopted.is_none() && world.cluster.native[template] == REPLICAS {
        return retire_others(machine, world, next);
    }
    match &mut next.cluster.sets[template] {
        Some(set) if set.owner == Owner::Deployment => set.replicas = REPLICAS,
        _ => next.cluster.native[template] += 1,
    }
    Ok(())
}

fn retire_others(machine: &Machine, world: &World, next: &mut World) -> Result<(), String> {
    let template = world.cluster.deployment.template;
    let mut gone = false;
    for revision in (0..3).filter(|revision| *revision != template) {
        let index = usize::from(revision);
        let adopted = next.cluster.sets[index].is_some_and(|set| set.owner == Owner::Deployment);
        gone |= adopted || next.cluster.native[index] > 0;
        next.cluster.native[index] = 0;
        if adopted {
            next.cluster.sets[index] = None;
            next.touch(Objects::set(revision).plus(Objects::pods(revision)));
        }
    }
    if gone {
        check::replaced(machine, world, template)?;
    }
    Ok(())
}

/// The Deployment's status.
fn settle_deployment(cluster: &mut Cluster) {
    let mut pods = cluster.native;
    for (revision, set) in cluster.sets.iter().enumerate() {
        if let Some(set) = set.filter(|set| set.owner == Owner::Deployment) {
            pods[revision] += set.ready.min(set.replicas);
        }
    }
    let template = usize::from(cluster.deployment.template);
    let all: u8 = pods.iter().sum();
    cluster.deployment.complete =
        pods[template] >= REPLICAS && all == pods[template] && !cluster.native_down;
}
