//! What is kept of a Service.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use sluice_crds::names::EXPORT_TO;
use sluice_xds::{
    Kind, ResourceName,
    names::{self, Arm, ClusterName},
};

use super::{Audience, ExportTo, ObjectKey, PortProtocol};
use crate::intern::Interner;

/// A Service with its TCP ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub key: ObjectKey,
    /// Its host name.
    pub host: String,
    /// Its ClusterIPs; none for a headless one.
    pub vips: Vec<IpAddr>,
    /// Whether its endpoints are taken from slices of IPv6 addresses.
    pub ipv6: bool,
    pub readiness: Readiness,
    pub ports: Vec<PortFacts>,
    /// Which namespaces see it.
    pub audience: Arc<Audience>,
    /// Whether the mesh's default says so, and not the Service.
    pub by_default: bool,
}

/// Who knows which endpoints are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The pods' own conditions, the freshest source.
    Pods,
    /// The slices: somebody else's endpoints, or a Service that wants unready pods too.
    Slices,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortFacts {
    pub number: u16,
    /// Its name, empty when it has none: how slices refer to it.
    pub name: String,
    pub protocol: PortProtocol,
}

impl ServiceFacts {
    /// None for a Service without endpoints of its own (ExternalName) or without a name.
    /// `default` holds where it does not say who may see it.
    pub(crate) fn of(
        service: &Service,
        default: &ExportTo,
        audiences: &mut Interner<Audience>,
    ) -> Option<Self> {
        let key = ObjectKey::of(&service.metadata)?;
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let vips = vips(spec);
        let family = spec.ip_families.as_ref().and_then(|all| all.first());
        let readiness = if spec.selector.as_ref().is_none_or(|s| s.is_empty())
            || spec.publish_not_ready_addresses == Some(true)
        {
            Readiness::Slices
        } else {
            Readiness::Pods
        };
        let annotations = service.metadata.annotations.as_ref();
        let annotation = annotations.and_then(|all| all.get(EXPORT_TO));
        let told = ExportTo::of_annotation(annotation.map(String::as_str));
        let by_default = told.is_none();
        // Who wrote something wrong wanted to restrict: no other tenant sees more than meant.
        let told = told.map(|told| told.unwrap_or(ExportTo::own()));
        let audience = told.as_ref().unwrap_or(default).audience(&key.namespace);
        Some(Self {
            audience: audiences.intern(audience),
            by_default,
            host: names::fqdn(&key.namespace, &key.name),
            ipv6: match family {
                Some(family) => family == "IPv6",
                None => vips.first().is_some_and(IpAddr::is_ipv6),
            },
            vips,
            readiness,
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            key,
        })
    }

    pub(crate) fn port(&self, number: u16) -> Option<&PortFacts> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Names of everything that is compiled from this Service.
    pub(crate) fn resource_names(&self) -> impl Iterator<Item = ResourceName> {
        let clusters = self.cluster_names();
        let clusters = clusters.map(|name| ResourceName::new(Kind::Cluster, name));
        let listeners = self.ports.iter().flat_map(|port| self.listener_names(port));
        clusters
            .chain(self.endpoints_names())
            .chain(listeners)
            .chain(self.ports.iter().filter_map(|port| self.route_name(port)))
    }

    /// Names of the endpoints of all ports and arms.
    pub(crate) fn endpoints_names(&self) -> impl Iterator<Item = ResourceName> {
        self.cluster_names()
            .map(|name| ResourceName::new(Kind::Endpoints, name))
    }

    /// Names of the resources that carry weights.
    pub(crate) fn weighted_names(&self) -> impl Iterator<Item = ResourceName> {
        self.ports.iter().flat_map(|port| {
            let listeners = self.listener_names(port);
            let listeners = listeners.filter(|_| port.protocol.may_be_tcp());
            listeners.chain(self.route_name(port))
        })
    }

    fn cluster_names(&self) -> impl Iterator<Item = String> {
        let arms = [None, Some(Arm::Stable), Some(Arm::Candidate)];
        self.ports.iter().flat_map(move |port| {
            arms.into_iter().map(|arm| {
                let name = ClusterName {
                    host: &self.host,
                    port: port.number,
                    arm,
                };
                name.to_string()
            })
        })
    }

    fn listener_names(&self, port: &PortFacts) -> impl Iterator<Item = ResourceName> {
        let number = port.number;
        let vips = self.vips.iter();
        let names = vips.map(move |vip| names::vip_listener(*vip, number));
        names
            .chain([names::host_listener(&self.host, number)])
            .map(|name| ResourceName::new(Kind::Listener, name))
    }

    fn route_name(&self, port: &PortFacts) -> Option<ResourceName> {
        let name = || names::route(&self.host, port.number);
        let http = port.protocol.may_be_http();
        http.then(|| ResourceName::new(Kind::Route, name()))
    }
}

/// `None` stands for headless in Kubernetes, and does not parse as an address.
fn vips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let one = spec.cluster_ip.iter();
    let all = spec.cluster_ips.iter().flatten();
    let mut vips = Vec::new();
    for vip in one.chain(all).filter_map(|text| text.parse().ok()) {
        if !vips.contains(&vip) {
            vips.push(vip);
        }
    }
    vips
}

fn port(port: &ServicePort) -> Option<PortFacts> {
    if port.protocol.as_deref().is_some_and(|p| p != "TCP") {
        return None;
    }
    Some(PortFacts {
        number: u16::try_from(port.port).ok().filter(|n| *n > 0)?,
        name: port.name.clone().unwrap_or_default(),
        protocol: PortProtocol::of(port),
    })
}
