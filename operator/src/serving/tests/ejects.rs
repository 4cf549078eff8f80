use envoy_types::pb::envoy::{
    config::route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
    service::discovery::v3::DeltaDiscoveryResponse,
};
use sluice_evidence::relay::Eject;
use sluice_mesh::{Input, ObjectKey};
use sluice_xds::{Kind, metadata::RouteFacts, unpack};

use super::{
    eject,
    harness::{Ads, Harness},
};

const ROUTE: &str = "reviews.bookinfo.svc.cluster.local:80";

/// A proxy that routes by this fence and weight.
async fn start(fence: i64, weight: i32) -> (Harness, Ads) {
    let harness = Harness::new();
    harness.reviews();
    harness.split(fence, weight);
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Route, &[ROUTE]).await;
    assert_eq!(routes_by(&ads.next().await), (fence, weight.unsigned_abs()));
    (harness, ads)
}

/// Fence and candidate's weight of the one route in a response.
fn routes_by(response: &DeltaDiscoveryResponse) -> (i64, u32) {
    assert_eq!(response.resources.len(), 1);
    let resource = response.resources[0].resource.as_ref().unwrap();
    let routes: RouteConfiguration = unpack(resource).unwrap();
    let route = &routes.virtual_hosts[0].routes[0];
    let facts = RouteFacts::from_metadata(route.metadata.as_ref().unwrap()).unwrap();
    let Some(Action::Route(action)) = &route.action else {
        panic!("{route:?}");
    };
    let Some(ClusterSpecifier::WeightedClusters(clusters)) = &action.cluster_specifier else {
        panic!("{action:?}");
    };
    (facts.fence, clusters.clusters[1].weight.unwrap().value)
}

#[tokio::test(start_paused = true)]
async fn an_ejected_revision_gets_no_requests_until_a_higher_fence_comes() {
    let (harness, mut ads) = start(7, 10).await;
    harness.hub.eject(&[eject(7)]);
    assert_eq!(routes_by(&ads.next().await), (0, 0));
    // Told again each second by the leader, and by a watch that starts over.
    harness.hub.eject(&[eject(7)]);
    harness.hub.eject(&[]);
    harness.split(7, 10);
    assert!(ads.is_silent().await);
    let mut late = harness.ads("bookinfo/late").await.unwrap();
    late.subscribe(Kind::Route, &[ROUTE]).await;
    assert_eq!(
        routes_by(&late.next().await),
        (0, 0),
        "a proxy that comes later"
    );
    harness.split(8, 5);
    assert_eq!(routes_by(&ads.next().await), (8, 5));
    assert!(harness.hub.ejects().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_old_eject_cannot_touch_a_newer_fence() {
    let (harness, mut ads) = start(8, 10).await;
    harness.hub.eject(&[eject(7)]);
    assert!(ads.is_silent().await);
    assert!(harness.hub.ejects().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_eject_of_another_revision_changes_nothing() {
    let (harness, mut ads) = start(7, 10).await;
    harness.hub.eject(&[Eject {
        revision: "r1".to_owned(),
        ..eject(7)
    }]);
    assert!(ads.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn an_eject_ends_with_its_split() {
    let (harness, mut ads) = start(7, 10).await;
    harness.hub.eject(&[eject(7)]);
    assert_eq!(routes_by(&ads.next().await), (0, 0));
    let key = ObjectKey::new("bookinfo", "reviews");
    harness.hub.remove(Input::Split, &key);
    assert!(harness.hub.ejects().is_empty());
}
