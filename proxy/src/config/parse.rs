//! The subset of Envoy's resources that this proxy carries out. Whatever it does not carry out
//! is refused with a reason, never ignored.

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType},
        core::v3::{
            HealthStatus, Metadata, address::Address as AddressKind, socket_address::PortSpecifier,
        },
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
        listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
        route::v3::{
            RouteConfiguration, route::Action, route_action::ClusterSpecifier,
            route_match::PathSpecifier,
        },
    },
    extensions::{
        filters::network::{
            http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::RouteSpecifier,
            },
            tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier as TcpClusters},
        },
        upstreams::http::v3::{
            HttpProtocolOptions, http_protocol_options::UpstreamProtocolOptions,
            http_protocol_options::explicit_http_config::ProtocolConfig,
        },
    },
};
use sluice_xds::{
    metadata::{EndpointFacts, MetadataError, RouteFacts},
    names::{Arm, ClusterName, parse_fqdn},
    unpack,
};

use super::snapshot::{Endpoint, ServiceName};

/// Why a resource is refused, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

type Parsed<T> = Result<T, Refused>;

fn refuse<T>(reason: impl Into<String>) -> Parsed<T> {
    Err(Refused(reason.into()))
}

/// A listener before its routes are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ListenerSpec {
    Http(String),
    Tcp(Arc<RouteSpec>),
    Detect { http: String, tcp: Arc<RouteSpec> },
}

/// A route before its clusters are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RouteSpec {
    pub branches: Vec<BranchSpec>,
    pub split: Option<RouteFacts>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct BranchSpec {
    pub cluster: String,
    pub weight: u32,
    pub arm: Option<Arm>,
}

/// A cluster before its endpoints are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClusterSpec {
    pub service: ServiceName,
    pub http2: bool,
    pub endpoints: String,
}

pub(super) fn listener(message: &Listener) -> Parsed<ListenerSpec> {
    let default = message.default_filter_chain.as_ref().map(only_filter);
    match (message.filter_chains.as_slice(), default) {
        ([chain], None) => match network_filter(only_filter(chain)?, message.metadata.as_ref())? {
            NetworkFilter::Http(route) => Ok(ListenerSpec::Http(route)),
            NetworkFilter::Tcp(route) => Ok(ListenerSpec::Tcp(route)),
        },
        ([chain], Some(default)) => {
            let protocols = chain.filter_chain_match.as_ref();
            let http = protocols.map(|m| m.application_protocols.as_slice());
            if http.is_none_or(|protocols| protocols.is_empty()) {
                return refuse(
                    "beside a default chain, a chain must match application_protocols http/1.1 and h2c",
                );
            }
            let metadata = message.metadata.as_ref();
            let first = network_filter(only_filter(chain)?, metadata)?;
            let second = network_filter(default?, metadata)?;
            match (first, second) {
                (NetworkFilter::Http(http), NetworkFilter::Tcp(tcp)) => {
                    Ok(ListenerSpec::Detect { http, tcp })
                }
                _ => refuse("with two chains the first must be HTTP and the default TCP"),
            }
        }
        _ => refuse("one filter chain, or one and a default, are supported"),
    }
}

fn only_filter(chain: &FilterChain) -> Parsed<&Filter> {
    if chain.transport_socket.is_some() {
        return refuse("a transport_socket on a listener is not supported");
    }
    match chain.filters.as_slice() {
        [filter] => Ok(filter),
        filters => refuse(format!(
            "a chain of {} filters: exactly one is supported",
            filters.len()
        )),
    }
}

enum NetworkFilter {
    Http(String),
    Tcp(Arc<RouteSpec>),
}

fn network_filter(filter: &Filter, metadata: Option<&Metadata>) -> Parsed<NetworkFilter> {
    let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
        return refuse(format!("filter `{}` has no typed_config", filter.name));
    };
    if let Ok(manager) = unpack::<HttpConnectionManager>(config) {
        let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else {
            return refuse("an HttpConnectionManager needs `rds`");
        };
        return Ok(NetworkFilter::Http(rds.route_config_name));
    }
    if let Ok(proxy) = unpack::<TcpProxy>(config) {
        let branches = match proxy.cluster_specifier {
            Some(TcpClusters::Cluster(name)) => vec![(name, 1)],
            Some(TcpClusters::WeightedClusters(weighted)) => {
                let clusters = weighted.clusters.into_iter();
                clusters.map(|c| (c.name, c.weight)).collect()
            }
            None => return refuse("a TcpProxy needs a cluster"),
        };
        return Ok(NetworkFilter::Tcp(Arc::new(route_spec(
            branches, metadata,
        )?)));
    }
    refuse(format!("filter `{}` is not supported", config.type_url))
}

