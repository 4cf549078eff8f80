//! Cluster objects in few words, all in the namespace `shop`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{
            ObjectReference, Pod, PodCondition, PodSpec, PodStatus, Service, ServicePort,
            ServiceSpec,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use sluice_crds::{Mesh, MeshSpec, SplitArm, TrafficSplit, TrafficSplitSpec, names};
use sluice_mesh::ObjectKey;

pub const NAMESPACE: &str = "shop";

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(NAMESPACE.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

/// The settings of a mesh in which Services are seen by these unless they say otherwise.
pub fn mesh(export_to: &[&str]) -> Mesh {
    let spec = MeshSpec {
        default_service_export_to: export_to.iter().map(|&entry| entry.to_owned()).collect(),
        ..MeshSpec::default()
    };
    Mesh::new("default", spec)
}

pub fn time(seconds: i64) -> Time {
    Time(jiff::Timestamp::from_second(seconds).unwrap())
}

/// A Service with a selector.
pub fn service(name: &str) -> ServiceBuilder {
    ServiceBuilder(Service {
        metadata: meta(name),
        spec: Some(ServiceSpec {
            selector: Some(BTreeMap::from([("app".to_owned(), name.to_owned())])),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

pub struct ServiceBuilder(Service);

impl ServiceBuilder {
    pub fn vip(mut self, vip: &str) -> Self {
        self.spec().cluster_ip = Some(vip.to_owned());
        self
    }

    pub fn port(mut self, name: &str, port: i32) -> Self {
        let port = ServicePort {
            name: (!name.is_empty()).then(|| name.to_owned()),
            port,
            ..ServicePort::default()
        };
        self.spec().ports.get_or_insert_default().push(port);
        self
    }

    pub fn udp(mut self, name: &str, port: i32) -> Self {
        self = self.port(name, port);
        let last = self
            .spec()
            .ports
            .as_mut()
            .and_then(|ports| ports.last_mut());
        last.unwrap().protocol = Some("UDP".to_owned());
        self
    }

    pub fn headless(self) -> Self {
        self.vip("None")
    }

    pub fn without_selector(mut self) -> Self {
        self.spec().selector = None;
        self
    }

    pub fn publishing_unready(mut self) -> Self {
        self.spec().publish_not_ready_addresses = Some(true);
        self
    }

    pub fn external_name(mut self) -> Self {
        self.spec().type_ = Some("ExternalName".to_owned());
        self
    }

    pub fn with_family(mut self, family: &str) -> Self {
        self.spec().ip_families = Some(vec![family.to_owned()]);
        self
    }

    pub fn export_to(mut self, value: &str) -> Self {
        let annotations = self.0.metadata.annotations.get_or_insert_default();
        annotations.insert(names::EXPORT_TO.to_owned(), value.to_owned());
        self
    }

    fn spec(&mut self) -> &mut ServiceSpec {
        self.0.spec.as_mut().unwrap()
    }

    pub fn build(self) -> Service {
        self.0
    }
}

/// A ready pod of the Deployment `cart`, of the ReplicaSet with this hash.
pub fn pod(name: &str, hash: &str) -> PodBuilder {
    let labels = [("app", "cart"), ("pod-template-hash", hash)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut metadata = meta(name);
    metadata.labels = Some(labels.into());
    metadata.owner_references = Some(vec![OwnerReference {
        kind: "ReplicaSet".to_owned(),
        name: format!("cart-{hash}"),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    let pod = Pod {
        metadata,
        spec: Some(PodSpec {
            service_account_name: Some("cart".to_owned()),
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    PodBuilder(pod).conditions(true, true)
}

pub struct PodBuilder(Pod);

impl PodBuilder {
    /// Its containers are ready, its readiness gate is shut.
    pub fn gated(self) -> Self {
        self.conditions(true, false)
    }

    pub fn unready(self) -> Self {
        self.conditions(false, false)
    }

    pub fn deleting(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(time(1));
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        let labels = self.0.metadata.labels.get_or_insert_default();
        labels.insert(name.to_owned(), value.to_owned());
        self
    }

    fn conditions(mut self, containers: bool, ready: bool) -> Self {
        let condition = |type_: &str, status: bool| PodCondition {
            type_: type_.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            ..PodCondition::default()
        };
        self.0.status = Some(PodStatus {
            conditions: Some(vec![
                condition("ContainersReady", containers),
                condition("Ready", ready),
            ]),
            ..PodStatus::default()
        });
        self
    }

    pub fn build(self) -> Pod {
        self.0
    }
}

/// A slice of the Service's IPv4 endpoints.
pub fn slice(name: &str, service: &str) -> SliceBuilder {
    let mut metadata = meta(name);
    let label = ("kubernetes.io/service-name".to_owned(), service.to_owned());
    metadata.labels = Some(BTreeMap::from([label]));
    SliceBuilder(EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        ..EndpointSlice::default()
    })
}

pub struct SliceBuilder(EndpointSlice);

impl SliceBuilder {
    pub fn port(mut self, name: &str, port: i32) -> Self {
        self.0.ports.get_or_insert_default().push(EndpointPort {
            name: Some(name.to_owned()),
            port: Some(port),
            ..EndpointPort::default()
        });
        self
    }

    pub fn ipv6(mut self) -> Self {
        self.0.address_type = "IPv6".to_owned();
        self
    }

    pub fn pod(self, name: &str, address: &str) -> Self {
        self.member(Some(name), address, true)
    }

    pub fn unready_pod(self, name: &str, address: &str) -> Self {
        self.member(Some(name), address, false)
    }

    pub fn address(self, address: &str, ready: bool) -> Self {
        self.member(None, address, ready)
    }

    /// The last endpoint says that its pod is of this namespace.
    pub fn of_namespace(mut self, namespace: &str) -> Self {
        let last = self.0.endpoints.last_mut().unwrap();
        last.target_ref.as_mut().unwrap().namespace = Some(namespace.to_owned());
        self
    }

    pub fn terminating(mut self) -> Self {
        let last = self.0.endpoints.last_mut().unwrap();
        last.conditions.get_or_insert_default().terminating = Some(true);
        self
    }

    fn member(mut self, pod: Option<&str>, address: &str, ready: bool) -> Self {
        self.0.endpoints.push(Endpoint {
            addresses: vec![address.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                ..EndpointConditions::default()
            }),
            target_ref: pod.map(|name| ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(name.to_owned()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        });
        self
    }

    pub fn build(self) -> EndpointSlice {
        self.0
    }
}

/// A split of one Service between the hashes `v1` and `sluice-v2`, the latter gated.
pub fn split(name: &str, service: &str) -> SplitBuilder {
    let arm = |name: &str, hash: &str, weight| SplitArm {
        name: name.to_owned(),
        weight,
        pod_label_values: vec![hash.to_owned()],
        pod_label: "pod-template-hash".to_owned(),
        include_gated: name == "candidate",
        excluded_pods: Vec::new(),
    };
    let spec = TrafficSplitSpec {
        fence: 1,
        services: vec![service.to_owned()],
        revision: "rev-2".to_owned(),
        arms: vec![arm("stable", "v1", 100), arm("candidate", "sluice-v2", 0)],
        leased: true,
        hung_after_ms: 5_000,
    };
    let mut split = TrafficSplit::new(name, spec);
    split.metadata.namespace = Some(NAMESPACE.to_owned());
    split.metadata.creation_timestamp = Some(time(0));
    SplitBuilder(split)
}

pub struct SplitBuilder(TrafficSplit);

impl SplitBuilder {
    pub fn weight(mut self, candidate: i32) -> Self {
        self.0.spec.arms[0].weight = 100 - candidate;
        self.0.spec.arms[1].weight = candidate;
        self
    }

    pub fn fence(mut self, fence: i64) -> Self {
        self.0.spec.fence = fence;
        self
    }

    pub fn created(mut self, seconds: i64) -> Self {
        self.0.metadata.creation_timestamp = Some(time(seconds));
        self
    }

    pub fn stable_only(mut self) -> Self {
        self.0.spec.arms.truncate(1);
        self.0.spec.arms[0].weight = 100;
        self
    }

    pub fn excluding(mut self, pod: &str) -> Self {
        self.0.spec.arms[1].excluded_pods.push(pod.to_owned());
        self
    }

    pub fn candidate_hash(mut self, hash: &str) -> Self {
        self.0.spec.arms[1].pod_label_values = vec![hash.to_owned()];
        self
    }

    pub fn build(self) -> TrafficSplit {
        self.0
    }
}
