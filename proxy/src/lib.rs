//! The data plane: one binary that is a sidecar, a gateway and the `init` that sets the redirect.
//!
//! ```text
//!  control thread                                     worker threads (share nothing)
//!  ADS ─▶ config::Store ─publish─▶ Shared.snapshot ──▶ outbound / inbound ─▶ sniff ─▶ http │ tcp
//!   ▲           ▲                  Shared.evidence ◀── counters ◀────────────────────────┘   │
//!   │        demands ◀──────────── Shared.resolve ◀─── first use of a destination            ▼
//!  evidence stream ◀── reporter ◀─ Shared.evidence                                       upstream
//! ```
//!
//! **Invariants**
//! - The hot path takes no lock that another worker may hold for longer than an addition, and
//!   reads one immutable snapshot.
//! - Whatever the control plane does or does not say, what is in force goes on serving; over a
//!   restart too, from the last-good file, and never with more weight on an unpromoted arm.
//! - A request is sent again only when it was not processed, or when sending it twice does no
//!   more than sending it once; a retry never changes what its first attempt was counted as.
//! - Only requests that the coin placed are counted as coined; what the client breaks off is
//!   counted in no arm.
//! - A server that speaks first is never held up by the detection of protocols.
//! - `config`, `balance`, `detect`, `init` are pure: no socket, no clock, no task.

pub mod admin;
pub mod balance;
pub mod coin;
pub mod config;
pub mod control;
pub mod detect;
pub mod drain;
pub mod evidence;
pub mod http;
pub mod inbound;
pub mod init;
pub mod io;
pub mod last_good;
pub mod lease;
pub mod metrics;
pub mod outbound;
pub mod shared;
pub mod sniff;
pub mod sources;
pub mod tcp;
pub mod upstream;
pub mod worker;
