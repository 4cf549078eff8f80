//! What a proxy sees of a world.

use std::{fmt::Debug, sync::Arc};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster,
        core::v3::{address::Address, socket_address::PortSpecifier},
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
        listener::v3::{Listener, filter::ConfigType},
        route::v3::{
            RouteAction, RouteConfiguration, route::Action, route_action::ClusterSpecifier,
        },
    },
    extensions::filters::network::{
        http_connection_manager::v3::HttpConnectionManager,
        tcp_proxy::v3::{TcpProxy, tcp_proxy},
    },
};
use sluice_mesh::World;
use sluice_xds::{
    Kind, Resource, Resources,
    metadata::{EndpointFacts, RouteFacts},
    unpack,
};

use crate::fixtures::NAMESPACE;

/// The resource as the Service's own namespace sees it.
pub fn get(world: &World, kind: Kind, name: &str) -> Option<Arc<Resource>> {
    world.sight(NAMESPACE).get(kind, name)
}

pub fn version(world: &World, kind: Kind, name: &str) -> Option<String> {
    get(world, kind, name).map(|resource| resource.version.clone())
}

fn message<M: prost::Message + prost::Name + Default>(
    world: &World,
    kind: Kind,
    name: &str,
) -> Option<M> {
    get(world, kind, name).map(|r| unpack(&r.body).unwrap())
}

pub fn listener(world: &World, name: &str) -> Option<Listener> {
    message(world, Kind::Listener, name)
}

pub fn cluster(world: &World, name: &str) -> Option<Cluster> {
    message(world, Kind::Cluster, name)
}

/// `ADDRESS:PORT` of each endpoint; none when there is no such resource.
pub fn endpoints(world: &World, name: &str) -> Option<Vec<String>> {
    let found = assignment(world, name)?;
    Some(found.iter().map(address).collect())
}

pub fn assignment(world: &World, name: &str) -> Option<Vec<LbEndpoint>> {
    let message: ClusterLoadAssignment = message(world, Kind::Endpoints, name)?;
    assert_eq!(message.cluster_name, name);
    let localities = message.endpoints.into_iter();
    Some(
        localities
            .flat_map(|locality| locality.lb_endpoints)
            .collect(),
    )
}

fn address(endpoint: &LbEndpoint) -> String {
    let Some(HostIdentifier::Endpoint(inner)) = &endpoint.host_identifier else {
        panic!("no endpoint");
    };
    let address = inner.address.as_ref().unwrap().address.as_ref().unwrap();
    let Address::SocketAddress(socket) = address else {
        panic!("no socket address");
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
        panic!("no port");
    };
    format!("{}:{port}", socket.address)
}

/// Cluster and weight of each branch; 100 for the only one.
pub fn route(world: &World, name: &str) -> Option<Vec<(String, u32)>> {
    match route_action(world, name)?.cluster_specifier.unwrap() {
        ClusterSpecifier::Cluster(name) => Some(vec![(name, 100)]),
        ClusterSpecifier::WeightedClusters(weighted) => {
            let clusters = weighted.clusters.into_iter();
            Some(
                clusters
                    .map(|c| (c.name, c.weight.unwrap().value))
                    .collect(),
            )
        }
        other => panic!("{other:?}"),
    }
}

fn route_action(world: &World, name: &str) -> Option<RouteAction> {
    let message: RouteConfiguration = message(world, Kind::Route, name)?;
    let route = message
        .virtual_hosts
        .into_iter()
        .next()?
        .routes
        .into_iter()
        .next()?;
    match route.action? {
        Action::Route(action) => Some(action),
        other => panic!("{other:?}"),
    }
}

pub fn route_facts(world: &World, name: &str) -> RouteFacts {
    let message: RouteConfiguration = message(world, Kind::Route, name).unwrap();
    let metadata = message.virtual_hosts[0].routes[0].metadata.clone();
    RouteFacts::from_metadata(&metadata.unwrap()).unwrap()
}

/// Branches of the TCP part of a listener.
pub fn tcp(listener: &Listener) -> Option<Vec<(String, u32)>> {
    let chains = listener.filter_chains.iter();
    let chains = chains.chain(&listener.default_filter_chain);
    let mut configs = chains
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| match filter.config_type.as_ref()? {
            ConfigType::TypedConfig(any) => unpack::<TcpProxy>(any).ok(),
            ConfigType::ConfigDiscovery(_) => None,
        });
    match configs.next()?.cluster_specifier? {
        tcp_proxy::ClusterSpecifier::Cluster(name) => Some(vec![(name, 100)]),
        tcp_proxy::ClusterSpecifier::WeightedClusters(weighted) => {
            let clusters = weighted.clusters.into_iter();
            Some(clusters.map(|c| (c.name, c.weight)).collect())
        }
    }
}

/// Everything of a resource that is not a default, with its version; metadata and packed
/// filters apart, since maps have no order.
pub fn render(kind: Kind, resource: &Resource) -> String {
    let mut out = vec![format!("version {}", resource.version)];
    match kind {
        Kind::Listener => {
            let mut message: Listener = unpack(&resource.body).unwrap();
            let mut packed = Vec::new();
            let chains = message.filter_chains.iter_mut();
            for chain in chains.chain(&mut message.default_filter_chain) {
                for filter in &mut chain.filters {
                    let Some(ConfigType::TypedConfig(any)) = filter.config_type.take() else {
                        panic!("no config");
                    };
                    packed.push(match unpack::<HttpConnectionManager>(&any) {
                        Ok(manager) => debug(&manager),
                        Err(_) => debug(&unpack::<TcpProxy>(&any).unwrap()),
                    });
                }
            }
            let facts = message.metadata.take();
            out.push(debug(&message));
            out.extend(packed);
            out.extend(facts.map(|m| debug(&RouteFacts::from_metadata(&m).unwrap())));
        }
        Kind::Route => {
            let mut message: RouteConfiguration = unpack(&resource.body).unwrap();
            let facts = message.virtual_hosts[0].routes[0].metadata.take();
            out.push(debug(&message));
            out.extend(facts.map(|m| debug(&RouteFacts::from_metadata(&m).unwrap())));
        }
        Kind::Cluster => out.push(debug(&unpack::<Cluster>(&resource.body).unwrap())),
        Kind::Endpoints => {
            let mut message: ClusterLoadAssignment = unpack(&resource.body).unwrap();
            let mut facts = Vec::new();
            for endpoint in message
                .endpoints
                .iter_mut()
                .flat_map(|l| &mut l.lb_endpoints)
            {
                let metadata = endpoint.metadata.take().unwrap();
                facts.push(debug(&EndpointFacts::from_metadata(&metadata).unwrap()));
            }
            out.push(debug(&message));
            out.extend(facts);
        }
    }
    out.join("\n")
}

fn debug(value: &impl Debug) -> String {
    const DEFAULTS: [&str; 6] = [": None,", ": [],", ": 0,", ": \"\",", ": {},", ": false,"];
    let text = format!("{value:#?}");
    let lines = text
        .lines()
        .filter(|line| !DEFAULTS.iter().any(|end| line.ends_with(end)));
    lines.collect::<Vec<_>>().join("\n")
}
