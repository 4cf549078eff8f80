//! The real `decide` and `project`, asked about small things: states are numbered, and each
//! question is asked once. A numbered state ("core") has fence 0 and times relative to [`NOW`].

use std::collections::HashMap;

use sluice_rollout::decide::decide;
use sluice_rollout::desired::Hold;
use sluice_rollout::invariants;
use sluice_rollout::observation::{
    CandidatePod, CandidateView, Contest, DeploymentView, EvidenceView, Observation,
    Owner as SeenOwner, RunningRevision, SplitView, Witness, Workload,
};
use sluice_rollout::policy::{Policy, PolicyStep, pods_for};
use sluice_rollout::project::project;
use sluice_rollout::revision::candidate_pod_hash;
use sluice_rollout::state::{DeploymentSeen, Phase, PromotionStage, State};

use crate::world::{Command, REPLICAS, REVISIONS, Revision};

/// The present, in every numbered state.
const NOW: i64 = 1_000_000_000;
/// The only step of time that counts; all patiences of the policies are one or a few of it.
pub const TICK: i64 = 10_000;
/// The fence of every question, so that only its growth counts.
const FENCE: i64 = 100;
/// The same for the Deployment's generation.
const GENERATION: i64 = 100;
const UID: &str = "deployment";
/// The Deployments before and after it.
const ENDED: &str = "ended";
const RENEWED: &str = "renewed";
/// The pod that fails alone.
const BROKEN: &str = "broken";

/// What the proxies' evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    None,
    Enough,
    Condemned,
    Breach,
    Outage,
    /// One pod fails alone.
    PodFault,
}

/// One observation, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look {
    pub template: Revision,
    pub paused: bool,
    pub complete: bool,
    pub life: SeenLife,
    /// Pods of the Deployment's own ReplicaSets.
    pub running: [u8; 3],
    pub running_ready: bool,
    pub candidate: Option<SeenCandidate>,
    /// The split has the state's fence.
    pub said: bool,
    /// Every proxy routes by it.
    pub applied: bool,
    pub evidence: Evidence,
    pub retry: bool,
    pub command: Option<(Command, Revision)>,
}

/// Our ReplicaSet of the Deployment's template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeenCandidate {
    pub owner: SeenOwnerKey,
    pub replicas: u8,
    pub ready: u8,
    pub open: bool,
    pub broken: bool,
}

/// How the Deployment that is shown stands to the one that the state was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeenLife {
    Same,
    /// As it was before.
    Past,
    /// One of the same name that has ended.
    Ended,
    /// One of the same name that was made since.
    New,
}

/// [`SeenOwner`], as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeenOwnerKey {
    Rollout,
    Nobody,
    Deployment,
}

/// What a turn came to, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub core: u32,
    /// By how much the fence grew.
    pub fences: u8,
    /// The state tells which Deployment it was decided on.
    pub looked: bool,
    pub split: Option<(u8, Option<Revision>, bool)>,
    pub hold: Hold,
    pub candidate: Option<WantedSet>,
    /// The revision that the new state is about.
    pub about: Option<Revision>,
    /// It asked to be woken soon, though nothing happens.
    pub wakes: bool,
}

/// The ReplicaSet that a state asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedSet {
    pub revision: Revision,
    pub replicas: u8,
    pub open: bool,
    pub adopt: bool,
}

pub struct Machine {
    policy: Policy,
    retried: Policy,
    cores: Vec<State>,
    numbers: HashMap<String, u32>,
    turns: HashMap<(u32, Look), Result<Turn, String>>,
    later: HashMap<u32, u32>,
}

impl Machine {
    pub fn new(policy: Policy) -> Self {
        let retried = Policy {
            retry: "again".to_owned(),
            ..policy.clone()
        };
        let mut machine = Self {
            policy,
            retried,
            cores: Vec::new(),
            numbers: HashMap::new(),
            turns: HashMap::new(),
            later: HashMap::new(),
        };
        machine.number(State::default(), NOW);
        machine
    }

    /// The state of a MeshRollout that was never looked at.
    pub const NEW: u32 = 0;

