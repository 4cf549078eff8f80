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
//! - The weight never exceeds that of the current step, nor in a pause what that stands for; and
//!   until stable is on its way out it is 0 when no pod of the candidate can serve and one of
//!   stable can.
//! - One pod of a revision may be left out as the only one that fails; it is no capacity, what it
//!   answered no evidence, and nothing is promoted while it is there.
//! - A state is about one workload. Another one gets nothing of it: the candidate leaves traffic
//!   first, then its pods go, then all is forgotten.
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
