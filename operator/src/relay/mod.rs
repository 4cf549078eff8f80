//! The relay: each serving replica's table of proxies and evidence, carried to the leader.
//!
//! ```text
//!  serving replica ── sender ──mTLS, sluice.relay.v1──▶ leader (holder of the Lease)
//! ```

pub mod leader;
pub mod sender;

#[cfg(test)]
mod tests;