    pub fn state(&self, core: u32) -> &State {
        &self.cores[core as usize]
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Time alone never ends a rollout.
    pub fn has_no_deadline(&self) -> bool {
        self.policy.deadline_ms > 100 * TICK
    }

    /// How many different questions were asked.
    pub fn asked(&self) -> usize {
        self.turns.len()
    }

    /// The number of the same state a tick later.
    pub fn later(&mut self, core: u32) -> u32 {
        if let Some(later) = self.later.get(&core) {
            return *later;
        }
        let later = self.number(self.state(core).clone(), NOW + TICK);
        self.later.insert(core, later);
        later
    }

    /// One turn of the real machine, with its rules checked.
    ///
    /// # Errors
    /// The rule that it broke.
    pub fn turn(&mut self, core: u32, look: Look) -> Result<Turn, String> {
        if let Some(turn) = self.turns.get(&(core, look)) {
            return turn.clone();
        }
        let turn = self.ask(core, look);
        self.turns.insert((core, look), turn.clone());
        turn
    }

    fn ask(&mut self, core: u32, look: Look) -> Result<Turn, String> {
        let policy = if look.retry {
            &self.retried
        } else {
            &self.policy
        };
        let before = State {
            fence: FENCE,
            deployment_seen: Some(DeploymentSeen {
                uid: UID.to_owned(),
                generation: GENERATION,
                ended: vec![ENDED.to_owned()],
                ..DeploymentSeen::default()
            }),
            ..self.state(core).clone()
        };
        let seen = observation(&look);
        let decision = decide(policy, &before, &seen, NOW);
        let after = decision.state;
        invariants::check(policy, &before, &after)?;
        invariants::check_capacity(&after, &seen)?;
        earned(policy, &before, &after, &look)?;
        let again = decide(policy, &after, &seen, NOW);
        if again.state == after && !again.notes.is_empty() {
            return Err("notes without a change".to_owned());
        }
        let looked = after != before && is_of(&after, &seen);
        let desired = project(policy, &after, &seen);
        let split = desired.split.map(|split| {
            let revision = split.candidate.as_ref().map(|_| index(&split.revision));
            (small(split.weight), revision, split.leased)
        });
        let candidate = desired.candidate.map(|wanted| WantedSet {
            revision: index(&wanted.revision),
            replicas: small(wanted.replicas),
            open: wanted.gates_open,
            adopt: wanted.adopt,
        });
        let about = after.candidate.as_ref().map(|c| index(&c.arm.revision));
        let soon = |at: i64| at <= NOW + 100 * TICK;
        let fences = u8::try_from(after.fence - FENCE).map_err(|_| "the fence fell")?;
        // The next turn is a moment later, so that nothing is ever as old as "now".
        let core = self.number(after, NOW + 1);
        Ok(Turn {
            core,
            fences,
            looked,
            split,
            hold: desired.hold,
            candidate,
            about,
            wakes: decision.again_at.is_some_and(soon),
        })
    }

    fn number(&mut self, state: State, now: i64) -> u32 {
        let state = canonical(state, now, self.policy.deadline_ms);
        let text = serde_json::to_string(&state).unwrap();
        let next = u32::try_from(self.cores.len()).unwrap();
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.cores.push(state);
        }
        number
    }
}

/// Whether the state tells that it was decided on this look.
fn is_of(state: &State, seen: &Observation) -> bool {
    let (Workload::Deployment(view), Some(known)) = (&seen.workload, &state.deployment_seen) else {
        return false;
    };
    (&known.uid, known.generation) == (&view.uid, view.generation)
}

/// Rules that need the observation: weight is backed by pods, steps by evidence and time.
fn earned(policy: &Policy, before: &State, after: &State, look: &Look) -> Result<(), String> {
    let left_out = after.left_out().is_some();
    let ready = look.candidate.map_or(0, |c| {
        i32::from(c.ready) - i32::from(c.broken && c.ready > 0 && left_out)
    });
    let same =
        before.candidate.as_ref().map(|c| &c.arm) == after.candidate.as_ref().map(|c| &c.arm);
    if after.weight > before.weight && ready < pods_for(after.weight, REPLICAS.into()) {
        return Err(format!("weight {} with {ready} ready pods", after.weight));
    }
    if after.weight > before.weight && look.evidence == Evidence::Condemned {
        return Err(format!("weight {} against the verdict", after.weight));
    }
    let hurried = after.candidate.as_ref().is_some_and(|c| c.promote_now);
    let asked = look.command.is_some() && before.command_seen != after.command_seen;
    if hurried || asked || !same {
        return Ok(());
    }
    let Phase::Observing { step, since } = before.phase else {
        return Ok(());
    };
    let moved_on = match &after.phase {
        Phase::Promoting { .. } => true,
        phase => phase.step().is_some_and(|next| next > step),
    };
    let Some(PolicyStep::Weight { hold_ms, .. }) = policy.steps.get(step) else {
        return Ok(());
    };
    let earned = look.evidence == Evidence::Enough && look.applied && NOW >= since + hold_ms;
    if moved_on && !earned {
        return Err(format!("step {step} was passed unearned: {look:?}"));
    }
    Ok(())
}

/// Is the promotion of this revision past return, or over?
pub fn is_past_return(state: &State, revision: Revision) -> bool {
    use PromotionStage::{Adopt, Release};
    let about = state.candidate.as_ref().map(|c| index(&c.arm.revision));
    let promoting = matches!(
        state.phase,
        Phase::Promoting {
            stage: Adopt | Release
        }
    );
    promoting && about == Some(revision) || stable(state) == Some(revision)
}

pub fn stable(state: &State) -> Option<Revision> {
    state.stable.as_ref().map(|stable| index(&stable.revision))
}

pub fn candidate(state: &State) -> Option<Revision> {
    let candidate = state.candidate.as_ref();
    candidate.map(|candidate| index(&candidate.arm.revision))
}

