//! What holds on a real node only: pods, the mesh between them, Flux, and what breaks.
//!
//! They run after the demo's story, on its node: `cargo xtask test --only cluster`. Those that keep
//! to a namespace of their own and leave the rest alone run side by side, the others one after the
//! other, and at the end those that look at what all have left behind; `xtask/src/suites.rs` says
//! which is which.
//!
//! **Invariants**
//! - Each test leaves the node as it found it: its namespaces go, the demo is Idle and Ready.
//! - Nothing waits for a fixed time: a slow machine takes longer and sees the same.
#![allow(clippy::unwrap_used, missing_docs)]

mod adoption;
mod apiserver_away;
mod app;
mod apply_loop;
mod autoscaler;
mod bad_input;
mod busy;
mod by_hand;
mod bypassed;
mod candidate_trouble;
mod churn;
mod commands;
mod cut_off;
mod demo;
mod dry_run;
mod eject;
mod ends_of_life;
mod figures;
mod fix_in_the_middle;
mod footprint;
mod gateway;
mod git;
mod last_good;
mod leaks;
mod lifecycle;
mod metrics;
mod metrics_server;
mod mode_b;
mod node;
mod place;
mod proxy;
mod refused;
mod relay;
mod stable_trouble;
mod uninstall;
mod webhooks_down;
