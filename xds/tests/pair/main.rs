//! Both ends against each other, without a socket.
#![allow(clippy::unwrap_used)]

mod harness;
mod hostile;
mod random;

use envoy_types::pb::{envoy::service::discovery::v3::DeltaDiscoveryRequest, google::rpc::Status};
use harness::Pair;
use sluice_xds::{
    Held,
    Kind::{Cluster, Endpoints, Listener, Route},
    Rejection, ResourceName,
};

const CART: &str = "cart.shop.svc.cluster.local:80";
const USER: &str = "user.shop.svc.cluster.local:80";

fn with_routes() -> Pair {
    let mut pair = Pair::new();
    pair.set(Route, CART, "1");
    pair.set(Route, USER, "1");
    pair.subscribe(Route, CART);
    pair.subscribe(Route, USER);
    pair.drive();
    pair.take_log();
    pair
}

#[test]
fn a_subscribed_resource_comes_and_is_acknowledged() {
    let mut pair = Pair::new();
    pair.set(Route, CART, "1");
    pair.subscribe(Route, CART);
    pair.drive();
    assert_eq!(pair.take_log(), [format!("RouteConfiguration {CART}@1")]);
    assert_eq!(pair.server.acked(Route, CART), Some("1"));
    assert_eq!(pair.in_force, pair.expected());
    assert_eq!(pair.server.node(), "sidecar~cart-1.shop");
    assert!(pair.server.is_settled());
}

#[test]
fn an_update_sends_only_what_changed() {
    let mut pair = with_routes();
    pair.set(Route, CART, "2");
    pair.set(Route, "nobody.asked.svc.cluster.local:80", "1");
    pair.server.changed_all();
    pair.drive();
    assert_eq!(pair.take_log(), [format!("RouteConfiguration {CART}@2")]);
}

#[test]
fn a_change_back_before_it_was_sent_sends_nothing() {
    let mut pair = with_routes();
    pair.set(Route, CART, "2");
    pair.set(Route, CART, "1");
    pair.drive();
    assert!(pair.take_log().is_empty());
}

