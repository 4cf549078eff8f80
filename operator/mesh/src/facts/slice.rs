//! What is kept of an EndpointSlice.

use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::ObjectReference,
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};

use super::ObjectKey;

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A slice of a Service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    pub service: ObjectKey,
    pub ipv6: bool,
    /// Name of the Service's port, and the number it has on these pods.
    pub ports: Vec<(String, u16)>,
    pub members: Vec<Member>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub address: IpAddr,
    /// The pod, for endpoints that are pods.
    pub pod: Option<ObjectKey>,
    pub ready: bool,
}

impl SliceFacts {
    /// None for a slice that belongs to no Service, or holds no addresses.
    pub(crate) fn of(slice: &EndpointSlice) -> Option<Self> {
        let key = ObjectKey::of(&slice.metadata)?;
        let labels = slice.metadata.labels.as_ref()?;
        let ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let endpoints = slice.endpoints.iter();
        Some(Self {
            service: ObjectKey::new(&key.namespace, labels.get(SERVICE_NAME)?),
            ipv6,
            ports: slice.ports.iter().flatten().filter_map(port).collect(),
            members: endpoints
                .filter_map(|endpoint| member(&key.namespace, endpoint))
                .collect(),
        })
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &ObjectKey> {
        self.members.iter().filter_map(|member| member.pod.as_ref())
    }
}

fn port(port: &EndpointPort) -> Option<(String, u16)> {
    if port.protocol.as_deref().is_some_and(|p| p != "TCP") {
        return None;
    }
    let number = u16::try_from(port.port?).ok().filter(|n| *n > 0)?;
    Some((port.name.clone().unwrap_or_default(), number))
}

/// None for an endpoint that is on its way out, and for one that says it is a pod of another
/// namespace: no controller writes such a thing, and it would give this Service another tenant's
/// name, labels and readiness. Of several addresses the first counts: consumers are told to look
/// at no other.
fn member(namespace: &str, endpoint: &Endpoint) -> Option<Member> {
    let conditions = endpoint.conditions.as_ref();
    if conditions.and_then(|c| c.terminating) == Some(true) {
        return None;
    }
    let target = endpoint.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    let of_another = |target: &&ObjectReference| {
        let told = target.namespace.as_deref();
        told.is_some_and(|told| !told.is_empty() && told != namespace)
    };
    if pod.as_ref().is_some_and(of_another) {
        return None;
    }
    let pod = pod.and_then(|target| Some(ObjectKey::new(namespace, target.name.as_deref()?)));
    Some(Member {
        address: endpoint.addresses.first()?.parse().ok()?,
        pod,
        // Unknown is to be read as ready.
        ready: conditions.and_then(|c| c.ready) != Some(false),
    })
}
