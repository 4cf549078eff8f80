//! From any world on, once faults stop: does it come to the right end?

use std::collections::HashMap;

use sluice_rollout::state::Phase;

use crate::check::End;
use crate::environment::{Action, is_broken, step};
use crate::machine::{Evidence, Machine};
use crate::search::fingerprint;
use crate::shim::{self, Rules};
use crate::world::{Budget, World};

/// More steps than any fair run takes.
const MOST: usize = 300;

/// The fair runs so far: where each world ends. Millions of worlds have few ends.
#[derive(Default)]
pub struct Fair {
    ends: HashMap<(u64, bool), usize>,
    worlds: Vec<World>,
    numbers: HashMap<u64, usize>,
    longest: usize,
}

impl Fair {
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Runs on from `world`: late writes first, then both leaders see everything, pods start,
    /// proxies follow, and the evidence says that the revision is good, or is not.
    ///
    /// # Errors
    /// The end is not the right one, or there is none. With the steps to it.
    pub fn check(
        &mut self,
        machine: &mut Machine,
        world: &World,
        is_good: bool,
        waits_for_people: bool,
    ) -> Result<(), String> {
        let begin = begin(machine, world)?;
        let mut at = begin.clone();
        let mut passed = Vec::new();
        let end = loop {
            let key = (fingerprint(&at), is_good);
            if let Some(end) = self.ends.get(&key) {
                break *end;
            }
            passed.push(key);
            if passed.len() > MOST {
                return Err(format!("no end after {MOST} fair steps: {at:?}"));
            }
            let Some((_, next)) = next(machine, &at, is_good)? else {
                break self.number(at);
            };
            at = next;
        };
        self.longest = self.longest.max(passed.len());
        self.ends.extend(passed.into_iter().map(|key| (key, end)));
        let end = End {
            machine,
            world: &self.worlds[end],
            begin: &begin,
            is_good,
            waits_for_people,
        };
        end.check()
    }

    fn number(&mut self, end: World) -> usize {
        let next = self.worlds.len();
        let number = *self.numbers.entry(fingerprint(&end)).or_insert(next);
        if number == next {
            self.worlds.push(end);
        }
        number
    }

    /// The steps of a fair run, for people.
    pub fn tell(machine: &mut Machine, world: &World, is_good: bool) -> Vec<(String, World)> {
        let mut told = Vec::new();
        let Ok(mut at) = begin(machine, world) else {
            return told;
        };
        told.push((
            "late writes, then everything is seen".to_owned(),
            at.clone(),
        ));
        while let Ok(Some((what, then))) = next(machine, &at, is_good) {
            told.push((what, then.clone()));
            at = then;
            if told.len() > 60 {
                break;
            }
        }
        told
    }
}

fn begin(machine: &mut Machine, world: &World) -> Result<World, String> {
    let mut at = finish(machine, world.clone())?;
    for leader in &mut at.leaders {
        leader.frozen = None;
    }
    at.budget = Budget::default();
    at.normalise();
    Ok(at)
}

/// All writes that are left.
fn finish(machine: &Machine, mut world: World) -> Result<World, String> {
    while let Some(leader) = (0..2).find(|l| !world.leaders[*l].plan.effects.is_empty()) {
        world = shim::act(machine, Rules::REAL, &world, leader)?;
    }
    world.normalise();
    Ok(world)
}

fn next(
    machine: &mut Machine,
    world: &World,
    is_good: bool,
) -> Result<Option<(String, World)>, String> {
    let mut actions = vec![Action::Collect, Action::Apply, Action::Roll];
    for revision in 0..3 {
        actions.extend([Action::Ready(revision), Action::Adopt(revision)]);
    }
    if world.cluster.native_down {
        actions.push(Action::Native);
    }
    for action in actions {
        let set = match action {
            Action::Ready(revision) | Action::Adopt(revision) => {
                world.cluster.sets[usize::from(revision)]
            }
            _ => None,
        };
        let is_adopted = set.is_some_and(|set| set.owner == crate::world::Owner::Nobody);
        if matches!(action, Action::Adopt(_)) && !is_adopted {
            continue;
        }
        if let Some(next) = step(machine, Rules::REAL, world, action)? {
            return Ok(Some((action.to_string(), next)));
        }
    }
    let says = evidence(machine, world, is_good);
    let (decided, wakes) = shim::decide(machine, world, 0, says)?;
    if let Some(decided) = decided {
        return Ok(Some((
            format!("a turn; evidence: {says:?}"),
            finish(machine, decided)?,
        )));
    }
    let broken = (0..3).find(|r| world.cluster.sets[usize::from(*r)].is_some_and(|s| s.broken));
    if let Some(revision) = broken {
        let mended = step(machine, Rules::REAL, world, Action::Mend(revision))?;
        return Ok(mended.map(|mended| ("a person deletes the pod".to_owned(), mended)));
    }
    if !wakes {
        return Ok(None);
    }
    let later = step(machine, Rules::REAL, world, Action::Tick)?;
    later
        .map(|later| Some(("Tick".to_owned(), later)))
        .ok_or_else(|| "it wakes again and again for nothing".to_owned())
}

fn evidence(machine: &Machine, world: &World, is_good: bool) -> Evidence {
    let state = world.cluster.rollout.and_then(|rollout| rollout.state);
    let Some(state) = state.map(|state| machine.state(state.core)) else {
        return Evidence::None;
    };
    if state.candidate.is_none() || state.phase == Phase::Preparing {
        return Evidence::None;
    }
    let is_named = state
        .candidate
        .as_ref()
        .is_some_and(|c| c.pod_fault.is_some());
    if is_good && is_broken(&world.cluster) && !is_named {
        return Evidence::PodFault;
    }
    if is_good {
        return Evidence::Enough;
    }
    let gets_requests = world.applied.is_some_and(|split| split.weight > 0);
    if gets_requests {
        Evidence::Condemned
    } else {
        Evidence::None
    }
}
