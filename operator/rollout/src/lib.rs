//! Decides and projects a rollout, and judges its evidence. No I/O, no clock, no randomness.
//!
//! ```text
//!  spec ─▶ Policy ─┐
//!  status ─▶ State ─┼─ decide(now) ─▶ State', notes ─▶ project ─▶ Desired objects
//!  world ─▶ Observation ─┘                 ▲
//!  proxies ─▶ strata ─▶ verdict::Analysis ─┘ (EvidenceView)
//! ```
//!
//! **Invariants** (one predicate set is used by tests and debug builds)
//! - Time comes in as an argument; equal arguments give equal answers.
//! - The weight never exceeds that of the current step, and is 0 unless the candidate has pods
//!   for it.
//! - After a rollback verdict a revision's weight never rises without `retry` or another
//!   revision in between.
//! - One candidate at a time; evidence belongs to one revision.
//! - The fence grows with every change of what a TrafficSplit says.

pub mod conditions;
pub mod decide;
pub mod desired;
pub mod invariants;
pub mod observation;
pub mod policy;
pub mod project;
pub mod revision;
pub mod state;
pub mod verdict;

/// Milliseconds since 1970, from the caller's clock.
pub type Millis = i64;
