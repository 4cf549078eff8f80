//! The delta xDS protocol, both ends, and the names and metadata they share.
//!
//! Sans-io: the owner moves messages between a session and its stream, and calls `poll` after
//! whatever may have changed something. Protocol:
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>, incremental variant, by
//! name only.
//!
//! ```text
//!   serving                                                     proxy
//!   Resources ◀─get── ServerSession                ClientSession ──events──▶ owner
//!                       │  ▲      ══ responses ══▶     ▲  │                    │
//!                  poll │  │ handle_request   handle_response │ poll_request    │ ack, nack
//!                       ▼  │      ◀══ requests ══      │  ▼ ◀──────────────────┘
//!                       owner                          owner
//! ```
//!
//! **Invariants**
//! - No socket, no clock, no task: given the same calls, the same messages.
//! - Nothing is sent that the client is known to have in that version, after a reconnect too.
//! - A name that was asked for is always answered: with the resource, or as removed.
//! - Make before break: clusters, endpoints, listeners, routes are sent in that order; what the
//!   client holds is taken away in the reverse order, and only when it has answered everything
//!   that was sent before.
//! - A refused resource leaves the former one in force, and the refusal is kept by name.
//! - What a client can make a server keep is bounded by [`Limits`].

mod any;
mod client;
mod kind;
pub mod metadata;
pub mod names;
mod refusal;
mod resources;
mod server;

pub use any::{UnpackError, pack, unpack};
pub use client::{ClientSession, Event, Held, Update, Verdict};
pub use kind::{Kind, ResourceName};
pub use refusal::Refusal;
pub use resources::{Resource, Resources};
pub use server::{Limits, Rejection, ServerSession};

/// What the other end did against the protocol. The stream is of no use any more: close it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A type that is neither a listener, route, cluster nor endpoints.
    #[error(
        "type `{0}` is not served: ask for Listener, RouteConfiguration, Cluster or ClusterLoadAssignment"
    )]
    UnknownType(String),
    /// A subscription to everything.
    #[error("a wildcard subscription to {0} is not served: subscribe by name")]
    Wildcard(Kind),
    /// More names than a stream may subscribe to.
    #[error("more than {0} names on one stream: unsubscribe what is not used any more")]
    TooManyNames(usize),
    /// A name that no resource can have.
    #[error("a resource name of {0} bytes is too long: names of this mesh have at most {max}", max = names::MAX_LEN)]
    NameTooLong(usize),
}
