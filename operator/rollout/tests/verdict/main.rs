//! The verdict's error rates and speeds, by simulated traffic from fixed seeds.
#![allow(clippy::unwrap_used)]

mod condemn;
mod pass;
mod rates;
mod traffic;
mod witnesses;
mod words;