#[test]
fn a_name_that_does_not_exist_is_answered_as_removed_and_comes_when_it_does() {
    let mut pair = Pair::new();
    pair.subscribe(Listener, "outbound/192.0.2.1:80");
    assert_eq!(
        pair.client.held(Listener, "outbound/192.0.2.1:80"),
        Some(&Held::Unknown)
    );
    pair.drive();
    assert_eq!(pair.take_log(), ["Listener -outbound/192.0.2.1:80"]);
    assert_eq!(
        pair.client.held(Listener, "outbound/192.0.2.1:80"),
        Some(&Held::Absent)
    );
    pair.set(Listener, "outbound/192.0.2.1:80", "1");
    pair.drive();
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_removed_resource_is_gone() {
    let mut pair = with_routes();
    pair.remove(Route, CART);
    pair.drive();
    assert_eq!(pair.take_log(), [format!("RouteConfiguration -{CART}")]);
    assert_eq!(pair.client.held(Route, CART), Some(&Held::Absent));
    assert_eq!(pair.server.acked(Route, CART), None);
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_refused_version_leaves_the_old_one_in_force_and_is_named() {
    let mut pair = with_routes();
    pair.set(Route, CART, "bad");
    pair.set(Route, USER, "2");
    pair.drive();
    let refused = Rejection {
        resource: ResourceName::new(Route, CART),
        version: Some("bad".to_owned()),
        reason: "is bad".to_owned(),
    };
    assert_eq!(pair.server.rejections().collect::<Vec<_>>(), [refused]);
    assert_eq!(pair.server.acked(Route, CART), Some("1"));
    assert_eq!(
        pair.client.held(Route, CART),
        Some(&Held::Version("1".to_owned()))
    );
    assert_eq!(
        pair.server.acked(Route, USER),
        Some("2"),
        "the others of the response are taken"
    );
    pair.take_log();

    pair.server.changed_all();
    pair.drive();
    assert!(pair.take_log().is_empty(), "it is not sent again as it is");

    pair.set(Route, CART, "3");
    pair.drive();
    assert_eq!(pair.server.rejections().count(), 0);
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_refusal_without_names_refuses_the_whole_response() {
    let mut pair = with_routes();
    pair.set(Route, CART, "2");
    pair.set(Route, USER, "2");
    let response = pair.server.poll(&pair.table).unwrap();
    let nack = DeltaDiscoveryRequest {
        type_url: Route.type_url(),
        response_nonce: response.nonce,
        error_detail: Some(Status {
            message: "no".to_owned(),
            ..Status::default()
        }),
        ..DeltaDiscoveryRequest::default()
    };
    pair.server.handle_request(nack).unwrap();
    assert_eq!(pair.server.rejections().count(), 2);
    assert_eq!(pair.server.acked(Route, CART), Some("1"));
}

#[test]
fn a_reconnect_resends_nothing_that_is_held() {
    let mut pair = with_routes();
    pair.reconnect();
    pair.drive();
    assert!(pair.take_log().is_empty());
    assert_eq!(pair.server.acked(Route, CART), Some("1"));
}

#[test]
fn a_reconnect_brings_what_changed_and_takes_what_went() {
    let mut pair = with_routes();
    pair.subscribe(Cluster, "gone");
    pair.drive();
    pair.reconnect();
    pair.set(Route, CART, "2");
    pair.remove(Route, USER);
    pair.take_log();
    pair.drive();
    assert_eq!(
        pair.take_log(),
        [
            "Cluster -gone".to_owned(),
            format!("RouteConfiguration {CART}@2"),
            format!("RouteConfiguration -{USER}")
        ]
    );
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_connection_lost_in_mid_update_loses_nothing() {
    let mut pair = with_routes();
    pair.set(Route, CART, "2");
    pair.flush();
    assert_eq!(pair.to_client.len(), 1);
    pair.reconnect();
    pair.drive();
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_judgement_that_comes_after_the_reconnect_ends_with_what_the_server_has() {
    let mut pair = with_routes();
    pair.remove(Route, CART);
    pair.flush();
    let removal = pair.to_client.pop_front().unwrap();
    let update = pair.client.handle_response(removal).unwrap();
    // The resource is back before the client tells the new stream that it holds it.
    pair.reconnect();
    pair.set(Route, CART, "1");
    pair.drive();
    pair.in_force.remove(&ResourceName::new(Route, CART));
    pair.client.ack(update.verdict);
    pair.drive();
    assert_eq!(pair.in_force, pair.expected());
    assert_eq!(pair.held(), pair.expected());
}

#[test]
fn only_the_first_request_of_a_stream_carries_the_node() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        pair.subscribe(Route, CART);
        pair.subscribe(Cluster, "a");
        pair.flush();
        let nodes: Vec<_> = pair.to_server.iter().map(|r| r.node.is_some()).collect();
        assert_eq!(nodes, [true, false]);
        pair.reconnect();
    }
}

#[test]
fn changes_are_made_in_order_and_broken_in_the_reverse_order_after_the_last_answer() {
    let mut pair = Pair::new();
    for kind in [Route, Listener, Endpoints, Cluster] {
        pair.set(kind, "old", "1");
        pair.subscribe(kind, "old");
        pair.subscribe(kind, "new");
    }
    pair.drive();
    pair.take_log();
    for kind in [Route, Listener, Endpoints, Cluster] {
        pair.remove(kind, "old");
        pair.set(kind, "new", "1");
    }
    pair.flush();
    assert_eq!(
        pair.take_log(),
        [
            "Cluster new@1",
            "ClusterLoadAssignment new@1",
            "Listener new@1",
            "RouteConfiguration new@1"
        ]
    );
    pair.drive();
    assert_eq!(
        pair.take_log(),
        [
            "RouteConfiguration -old",
            "Listener -old",
            "ClusterLoadAssignment -old",
            "Cluster -old"
        ]
    );
}

#[test]
fn who_unsubscribes_hears_no_more_of_it() {
    let mut pair = with_routes();
    pair.set(Route, CART, "2");
    pair.flush();
    pair.unsubscribe(Route, CART);
    pair.drive();
    assert_eq!(pair.client.held(Route, CART), None);
    assert!(!pair.in_force.contains_key(&ResourceName::new(Route, CART)));
    pair.take_log();
    pair.set(Route, CART, "3");
    pair.drive();
    assert!(pair.take_log().is_empty());
    assert_eq!(pair.server.subscriptions().count(), 1);
}

#[test]
fn who_subscribes_again_is_answered_again() {
    let mut pair = with_routes();
    pair.unsubscribe(Route, CART);
    pair.subscribe(Route, CART);
    pair.drive();
    assert_eq!(pair.take_log(), [format!("RouteConfiguration {CART}@1")]);
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_client_that_does_not_answer_gets_the_last_state_when_it_does() {
    let mut pair = with_routes();
    for version in 2..100 {
        pair.set(Route, CART, &version.to_string());
        pair.flush();
    }
    assert_eq!(pair.to_client.len(), 8, "the rest waits");
    pair.drive();
    assert_eq!(
        pair.take_log().last().unwrap(),
        &format!("RouteConfiguration {CART}@99")
    );
    assert_eq!(pair.in_force, pair.expected());
}

#[test]
fn a_large_answer_comes_in_several_responses() {
    let mut pair = Pair::new();
    let large = "x".repeat(300_000);
    for n in 0..10 {
        let name = n.to_string();
        pair.set(Cluster, &name, &large);
        pair.subscribe(Cluster, &name);
    }
    pair.drive();
    assert_eq!(pair.take_log().len(), 5);
    assert_eq!(pair.in_force, pair.expected());
}
