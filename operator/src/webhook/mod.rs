//! The three webhooks: the hold on Deployments, the gate on candidate pods, the injection of
//! sidecars.
//!
//! ```text
//!  apiserver ──TLS──▶ server ─▶ review ─┬─▶ hold   (MeshRollouts)      ─▶ spec.paused
//!                                       ├─▶ gate   (MeshRollouts)      ─▶ readiness gate
//!                                       └─▶ inject (Namespaces, Mesh)  ─▶ sidecar
//! ```
//!
//! **Invariants**
//! - Each answer follows from the request and the caches alone: nothing is asked of anybody, and
//!   nothing is written; so a dry run gets the very answer of the real one.
//! - Before the caches are complete there is no answer but "not yet" (503); what that means is
//!   each webhook's failurePolicy.
//! - What was done stands in the audit annotation `action` and, where someone should know, in a
//!   warning; on pods also in an annotation.
//! - Malformed requests are an HTTP 400, too large ones a 413; none is a panic.

mod caches;
mod gate;
mod hold;
mod inject;
mod review;
mod server;

pub use caches::Caches;
pub use server::{Webhooks, serve};
