//! What proxies saw of each arm: the record, its merge, and its wire form.
//!
//! ```text
//!  proxy ──ProxyReport──▶ Table (serving) ──outgoing──▶ Table (leader) ──Cursor──▶ strata ──▶ verdict
//!                                                         ├──standing──▶ applied, behind, away
//!                                                         └──InboundCursor──▶ who came to a pod
//! ```
//!
//! **Invariants**
//! - Counters only grow within one life (pod uid, process start) and one key (service, revision,
//!   fence); merging is max, so replays, reconnects and leader changes need nothing else.
//! - Nothing that a peer sends makes a table grow without bound; what is left out is counted.
//! - Without the feature `grpc` there is no socket, no runtime and no clock here: `now_ms` is the
//!   caller's monotonic clock.

pub use generated::evidence::v1;
pub use generated::relay::v1 as relay;
pub use inbound::{Arrivals, Came, Claim, InboundCursor};
pub use standing::{AWAY_AFTER_MS, Standing};
pub use strata::{ArmDelta, Cursor, Growth, Stratum};
pub use table::{FORGET_AFTER_MS, Identity, Refused, Table};

mod inbound;
mod life;
mod standing;
mod strata;
mod table;

/// Made from `proto/` by `tests/generated.rs`; never edited by hand.
#[allow(missing_docs, clippy::all)]
mod generated {
    pub mod evidence {
        pub mod v1 {
            include!("generated/sluice.evidence.v1.rs");
        }
    }
    pub mod relay {
        pub mod v1 {
            include!("generated/sluice.relay.v1.rs");
        }
    }
}
