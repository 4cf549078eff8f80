//! Listeners.

use envoy_types::pb::{
    envoy::{
        config::listener::v3::{
            Filter, FilterChain, FilterChainMatch, Listener, filter::ConfigType,
        },
        extensions::filters::{
            http::router::v3::Router,
            network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds,
                    http_connection_manager::RouteSpecifier, http_filter,
                },
                tcp_proxy::v3::{
                    TcpProxy,
                    tcp_proxy::{
                        ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
                    },
                },
            },
        },
    },
    google::protobuf::Any,
};
use sluice_xds::pack;

use super::ads;
use crate::plan::{Forward, ListenerPlan};

/// How HTTP shows itself on a port that does not say what it speaks.
const HTTP_PROTOCOLS: [&str; 2] = ["http/1.1", "h2c"];

pub(crate) fn listener(plan: &ListenerPlan) -> Any {
    let http = plan.http.as_ref().map(|route| chain(http_filter(route)));
    let tcp = plan.tcp.as_ref().map(|tcp| chain(tcp_filter(plan, tcp)));
    let (filter_chains, default_filter_chain) = match (http, tcp) {
        (Some(http), Some(tcp)) => (vec![for_http_only(http)], Some(tcp)),
        (one, other) => (one.or(other).into_iter().collect(), None),
    };
    pack(&Listener {
        name: plan.name.clone(),
        filter_chains,
        default_filter_chain,
        metadata: plan.tcp.as_ref().map(|tcp| tcp.facts.to_metadata()),
        ..Listener::default()
    })
}

fn chain(filter: Filter) -> FilterChain {
    FilterChain {
        filters: vec![filter],
        ..FilterChain::default()
    }
}

fn for_http_only(chain: FilterChain) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: HTTP_PROTOCOLS.map(str::to_owned).into(),
            ..FilterChainMatch::default()
        }),
        ..chain
    }
}

fn http_filter(route: &str) -> Filter {
    let manager = HttpConnectionManager {
        stat_prefix: route.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: route.to_owned(),
        })),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack(
                &Router::default(),
            ))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    filter(
        "envoy.filters.network.http_connection_manager",
        pack(&manager),
    )
}

fn tcp_filter(plan: &ListenerPlan, tcp: &Forward) -> Filter {
    let clusters = match tcp.arms() {
        None => ClusterSpecifier::Cluster(tcp.whole()),
        Some(arms) => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: arms
                .map(|(name, weight)| ClusterWeight {
                    name,
                    weight,
                    metadata_match: None,
                })
                .into(),
        }),
    };
    let proxy = TcpProxy {
        stat_prefix: plan.name.clone(),
        cluster_specifier: Some(clusters),
        ..TcpProxy::default()
    };
    filter("envoy.filters.network.tcp_proxy", pack(&proxy))
}

fn filter(name: &str, config: Any) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}