pub(super) fn route(message: &RouteConfiguration) -> Parsed<RouteSpec> {
    let [host] = message.virtual_hosts.as_slice() else {
        return refuse("exactly one virtual host is supported");
    };
    if host.domains != ["*"] {
        return refuse("the virtual host must serve `*`");
    }
    let [route] = host.routes.as_slice() else {
        return refuse("exactly one route is supported");
    };
    let prefix = route
        .r#match
        .as_ref()
        .and_then(|m| m.path_specifier.as_ref());
    if !matches!(prefix, Some(PathSpecifier::Prefix(prefix)) if prefix == "/") {
        return refuse("the route must match the prefix `/`");
    }
    let Some(Action::Route(action)) = &route.action else {
        return refuse("only the action `route` is supported");
    };
    let branches = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
            .clusters
            .iter()
            .map(|c| (c.name.clone(), c.weight.as_ref().map_or(0, |w| w.value)))
            .collect(),
        _ => return refuse("the route needs `cluster` or `weighted_clusters`"),
    };
    route_spec(branches, route.metadata.as_ref())
}

fn route_spec(branches: Vec<(String, u32)>, metadata: Option<&Metadata>) -> Parsed<RouteSpec> {
    let total: u64 = branches.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return refuse(format!(
            "the weights sum to {total}: at least one cluster must have one"
        ));
    }
    let branches: Vec<_> = branches
        .into_iter()
        .map(|(cluster, weight)| BranchSpec {
            arm: ClusterName::parse(&cluster).and_then(|name| name.arm),
            cluster,
            weight,
        })
        .collect();
    Ok(RouteSpec {
        split: split(&branches, metadata)?,
        branches,
    })
}

/// The split of a route over the two arms; any other route has none.
fn split(branches: &[BranchSpec], metadata: Option<&Metadata>) -> Parsed<Option<RouteFacts>> {
    let has = |arm| branches.iter().any(|branch| branch.arm == Some(arm));
    if branches.len() != 2 || !Arm::ALL.into_iter().all(has) {
        return Ok(None);
    }
    let facts = RouteFacts::from_metadata(metadata.unwrap_or(&Metadata::default()));
    match facts {
        Ok(facts) => Ok(Some(facts)),
        Err(error) => refuse(format!("a route over two arms needs its split: {error}")),
    }
}

pub(super) fn cluster(message: &Cluster) -> Parsed<ClusterSpec> {
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    if message.cluster_discovery_type != Some(eds) {
        return refuse("only clusters of type EDS are supported");
    }
    if message.transport_socket.is_some() {
        return refuse("a transport_socket on a cluster is not supported");
    }
    let Some(name) = ClusterName::parse(&message.name) else {
        return refuse("the name must be outbound|PORT|ARM|HOST");
    };
    let alias = message.eds_cluster_config.as_ref();
    let alias = alias.map_or("", |eds| eds.service_name.as_str());
    let (namespace, service) = parse_fqdn(name.host).unwrap_or_default();
    Ok(ClusterSpec {
        service: ServiceName {
            host: name.host.to_owned(),
            name: service.to_owned(),
            namespace: namespace.to_owned(),
        },
        http2: http2(message)?,
        endpoints: if alias.is_empty() {
            &message.name
        } else {
            alias
        }
        .to_owned(),
    })
}

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn http2(message: &Cluster) -> Parsed<bool> {
    let Some(options) = message
        .typed_extension_protocol_options
        .get(PROTOCOL_OPTIONS)
    else {
        return Ok(false);
    };
    let options: HttpProtocolOptions = unpack(options).or_else(|e| refuse(e.to_string()))?;
    match options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match explicit.protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(_)) => Ok(true),
                Some(ProtocolConfig::HttpProtocolOptions(_)) | None => Ok(false),
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => refuse("HTTP/3 is not supported"),
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) | None => Ok(false),
        Some(UpstreamProtocolOptions::AutoConfig(_)) => refuse("auto_config is not supported"),
    }
}

/// Endpoints that may get requests: health UNKNOWN or HEALTHY.
pub(super) fn endpoints(message: &ClusterLoadAssignment) -> Parsed<Arc<[Arc<Endpoint>]>> {
    message
        .endpoints
        .iter()
        .flat_map(|locality| &locality.lb_endpoints)
        .filter(|endpoint| usable(endpoint))
        .map(|one| endpoint(one).map(Arc::new))
        .collect()
}

fn usable(endpoint: &LbEndpoint) -> bool {
    let status = HealthStatus::try_from(endpoint.health_status);
    matches!(status, Ok(HealthStatus::Unknown | HealthStatus::Healthy))
}

fn endpoint(message: &LbEndpoint) -> Parsed<Endpoint> {
    let Some(HostIdentifier::Endpoint(inner)) = &message.host_identifier else {
        return refuse("an endpoint needs an address");
    };
    let address = inner.address.as_ref().and_then(|a| a.address.as_ref());
    let Some(AddressKind::SocketAddress(socket)) = address else {
        return refuse("an endpoint needs a socket_address");
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return refuse("an endpoint needs a port_value");
    };
    let ip = socket.address.parse();
    let (Ok(ip), Ok(port)) = (ip, u16::try_from(port)) else {
        return refuse(format!("`{}:{port}` is no address", socket.address));
    };
    let facts = match message.metadata.as_ref().map(EndpointFacts::from_metadata) {
        Some(Ok(facts)) => facts,
        None | Some(Err(MetadataError::Absent)) => EndpointFacts::default(),
        Some(Err(error)) => return refuse(error.to_string()),
    };
    Ok(Endpoint {
        address: SocketAddr::new(ip, port),
        facts,
    })
}