/// Whether a verdict stands against the revision.
pub fn is_against(state: &State, revision: Revision) -> bool {
    let name = REVISIONS[usize::from(revision)];
    let condemned = |c: &sluice_rollout::state::Candidate| c.condemned && c.arm.revision == name;
    state.candidate.as_ref().is_some_and(condemned)
        || state.rejected.iter().any(|r| r.revision == name)
}

fn index(revision: &str) -> Revision {
    let found = REVISIONS.iter().position(|name| *name == revision);
    found.and_then(|i| u8::try_from(i).ok()).unwrap()
}

fn small(number: i32) -> u8 {
    u8::try_from(number).unwrap()
}

fn observation(look: &Look) -> Observation {
    let name = |revision: Revision| REVISIONS[usize::from(revision)].to_owned();
    let revision = name(look.template);
    let running = (0..3).filter(|r| look.running[usize::from(*r)] > 0);
    let running = running.map(|r| RunningRevision {
        revision: name(r),
        pod_hashes: vec![format!("hash-{r}")],
        pods: look.running[usize::from(r)].into(),
        ready: if look.running_ready {
            look.running[usize::from(r)].into()
        } else {
            0
        },
    });
    let candidate = look.candidate.map(|seen| CandidateView {
        revision: revision.clone(),
        pod_hash: candidate_pod_hash(&revision),
        owner: match seen.owner {
            SeenOwnerKey::Rollout => SeenOwner::Rollout,
            SeenOwnerKey::Nobody => SeenOwner::Nobody,
            SeenOwnerKey::Deployment => SeenOwner::Deployment,
        },
        replicas: seen.replicas.into(),
        pods: seen.replicas.into(),
        named: if seen.broken {
            vec![CandidatePod {
                name: BROKEN.to_owned(),
                can_serve: seen.ready > 0,
            }]
        } else {
            Vec::new()
        },
        containers_ready: seen.ready.into(),
        ready: if seen.open { seen.ready.into() } else { 0 },
        ungated: 0,
        trouble: None,
        unready: None,
    });
    let says = |evidence| (look.evidence == evidence).then(|| "it fails".to_owned());
    Observation {
        workload: Workload::Deployment(DeploymentView {
            name: String::new(),
            uid: match look.life {
                SeenLife::Same | SeenLife::Past => UID,
                SeenLife::Ended => ENDED,
                SeenLife::New => RENEWED,
            }
            .to_owned(),
            generation: GENERATION - i64::from(look.life == SeenLife::Past),
            revision,
            replicas: REPLICAS.into(),
            paused: look.paused,
            paused_by_git: None,
            paused_by_hand: None,
            complete: look.complete,
            running: running.collect(),
            empty_twins: Vec::new(),
            candidate,
            leftovers: Vec::new(),
        }),
        services: vec!["reviews".to_owned()],
        split: SplitView {
            fence: Some(FENCE - i64::from(!look.said)),
            expected: 1,
            applied: u32::from(look.applied),
            behind: u32::from(!look.applied),
            complete: true,
            ..SplitView::default()
        },
        evidence: EvidenceView {
            condemned: says(Evidence::Condemned),
            breach: says(Evidence::Breach),
            shared_outage: says(Evidence::Outage),
            contested: says(Evidence::PodFault).map(|why| Contest {
                witness: Witness::Pod(BROKEN.to_owned()),
                why,
            }),
            sufficient: look.evidence == Evidence::Enough,
            needed: 100,
            in_step: 100,
            ..EvidenceView::default()
        },
        command: look
            .command
            .map_or_else(String::new, |(command, revision)| {
                format!("{command:?}@{}", name(revision)).to_lowercase()
            }),
        ..Observation::default()
    }
}

/// Without texts and history, which decide nothing, and with times that are as old as counts.
fn canonical(mut state: State, now: i64, deadline: i64) -> State {
    state.fence = 0;
    state.history.clear();
    state.verdict.clear();
    state.missing_since = None;
    state.deployment_seen = None;
    for rejection in &mut state.rejected {
        rejection.why.clear();
        rejection.at = NOW;
    }
    let mut until = (now, NOW);
    let most = TICK;
    match &mut state.phase {
        Phase::Paused { since, .. } => {
            let moved = NOW - age(now - *since).min(most);
            until = (*since, moved);
            *since = moved;
        }
        Phase::Observing { since, .. }
        | Phase::RollingBack { since }
        | Phase::Rejected { since } => *since = NOW - age(now - *since).min(most),
        _ => {}
    }
    if let Some(candidate) = &mut state.candidate {
        let spent = age(until.0 - candidate.started - candidate.paused_ms);
        let counts = if deadline > 100 * TICK { 1 } else { deadline };
        candidate.started = until.1 - spent.min(counts);
        candidate.paused_ms = 0;
        candidate.closed = Default::default();
    }
    state
}

/// Nothing, a moment, or whole ticks.
fn age(ms: i64) -> i64 {
    match ms {
        ..=0 => 0,
        1..TICK => 1,
        _ => ms / TICK * TICK,
    }
}
