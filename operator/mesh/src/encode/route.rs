//! Routes.

use envoy_types::pb::{
    envoy::config::route::v3::{
        Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
        route::Action, route_action::ClusterSpecifier, route_match::PathSpecifier,
        weighted_cluster::ClusterWeight,
    },
    google::protobuf::{Any, Duration, UInt32Value},
};
use sluice_xds::pack;

use crate::plan::{Forward, RoutePlan};

pub(crate) fn route(plan: &RoutePlan) -> Any {
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        metadata: Some(plan.forward.facts.to_metadata()),
        action: Some(Action::Route(action(&plan.forward))),
        ..Route::default()
    };
    pack(&RouteConfiguration {
        name: plan.name.clone(),
        virtual_hosts: vec![VirtualHost {
            name: plan.name.clone(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    })
}

fn action(forward: &Forward) -> RouteAction {
    let clusters = match forward.arms() {
        None => ClusterSpecifier::Cluster(forward.whole()),
        Some(arms) => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: arms.map(|(name, weight)| cluster(name, weight)).into(),
            ..WeightedCluster::default()
        }),
    };
    RouteAction {
        cluster_specifier: Some(clusters),
        // Absent would mean 15 s to Envoy; users of a mesh expect none.
        timeout: Some(Duration::default()),
        ..RouteAction::default()
    }
}

fn cluster(name: String, weight: u32) -> ClusterWeight {
    ClusterWeight {
        name,
        weight: Some(UInt32Value { value: weight }),
        ..ClusterWeight::default()
    }
}
