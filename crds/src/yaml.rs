//! The CRDs as Kubernetes takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{Mesh, MeshRollout, TrafficSplit};

/// All CRDs of Sluice, in the order of installation.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![MeshRollout::crd(), TrafficSplit::crd(), Mesh::crd()]
}
