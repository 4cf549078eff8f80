use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use sluice_mesh::{Input, ObjectKey};
use sluice_xds::Kind;
use tokio::time::Instant;
use tonic::{Code, Request};

use super::harness::{Harness, authorize, parse, pod, service, slice};

const LISTENER: &str = "outbound/10.96.0.7:80";
const ROUTE: &str = "reviews.bookinfo.svc.cluster.local:80";
const ENDPOINTS: &str = "outbound|80||reviews.bookinfo.svc.cluster.local";

#[tokio::test]
async fn a_name_is_answered_when_it_is_asked_for_and_pushed_when_it_changes() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Endpoints, &[ENDPOINTS]).await;
    let first = ads.next().await;
    assert_eq!(first.resources[0].name, ENDPOINTS);
    assert!(!first.system_version_info.is_empty());

    harness
        .hub
        .change(|world| world.apply_pod(&parse::<Pod>(pod("reviews-2", "10.0.0.2"))));
    let both = slice(&[("reviews-1", "10.0.0.1"), ("reviews-2", "10.0.0.2")]);
    harness
        .hub
        .change(|world| world.apply_slice(&parse::<EndpointSlice>(both)));
    let second = ads.next().await;
    assert_ne!(second.resources[0].version, first.resources[0].version);
}

#[tokio::test]
async fn a_name_that_is_no_service_port_is_answered_as_removed() {
    let harness = Harness::new();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Listener, &["outbound/192.0.2.1:443"])
        .await;
    assert_eq!(
        ads.next().await.removed_resources,
        ["outbound/192.0.2.1:443"]
    );
    harness.reviews();
    ads.subscribe(Kind::Listener, &[LISTENER]).await;
    assert_eq!(ads.next().await.resources[0].name, LISTENER);
    let key = ObjectKey::new("bookinfo", "reviews");
    harness.hub.remove(Input::Service, &key);
    assert_eq!(ads.next().await.removed_resources, [LISTENER]);
}

#[tokio::test]
async fn a_proxy_that_asks_for_everything_gets_nothing_and_is_told_to_ask_by_name() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("evil/curious").await.unwrap();
    for (kind, name) in [
        (Kind::Listener, "outbound/10.96.0.7:*"),
        (Kind::Endpoints, "outbound|80||*.bookinfo.svc.cluster.local"),
    ] {
        ads.subscribe(kind, &[name]).await;
        let answer = ads.next().await;
        assert!(answer.resources.is_empty(), "{name}: {answer:?}");
        assert_eq!(answer.removed_resources, [name]);
    }
    ads.subscribe(Kind::Listener, &["*"]).await;
    let refused = ads.responses.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        refused.message(),
        "a wildcard subscription to Listener is not served: subscribe by name"
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_streams_that_a_change_concerns_are_woken() {
    let harness = Harness::new();
    harness.reviews();
    harness.hub.change(|world| {
        let mut other = service("ratings");
        other["spec"]["clusterIP"] = "10.96.0.8".into();
        other["spec"]["clusterIPs"][0] = "10.96.0.8".into();
        world.apply_service(&parse::<Service>(other))
    });
    let mut concerned = harness.ads("bookinfo/one").await.unwrap();
    let mut other = harness.ads("bookinfo/two").await.unwrap();
    concerned.subscribe(Kind::Route, &[ROUTE]).await;
    other
        .subscribe(Kind::Route, &["ratings.bookinfo.svc.cluster.local:80"])
        .await;
    concerned.next().await;
    other.next().await;
    harness.split(1, 10);
    assert_eq!(concerned.next().await.resources[0].name, ROUTE);
    assert!(other.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn a_lone_change_is_pushed_at_once_and_a_burst_as_one() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Route, &[ROUTE]).await;
    ads.next().await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let before = Instant::now();
    harness.split(1, 10);
    ads.next().await;
    assert!(
        before.elapsed() < Duration::from_millis(2),
        "{:?}",
        before.elapsed()
    );

    for (fence, weight) in [(2, 25), (3, 50), (4, 75)] {
        harness.split(fence, weight);
        tokio::task::yield_now().await;
    }
    let burst = ads.next().await;
    assert!(
        before.elapsed() < Duration::from_millis(10),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(burst.resources.len(), 1);
    assert!(ads.is_silent().await, "the three changes were one push");
}

#[tokio::test]
async fn without_a_good_token_there_is_no_stream_and_the_reason_is_told() {
    let harness = Harness::new();
    let refused = harness.ads("nonsense").await.err().unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "no such pod")
    );
}

#[tokio::test]
async fn state_of_the_world_is_refused_with_a_sentence() {
    let harness = Harness::new();
    let mut client = AggregatedDiscoveryServiceClient::new(harness.channel());
    let mut request = Request::new(tokio_stream::pending::<DiscoveryRequest>());
    authorize(&mut request, "bookinfo/client");
    let refused = client
        .stream_aggregated_resources(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("DELTA_GRPC"));
}

#[tokio::test]
async fn who_breaks_the_protocol_is_closed_with_the_reason() {
    let harness = Harness::new();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Listener, &["*"]).await;
    let closed = ads.responses.message().await.unwrap_err();
    assert_eq!(closed.code(), Code::InvalidArgument);
    assert!(
        closed.message().contains("subscribe by name"),
        "{}",
        closed.message()
    );
}

#[tokio::test]
async fn at_shutdown_streams_end_with_unavailable() {
    let harness = Harness::new();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    harness.shutdown.cancel();
    let closed = ads.responses.message().await.unwrap_err();
    assert_eq!(closed.code(), Code::Unavailable);
}
