//! From a name to the plan of its resource.

use std::{collections::BTreeMap, sync::Arc};

use sluice_xds::{
    Kind,
    metadata::{EndpointFacts, RouteFacts},
    names::{Arm, ClusterName, ListenerHost, ListenerName, parse_fqdn, parse_route, route},
};

use crate::{
    World,
    facts::{
        Member, ObjectKey, PodFacts, PortFacts, PortProtocol, Readiness, ServiceFacts, SplitFacts,
    },
    plan::{ClusterPlan, EndpointPlan, EndpointsPlan, Forward, ListenerPlan, Plan, RoutePlan},
};

/// How long a request may run before it counts as hung, where no split says so: ms.
const HUNG_AFTER_MS: i64 = 10_000;

/// A port of a Service that a name stands for.
type Port<'a> = (&'a ServiceFacts, &'a PortFacts);

impl World {
    /// The plan of a resource; none when it does not exist.
    pub(crate) fn resolve(&self, kind: Kind, name: &str) -> Option<Plan> {
        match kind {
            Kind::Listener => self.listener(name).map(Plan::Listener),
            Kind::Route => self.route(name).map(Plan::Route),
            Kind::Cluster => self.cluster(name).map(Plan::Cluster),
            Kind::Endpoints => self.endpoints(name).map(Plan::Endpoints),
        }
    }

    /// The Service and port that a listener or route is of.
    pub(crate) fn port_of(&self, kind: Kind, name: &str) -> Option<Port<'_>> {
        match kind {
            Kind::Listener => self.listener_port(&ListenerName::parse(name)?),
            Kind::Route => {
                let (host, port) = parse_route(name)?;
                self.host_port(host, port)
            }
            Kind::Cluster | Kind::Endpoints => {
                let name = ClusterName::parse(name)?;
                self.host_port(name.host, name.port)
            }
        }
    }

    fn listener_port(&self, name: &ListenerName<'_>) -> Option<Port<'_>> {
        let service = match &name.host {
            ListenerHost::Address(vip) => self.services.get(self.vips.get(vip)?)?,
            ListenerHost::Name(host) => return self.host_port(host, name.port),
        };
        Some((service, service.port(name.port)?))
    }

    fn host_port(&self, host: &str, port: u16) -> Option<Port<'_>> {
        let (namespace, name) = parse_fqdn(host)?;
        let service = self.services.get(&ObjectKey::new(namespace, name))?;
        Some((service, service.port(port)?))
    }

    fn listener(&self, name: &str) -> Option<ListenerPlan> {
        let (service, port) = self.port_of(Kind::Listener, name)?;
        let tcp = port.protocol.may_be_tcp();
        let http = port.protocol.may_be_http();
        Some(ListenerPlan {
            name: name.to_owned(),
            http: http.then(|| route(&service.host, port.number)),
            tcp: tcp.then(|| self.forward(service, port)),
        })
    }

    fn route(&self, name: &str) -> Option<RoutePlan> {
        let (service, port) = self.port_of(Kind::Route, name)?;
        port.protocol.may_be_http().then(|| RoutePlan {
            name: name.to_owned(),
            forward: self.forward(service, port),
        })
    }

    fn forward(&self, service: &ServiceFacts, port: &PortFacts) -> Forward {
        let split = self.split(&service.key);
        let spec = split.map(|split| &split.spec);
        Forward {
            host: service.host.clone(),
            port: port.number,
            candidate_weight: split.map(|split| split.candidate_weight()),
            facts: RouteFacts {
                service: service.key.to_string(),
                revision: spec.map_or_else(String::new, |spec| spec.revision.clone()),
                fence: split.map_or(0, |split| split.fence()),
                leased: spec.is_some_and(|spec| spec.leased),
                hung_after_ms: spec.map_or(HUNG_AFTER_MS, |spec| spec.hung_after_ms),
            },
        }
    }

    fn cluster(&self, name: &str) -> Option<ClusterPlan> {
        let (_, port) = self.port_of(Kind::Cluster, name)?;
        Some(ClusterPlan {
            name: name.to_owned(),
            http2: port.protocol == PortProtocol::Http2,
        })
    }

    fn endpoints(&self, name: &str) -> Option<EndpointsPlan> {
        let (service, port) = self.port_of(Kind::Endpoints, name)?;
        let arm = ClusterName::parse(name)?.arm;
        let split = self.split(&service.key);
        // By address: a pod may be in two slices for a moment, and the order has to be the same
        // on every replica.
        let mut found = BTreeMap::new();
        let slices = self.slices_of.get(&service.key).into_iter().flatten();
        let slices = slices.filter_map(|key| self.slices.get(key));
        for slice in slices.filter(|slice| slice.ipv6 == service.ipv6) {
            let targets = slice.ports.iter().filter(|(name, _)| *name == port.name);
            for (_, target) in targets {
                for member in &slice.members {
                    let pod = member.pod.as_ref().and_then(|key| self.pods.get(key));
                    if serves(service, split, arm, member, pod) {
                        found.insert((member.address, *target), self.facts_of(member, pod));
                    }
                }
            }
        }
        let endpoints = found
            .into_iter()
            .map(|((address, port), facts)| EndpointPlan {
                address,
                port,
                facts,
            });
        Some(EndpointsPlan {
            name: name.to_owned(),
            endpoints: endpoints.collect(),
        })
    }

    fn facts_of(&self, member: &Member, pod: Option<&PodFacts>) -> EndpointFacts {
        match (&member.pod, pod) {
            (Some(key), Some(pod)) => pod.template.endpoint(key, &self.trust_domain),
            _ => EndpointFacts::default(),
        }
    }
}

/// Whether an endpoint belongs to the arm, or to the whole Service, at present.
fn serves(
    service: &ServiceFacts,
    split: Option<&Arc<SplitFacts>>,
    arm: Option<Arm>,
    member: &Member,
    pod: Option<&PodFacts>,
) -> bool {
    if pod.is_some_and(|pod| pod.deleting) {
        return false;
    }
    let ready = match (service.readiness, pod) {
        (Readiness::Pods, Some(pod)) => pod.ready,
        _ => member.ready,
    };
    let Some(arm) = arm else {
        return ready;
    };
    let Some(split) = split else {
        return ready && arm == Arm::Stable;
    };
    match (&member.pod, pod) {
        (key, Some(pod)) => {
            let gated = || split.includes_gated(arm) && pod.containers_ready;
            let is_excluded = || key.as_ref().is_some_and(|key| split.excludes(arm, key));
            split.arm_of(&pod.template.labels) == arm && (ready || gated()) && !is_excluded()
        }
        // Which arm a pod is of is only known by its labels.
        (Some(_), None) => false,
        (None, None) => ready && arm == Arm::Stable,
    }
}
