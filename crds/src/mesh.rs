//! `Mesh`: settings of the whole mesh, one object named `default`.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::rules;

/// Settings of the whole mesh. Read by the serving role; all fields have defaults, so the object
/// may be absent.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "Mesh",
    doc = "Settings of the whole mesh: one object, named default.",
    plural = "meshes",
    category = "sluice",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one Mesh, and its name is default: set metadata.name to default"),
    printcolumn(name = "Trust domain", type_ = "string", json_path = ".spec.trustDomain"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshSpec {
    /// Trust domain of all SPIFFE ids.
    #[serde(default = "default_trust_domain")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::not_yet("self == 'cluster.local'", "a spec.trustDomain other than cluster.local", "leave it out"))]
    pub trust_domain: String,
    /// Which namespaces see a Service that does not say so by the annotation
    /// networking.istio.io/exportTo: names of namespaces, `.` for the Service's own, `*` for
    /// all, or `~` alone for none.
    #[serde(default = "default_service_export_to")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 63)))]
    #[x_kube(validation = rules::export_to("spec.defaultServiceExportTo"))]
    #[x_kube(validation = rules::nobody_stands_alone("spec.defaultServiceExportTo"))]
    pub default_service_export_to: Vec<String>,
    /// The sidecar that the injector adds. A change is used for pods made after it.
    #[serde(default)]
    pub proxy: ProxySettings,
}

/// The sidecar container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProxySettings {
    /// Image of the sidecar; default: the one of the operator's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests and limits of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ProxyResources>,
}

/// Requests and limits of the sidecar, as Kubernetes quantities.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProxyResources {
    /// CPU asked for; default 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::quantity("spec.proxy.resources.cpuRequest"))]
    pub cpu_request: Option<String>,
    /// Memory asked for; default 32Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::quantity("spec.proxy.resources.memoryRequest"))]
    pub memory_request: Option<String>,
    /// Memory limit; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::quantity("spec.proxy.resources.memoryLimit"))]
    pub memory_limit: Option<String>,
}

fn default_trust_domain() -> String {
    "cluster.local".to_owned()
}

/// As in Istio.
fn default_service_export_to() -> Vec<String> {
    vec!["*".to_owned()]
}
