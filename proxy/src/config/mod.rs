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

pub use parse::Refused;
pub use snapshot::{
    Branch, Cluster, Endpoint, Listener, Lookup, Route, ServiceName, Snapshot, Split,
};
pub use store::{Change, Store};
