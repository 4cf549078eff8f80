//! What GitOps tools make of Sluice: the verdicts of Flux and Argo CD by their own libraries, and
//! applies that change nothing, against a real apiserver.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
#[path = "gitops/applies.rs"]
mod applies;
#[path = "gitops/argo.rs"]
mod argo;
#[path = "gitops/dry_run.rs"]
mod dry_run;
#[path = "gitops/kstatus.rs"]
mod kstatus;
#[path = "crds/place.rs"]
mod place;
#[path = "gitops/tools.rs"]
mod tools;
