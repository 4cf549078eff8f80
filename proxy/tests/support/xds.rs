//! Resources as the control plane sends them.

use std::{collections::HashMap, net::SocketAddr};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType},
            },
            core::v3::{
                Address, Http2ProtocolOptions, Metadata, SocketAddress,
                address::Address as AddressKind, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
            listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, filter::ConfigType},
            route::v3::{
                Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
                route::Action, route_action::ClusterSpecifier, route_match::PathSpecifier,
                weighted_cluster::ClusterWeight,
            },
        },
        extensions::{
            filters::network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
                },
                tcp_proxy::v3::{
                    TcpProxy,
                    tcp_proxy::{
                        ClusterSpecifier as TcpSpecifier, WeightedCluster as TcpWeighted,
                        weighted_cluster::ClusterWeight as TcpWeight,
                    },
                },
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions,
                    explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use sluice_xds::{
    metadata::{EndpointFacts, RouteFacts},
    pack,
};

fn chain(config: Any) -> FilterChain {
    let filter = Filter {
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Filter::default()
    };
    FilterChain {
        filters: vec![filter],
        ..FilterChain::default()
    }
}

fn http_filter(route: &str) -> Any {
    let rds = Rds {
        route_config_name: route.to_owned(),
        ..Rds::default()
    };
    pack(&HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..HttpConnectionManager::default()
    })
}

fn tcp_filter(branches: &[(&str, u32)]) -> Any {
    let clusters = branches.iter().map(|(name, weight)| TcpWeight {
        name: (*name).to_owned(),
        weight: *weight,
        ..TcpWeight::default()
    });
    let clusters = TcpWeighted {
        clusters: clusters.collect(),
    };
    pack(&TcpProxy {
        cluster_specifier: Some(TcpSpecifier::WeightedClusters(clusters)),
        ..TcpProxy::default()
    })
}

pub fn http_listener(route: &str) -> Any {
    pack(&Listener {
        filter_chains: vec![chain(http_filter(route))],
        ..Listener::default()
    })
}

pub fn tcp_listener(branches: &[(&str, u32)], facts: Option<&RouteFacts>) -> Any {
    pack(&Listener {
        filter_chains: vec![chain(tcp_filter(branches))],
        metadata: facts.map(RouteFacts::to_metadata),
        ..Listener::default()
    })
}

pub fn detect_listener(route: &str, branches: &[(&str, u32)], facts: Option<&RouteFacts>) -> Any {
    let mut http = chain(http_filter(route));
    http.filter_chain_match = Some(FilterChainMatch {
        application_protocols: vec!["http/1.1".to_owned(), "h2c".to_owned()],
        ..FilterChainMatch::default()
    });
    pack(&Listener {
        filter_chains: vec![http],
        default_filter_chain: Some(chain(tcp_filter(branches))),
        metadata: facts.map(RouteFacts::to_metadata),
        ..Listener::default()
    })
}

pub fn route(branches: &[(&str, u32)], facts: Option<&RouteFacts>) -> Any {
    let metadata: Option<Metadata> = facts.map(RouteFacts::to_metadata);
    let clusters = branches.iter().map(|(name, weight)| ClusterWeight {
        name: (*name).to_owned(),
        weight: Some(UInt32Value { value: *weight }),
        ..ClusterWeight::default()
    });
    let weighted = WeightedCluster {
        clusters: clusters.collect(),
        ..WeightedCluster::default()
    };
    let specifier = match branches {
        [(only, _)] => ClusterSpecifier::Cluster((*only).to_owned()),
        _ => ClusterSpecifier::WeightedClusters(weighted),
    };
    let action = RouteAction {
        cluster_specifier: Some(specifier),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        metadata,
        ..Route::default()
    };
    pack(&RouteConfiguration {
        virtual_hosts: vec![VirtualHost {
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    })
}

pub fn cluster(name: &str, http2: bool) -> Any {
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                    Http2ProtocolOptions::default(),
                )),
            },
        )),
        ..HttpProtocolOptions::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = http2.then(|| (key.to_owned(), pack(&options)));
    pack(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        typed_extension_protocol_options: options.into_iter().collect::<HashMap<_, _>>(),
        ..Cluster::default()
    })
}

pub fn endpoints(name: &str, addresses: &[SocketAddr]) -> Any {
    let endpoint = |address: &SocketAddr| {
        let facts = EndpointFacts {
            pod: address.to_string(),
            ..EndpointFacts::default()
        };
        let socket = SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..SocketAddress::default()
        };
        let address = Address {
            address: Some(AddressKind::SocketAddress(socket)),
        };
        LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                address: Some(address),
                ..Endpoint::default()
            })),
            metadata: Some(facts.to_metadata()),
            ..LbEndpoint::default()
        }
    };
    pack(&ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: addresses.iter().map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    })
}
