//! From xDS resources to what the hot path reads.
//!
//! ```text
//!  Any ──parse──▶ spec (or a reason to refuse it) ──▶ Store ──settle──▶ in force ──▶ Snapshot
//! ```
//!
//! Pure: no socket, no clock, no task.

mod parse;
mod snapshot;
mod store;
mod usage;

pub use parse::Refused;
pub use snapshot::{
    Branch, Cluster, Endpoint, Listener, Lookup, Mode, Route, ServiceName, Snapshot, Split,
};
pub use store::{Change, Store};
pub use usage::{InUse, Usage};
