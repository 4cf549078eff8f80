//! Breadth-first search of every world that can be reached; a violation is told with the
//! shortest way to it.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt::Write;
use std::hash::{Hash, Hasher};

use sluice_rollout::policy::Policy;

use crate::environment::{Action, actions, step};
use crate::fair::Fair;
use crate::machine::Machine;
use crate::shim::Rules;
use crate::world::{Budget, Cluster, Deployment, Owner, REPLICAS, REVISIONS, Rollout, World};

/// What is searched.
pub struct Scope {
    pub name: &'static str,
    pub policy: Policy,
    pub rules: Rules,
    pub budget: Budget,
    /// Whether every world's fair run is followed to its end.
    pub ends: bool,
}

/// A number for a world; with 64 bits two worlds of a million share one with a chance of 1 in
/// 10^7.
pub fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Searches everything.
///
/// # Errors
/// The shortest way to a violation, as text.
pub fn search(scope: Scope) -> Result<(), String> {
    let mut machine = Machine::new(scope.policy.clone());
    let mut fair = Fair::default();
    let first = first(&mut machine, scope.budget);
    let mut ways = HashMap::from([(fingerprint(&first), None)]);
    let mut layer = vec![first.clone()];
    let (mut steps, mut depth) = (0, 0);
    while !layer.is_empty() {
        let mut further = Vec::new();
        for world in &layer {
            let from = fingerprint(world);
            for good in [true, false].into_iter().filter(|_| scope.ends) {
                let waits = scope.budget.commands > 0;
                if let Err(broken) = fair.check(&mut machine, world, good, waits) {
                    let mut told = tell(&mut machine, scope.rules, &first, &ways, from, &broken);
                    for (what, at) in Fair::tell(&mut machine, world, good) {
                        let _ = writeln!(told, "  then {what}\n      {}", line(&machine, &at));
                    }
                    return Err(told);
                }
            }
            for action in actions(&machine, world) {
                let next = match step(&mut machine, scope.rules, world, action) {
                    Ok(Some(next)) => next,
                    Ok(None) => continue,
                    Err(broken) => {
                        let broken = format!("{action}: {broken}");
                        return Err(tell(
                            &mut machine,
                            scope.rules,
                            &first,
                            &ways,
                            from,
                            &broken,
                        ));
                    }
                };
                steps += 1;
                if let Entry::Vacant(new) = ways.entry(fingerprint(&next)) {
                    new.insert(Some((from, action)));
                    further.push(next);
                }
            }
        }
        depth += 1;
        layer = further;
    }
    say(&format!(
        "model {}: {} worlds, {steps} steps, depth {depth}, {} questions to decide, longest fair run {}",
        scope.name,
        ways.len(),
        machine.asked(),
        fair.longest()
    ));
    Ok(())
}

/// The first revision serves; the MeshRollout was just made.
fn first(machine: &mut Machine, budget: Budget) -> World {
    let mut world = World {
        cluster: Cluster {
            rollout: Some(Rollout {
                life: 0,
                state: None,
                retry: false,
                command: None,
            }),
            deployment: Deployment {
                complete: true,
                ..Deployment::default()
            },
            native: [REPLICAS, 0, 0],
            ..Cluster::default()
        },
        ..World::default()
    };
    // It is met before anything else happens.
    for _ in 0..8 {
        for action in actions(machine, &world) {
            let is_quiet = matches!(action, Action::Decide(..) | Action::Act(_) | Action::Apply);
            if let Some(next) = step(machine, Rules::REAL, &world, action).ok().flatten()
                && is_quiet
            {
                world = next;
                break;
            }
        }
    }
    world.budget = budget;
    world
}

type Ways = HashMap<u64, Option<(u64, Action)>>;

fn tell(
    machine: &mut Machine,
    rules: Rules,
    first: &World,
    ways: &Ways,
    last: u64,
    broken: &str,
) -> String {
    let mut actions = Vec::new();
    let mut at = last;
    while let Some(Some((before, action))) = ways.get(&at) {
        actions.push(*action);
        at = *before;
    }
    let mut world = first.clone();
    let mut told = format!("{broken}\nafter {} steps:\n", actions.len());
    let _ = writeln!(told, "      {}", line(machine, &world));
    for action in actions.into_iter().rev() {
        if let Ok(Some(next)) = step(machine, rules, &world, action) {
            world = next;
        }
        let _ = writeln!(told, "  {action}\n      {}", line(machine, &world));
    }
    told
}

/// A world in a line.
fn line(machine: &Machine, world: &World) -> String {
    let cluster = &world.cluster;
    let name = |revision: u8| &REVISIONS[usize::from(revision)][..1];
    let mut text = String::new();
    match cluster.rollout {
        None => text.push_str("no MeshRollout"),
        Some(Rollout { state: None, .. }) => text.push_str("new MeshRollout"),
        Some(Rollout {
            state: Some(state), ..
        }) => {
            let core = machine.state(state.core);
            let candidate = core.candidate.as_ref().map(|c| &c.arm.revision[..1]);
            let rejected: Vec<_> = core.rejected.iter().map(|r| &r.revision[..1]).collect();
            let stable = core.stable.as_ref().map(|s| &s.revision[..1]);
            let _ = write!(
                text,
                "{:?} fence {} weight {} stable {stable:?} candidate {candidate:?} rejected {rejected:?}",
                core.phase, state.fence, core.weight
            );
        }
    }
    let _ = write!(
        text,
        " | split {:?}",
        cluster.split.map(|s| (s.fence, s.weight))
    );
    let _ = write!(
        text,
        " applied {:?}",
        world.applied.map(|s| (s.fence, s.weight))
    );
    let deployment = cluster.deployment;
    let held = if deployment.paused { "held" } else { "running" };
    let _ = write!(
        text,
        " | Deployment {} {held} pods {:?}",
        name(deployment.template),
        cluster.native
    );
    for (revision, set) in (0..).zip(cluster.sets) {
        let Some(set) = set else { continue };
        let owner = match set.owner {
            Owner::Rollout(life) => format!("rollout {life}"),
            other => format!("{other:?}"),
        };
        let gates = if set.open { "open" } else { "shut" };
        let _ = write!(
            text,
            " | set {} of {owner} {}/{} {gates}",
            name(revision),
            set.ready,
            set.replicas
        );
    }
    for leader in &world.leaders {
        if let Some(frozen) = &leader.frozen {
            let _ = write!(text, " | frozen {:?}", frozen.kinds);
        }
        if !leader.plan.effects.is_empty() {
            let _ = write!(text, " | will {:?}", leader.plan.effects);
        }
    }
    text
}

/// Prints past the harness, which shows only what failing tests print.
pub fn say(line: &str) {
    use std::io::Write as _;

    // Where nobody reads, nobody misses it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
