//! Real-cluster tests, load with a ledger, and the demo's story.
//!
//! ```text
//!  story ─▶ repo ─git push─▶ Flux ─▶ cluster ◀─watch─ observer
//!    └────▶ load ─▶ gateway ─▶ pods;  every answer ─▶ ledger ─▶ report
//! ```
//!
//! **Invariants**
//! - The load goes to one address in a network that the run made itself, and stops by itself.
//! - Every request is accounted for: sent = ok + failed + lost.
//! - Nothing here is a mock but what `faults` and `scale` name as one: what is not there fails with a
//!   sentence that tells how to get it.

pub mod audit;
pub mod bench;
pub mod crds;
pub mod faults;
pub mod files;
pub mod helm;
pub mod leaks;
pub mod ledger;
pub mod load;
pub mod observer;
pub mod repo;
pub mod report;
pub mod rights;
pub mod rollbacks;
pub mod scale;
pub mod story;
mod teller;
pub mod view;
pub mod world;
