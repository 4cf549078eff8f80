//! Decides whether a pod gets a sidecar, and writes the JSON patch that adds it.
//!
//! ```text
//!  pod + namespace labels ── decide ──▶ Inject | Skip(why)
//!  pod + Settings ────────── patch ───▶ JSON patch (RFC 6902)
//! ```
//!
//! **Invariants**
//! - Pure: equal arguments give equal patches. No clock, no randomness, no cluster.
//! - A patch only adds; nothing that the pod's author wrote is changed or removed.
//! - A pod that was injected once is never injected again.
//! - The sidecar has no startup and no readiness probe (its health reaches the control plane by
//!   its stream): that keeps an upgrade of the sidecar in a running pod possible.

mod decide;
mod exclusions;
mod patch;
mod pod;
mod settings;

pub use decide::{Decision, NamespaceLabels, decide};
pub use exclusions::Exclusions;
pub use patch::{Operation, patch};
pub use settings::{Resources, Settings};

/// Container name of the sidecar; Istio's tools look for it.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// Container name of the step that sets the redirect.
pub const INIT_CONTAINER: &str = "istio-init";
/// Annotation that says what was added, in Istio's format.
pub const STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Annotation that says in one sentence what was done.
pub const INJECTED_ANNOTATION: &str = "sluice.dev/injected";
/// The user and group that the sidecar runs as, and that the redirect leaves alone.
pub const PROXY_UID: i64 = 1337;
