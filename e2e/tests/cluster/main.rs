//! What holds on a real node only: pods, the mesh between them, Flux, and what breaks.
//!
//! They run after the demo's story, on its node, one after the other: `cargo xtask test --only cluster`.
//!
//! **Invariants**
//! - Each test leaves the node as it found it: its namespaces go, the demo is Idle and Ready.
//! - Nothing waits for a fixed time: a slow machine takes longer and sees the same.
#![allow(clippy::unwrap_used, missing_docs)]

mod adoption;
mod apiserver_away;
mod app;
mod bad_input;
mod busy;
mod by_hand;
mod candidate_trouble;
mod commands;
mod demo;
mod ends_of_life;
mod figures;
mod footprint;
mod lifecycle;
mod metrics;
mod mode_b;
mod node;
mod place;
mod relay;
mod stable_trouble;
mod uninstall;
mod webhooks_down;
