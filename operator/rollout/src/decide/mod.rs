//! `decide`: the rollout's state machine.
//!
//! Each call is one turn: it looks at the obstacles, at what git wants, at commands and
//! verdicts, and then moves the current phase on, as far as the observation allows. A turn with
//! nothing new gives an equal state and no notes.

mod capacity;
mod command;
mod phases;
mod pod_fault;
mod subject;
mod target;
mod turn;
mod workload;

use crate::Millis;
use crate::observation::Observation;
use crate::policy::Policy;
use crate::state::State;
use subject::Subject;
pub(crate) use subject::lacking;
use turn::Turn;

/// How long a missing workload or Service is waited for before it is an error, ms.
pub const MISSING_PATIENCE_MS: i64 = 120_000;
/// How long a rollback waits for proxies to apply weight 0 before pods go, ms.
pub const ROLLBACK_PATIENCE_MS: i64 = 10_000;
/// Ended rollouts that are remembered.
pub const HISTORY: usize = 10;

/// What a turn came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The new state; equal to the old one when nothing changed.
    pub state: State,
    /// What to tell people, once, after the state is written.
    pub notes: Vec<Note>,
    /// When to look again although nothing changes.
    pub again_at: Option<Millis>,
}

/// Something to tell people; becomes an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether it is good or bad news.
    pub kind: NoteKind,
    /// CamelCase, for machines.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// Whether a note is good or bad news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Moves the rollout on.
#[must_use]
pub fn decide(policy: &Policy, state: &State, seen: &Observation, now: Millis) -> Decision {
    let mut turn = Turn::new(policy, state, seen, now);
    let blocked = turn.blocked();
    if turn.sees_the_past() || seen.conflict.is_some() {
        return turn.end();
    }
    if turn.is_elsewhere() {
        turn.leave_workload();
        return turn.end();
    }
    let Some(subject) = Subject::of(policy, &seen.workload) else {
        return turn.end();
    };
    if !blocked {
        turn.move_on(&subject);
    }
    turn.keep_capacity(&subject);
    turn.end()
}

impl Turn<'_> {
    /// What git wants, what people say, what the evidence says, and then the phase.
    fn move_on(&mut self, subject: &Subject) {
        self.follow_git(subject);
        self.fit_step();
        self.obey(subject);
        self.forget_gone_pod(subject);
        if self.judge(subject) {
            self.advance(subject);
        }
    }
}
