//! The CRDs as Kubernetes takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
};
use kube::CustomResourceExt;

use crate::{Mesh, MeshRollout, TrafficSplit};

/// All CRDs of Sluice, in the order of installation.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        unseen_at_first(MeshRollout::crd()),
        TrafficSplit::crd(),
        Mesh::crd(),
    ]
}

/// What has no status yet passes for done with kstatus, and so with Flux: it takes a missing
/// `observedGeneration` for one that is not in use. So the apiserver fills in one that is behind.
fn unseen_at_first(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().map(|v| &mut v.schema);
    let roots = schemas.flatten().flat_map(|s| &mut s.open_api_v3_schema);
    let statuses = roots.flat_map(|root| &mut root.properties);
    for status in statuses.filter_map(|properties| properties.get_mut("status")) {
        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    }
    crd
}
