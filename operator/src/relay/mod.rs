//! The relay: each serving replica's table of proxies and evidence, carried to the leader; and
//! the leader's ejects, carried to the replicas while the apiserver does not answer.
//!
//! ```text
//!  serving replica ── tables, ejects held ──mTLS, sluice.relay.v1──▶ leader (holder of the Lease)
//!                  ◀────────── ejects known ──────────
//! ```

pub mod ejects;
pub mod leader;
pub mod sender;

#[cfg(test)]
mod tests;
