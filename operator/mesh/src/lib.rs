//! Compiles cluster objects to the mesh model, and the model to xDS resources on demand.
//!
//! ```text
//!  Service ─────┐
//!  EndpointSlice┤ apply_*   ┌───────┐ resolve  ┌──────┐ compile  ┌──────────┐ sight
//!  Pod ─────────┼─────────▶ │ World │────────▶ │ Plan │────────▶ │ Resource │──────▶ sessions
//!  TrafficSplit ┤  │        └───────┘ by name  └──────┘ version  └──────────┘
//!  Mesh ────────┘  │
//!                  └─▶ names that may have changed ◀── eject
//! ```
//!
//! A change is applied and tells the names it may have touched; a resource is made when its name
//! is asked for. What is kept of an object is only what a resource may need.
//!
//! **Invariants**
//! - No clock, no coin, no cluster, no task: the same objects give the same resources and the
//!   same versions, in whatever order they came, on every replica.
//! - A weight change touches routes only, and the listeners of ports that may carry raw TCP.
//! - While a Service exists, all clusters of its ports do, those of arms that no split names
//!   too: nothing that a route in force still names goes away.
//! - A pod is in at most one arm, and a pod that is being deleted is in none.
//! - An eject only takes weight away, and only from its revision, up to its fence.
//! - What a namespace may not see does not exist for it, under any name: the only way to a
//!   resource is the sight of a namespace.
//! - Nothing in one namespace gives a Service of another an endpoint, a weight or an arm.
//! - A broken field of one object costs that object its effect, nobody else theirs.
//! - Nothing is compiled for a name that nobody asked for.

mod encode;
mod facts;
mod intern;
mod plan;
mod resolve;
mod sight;
mod status;
mod world;

pub use facts::{Eject, ExportTo, ObjectKey, PortProtocol, WrongExportTo};
pub use sight::Sight;
pub use status::{SplitConflict, Standing, Stats};
pub use world::{Input, World};
