//! Clusters and their endpoints.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy},
            },
            core::v3::{
                Address, HealthStatus, Http2ProtocolOptions, SocketAddress,
                address::Address as AddressKind, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::{Any, Duration},
};
use sluice_xds::pack;

use super::ads;
use crate::plan::{ClusterPlan, EndpointPlan, EndpointsPlan};

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Istio's default.
const CONNECT_TIMEOUT_SECONDS: i64 = 10;

pub(crate) fn cluster(plan: &ClusterPlan) -> Any {
    pack(&Cluster {
        name: plan.name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: String::new(),
        }),
        connect_timeout: Some(Duration {
            seconds: CONNECT_TIMEOUT_SECONDS,
            nanos: 0,
        }),
        lb_policy: LbPolicy::LeastRequest.into(),
        typed_extension_protocol_options: if plan.http2 { http2() } else { HashMap::new() },
        ..Cluster::default()
    })
}

fn http2() -> HashMap<String, Any> {
    let http2 = ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(http2),
            },
        )),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(PROTOCOL_OPTIONS.to_owned(), pack(&options))])
}

pub(crate) fn endpoints(plan: &EndpointsPlan) -> Any {
    let locality = LocalityLbEndpoints {
        lb_endpoints: plan.endpoints.iter().map(endpoint).collect(),
        ..LocalityLbEndpoints::default()
    };
    let filled = !plan.endpoints.is_empty();
    pack(&ClusterLoadAssignment {
        cluster_name: plan.name.clone(),
        endpoints: filled.then_some(locality).into_iter().collect(),
        ..ClusterLoadAssignment::default()
    })
}

fn endpoint(plan: &EndpointPlan) -> LbEndpoint {
    let socket = SocketAddress {
        address: plan.address.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(plan.port.into())),
        ..SocketAddress::default()
    };
    let endpoint = Endpoint {
        address: Some(Address {
            address: Some(AddressKind::SocketAddress(socket)),
        }),
        ..Endpoint::default()
    };
    LbEndpoint {
        health_status: HealthStatus::Healthy.into(),
        metadata: Some(plan.facts.to_metadata()),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    }
}
