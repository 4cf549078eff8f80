//! API types of Sluice: what a team writes in git (`MeshRollout`, `Mesh`) and what the
//! operator writes for the mesh (`TrafficSplit`).
//!
//! ```text
//!  MeshRollout ──decide/project──▶ TrafficSplit ──compile──▶ routes of every proxy
//!  Mesh ────────injection────────▶ sidecars
//! ```
//!
//! **Invariants**
//! - Nothing here talks to a cluster: types, their defaults, bounds and CEL rules only.
//! - `crds/yaml` and the chart's CRDs are generated from these types; a test fails when they differ.
//! - A field that the engine does not honour yet is refused by a CEL rule that says so; it is
//!   never accepted and ignored.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printcolumn has a type of its own"
)]

mod analysis;
mod mesh;
mod rollout;
mod rules;
mod split;
mod status;
mod strategy;
pub mod units;
pub mod yaml;

pub use analysis::*;
pub use mesh::{Mesh, MeshSpec, ProxyResources, ProxySettings};
pub use rollout::*;
pub use split::{
    CANDIDATE, MAX_LISTED, STABLE, SplitArm, TrafficSplit, TrafficSplitSpec, TrafficSplitStatus,
};
pub use status::*;
pub use strategy::*;

/// API group of all Sluice kinds, and the prefix of its labels and annotations.
pub const GROUP: &str = "sluice.dev";

/// Labels and annotations that Sluice reads or writes.
pub mod names {
    /// Pod readiness gate of an unpromoted candidate; set True by the controller at promotion.
    pub const PROMOTED_GATE: &str = "sluice.dev/promoted";
    /// Namespace or pod label: `true` injects the sidecar, `false` keeps it out.
    pub const INJECT: &str = "sluice.dev/inject";
    /// Annotation of a MeshRollout: a command pinned to a revision, `COMMAND@REVISION`,
    /// with COMMAND one of promote, pause, resume, abort, retry, skip. Written by people or
    /// the CLI; the controller removes nothing, it remembers in status what it has carried out.
    pub const COMMAND: &str = "sluice.dev/command";
    /// Label of the ReplicaSets that the controller makes: the MeshRollout's name.
    pub const ROLLOUT: &str = "sluice.dev/rollout";
    /// Label that the ReplicaSet controller and ours put on pods: the template's hash.
    pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
    /// Annotation of a Service, Istio's own name: which namespaces see it. Written by teams.
    pub const EXPORT_TO: &str = "networking.istio.io/exportTo";
    /// Prefix of the `pod-template-hash` of a candidate ReplicaSet of ours.
    pub const CANDIDATE_HASH_PREFIX: &str = "sluice-";
}
