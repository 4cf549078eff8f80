//! The only place that touches Kubernetes: watches, writes, leases, webhooks, serving.
//!
//! ```text
//!  controller   watches ─▶ rollout::decide ─▶ status, TrafficSplit, ReplicaSet    (leader writes)
//!                              ▲ relay::leader
//!                              │ mTLS
//!  serving      watches ─▶ mesh::World ─▶ ADS ═▶ proxies ═▶ evidence ─▶ relay::sender
//!               watches ─▶ caches ─▶ webhook: /hold /gate /inject
//!  ca           Secrets (root, leafs), ConfigMaps (root for the proxies), caBundle of the webhooks
//! ```
//!
//! **Invariants**
//! - Every decision is made in a pure crate or a pure function; what stands here carries objects
//!   to it and its answer back.
//! - Each role runs under an account of its own and reads one Secret: its own certificate. Only
//!   `ca` reads the root's key.
//! - An apiserver that is away stops writes, never what proxies are served.
//! - Key material has no `Debug` and is never logged.

pub mod backoff;
pub mod ca;
pub mod context;
pub mod controller;
pub mod health;
pub mod lease;
pub mod relay;
pub mod serving;
pub mod stores;
pub mod telemetry;
pub mod tls;
pub mod webhook;
