//! Splits and their weights.

use sluice_mesh::{Input, World};
use sluice_xds::{Kind, ResourceName, metadata::RouteFacts};

use crate::{
    CANDIDATE, NAMES, ROUTE, STABLE, WHOLE, cart,
    fixtures::{key, service, split},
    look, split_cart,
};

/// Versions of everything that can be made of `cart`, by name.
fn versions(world: &World) -> Vec<(String, Option<String>)> {
    let versions = NAMES.map(|(kind, name)| (format!("{kind}"), look::version(world, kind, name)));
    versions.into()
}

fn branches(stable: u32, candidate: u32) -> Option<Vec<(String, u32)>> {
    let branch = |name: &str, weight| (name.to_owned(), weight);
    Some(vec![branch(STABLE, stable), branch(CANDIDATE, candidate)])
}

#[test]
fn without_a_split_all_goes_to_the_whole_service() {
    let world = cart();
    assert_eq!(
        look::route(&world, ROUTE),
        Some(vec![(WHOLE.to_owned(), 100)])
    );
    let facts = look::route_facts(&world, ROUTE);
    assert_eq!((facts.service.as_str(), facts.fence), ("shop/cart", 0));
}

#[test]
fn a_split_names_both_arms_whatever_their_weight() {
    for candidate in [0, 10, 100] {
        let world = split_cart(candidate);
        let candidate = candidate.unsigned_abs();
        assert_eq!(
            look::route(&world, ROUTE),
            branches(100 - candidate, candidate)
        );
    }
}

#[test]
fn a_split_of_one_arm_names_both_too() {
    let mut world = cart();
    world.apply_split(&split("cart", "cart").stable_only().build());
    assert_eq!(look::route(&world, ROUTE), branches(100, 0));
}

#[test]
fn a_weight_outside_the_schema_is_kept_within_bounds() {
    assert_eq!(look::route(&split_cart(250), ROUTE), branches(0, 100));
    assert_eq!(look::route(&split_cart(-5), ROUTE), branches(100, 0));
}

#[test]
fn a_route_says_which_split_it_carries_out() {
    let facts = look::route_facts(&split_cart(10), ROUTE);
    let expected = RouteFacts {
        service: "shop/cart".to_owned(),
        revision: "rev-2".to_owned(),
        fence: 1,
        leased: true,
        hung_after_ms: 5_000,
    };
    assert_eq!(facts, expected);
}

#[test]
fn a_weight_change_touches_only_the_version_of_the_route() {
    let mut world = split_cart(10);
    let before = versions(&world);
    let touched = world.apply_split(&split("cart", "cart").weight(25).fence(2).build());
    assert_eq!(touched, [ResourceName::new(Kind::Route, ROUTE)]);
    let after = versions(&world);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].1.0, "RouteConfiguration");
}

#[test]
fn a_weight_that_comes_back_has_its_version_again() {
    let mut world = split_cart(10);
    let before = versions(&world);
    world.apply_split(&split("cart", "cart").weight(25).build());
    world.apply_split(&split("cart", "cart").weight(10).build());
    assert_eq!(versions(&world), before);
}

#[test]
fn another_selection_touches_the_endpoints_too() {
    let mut world = split_cart(10);
    let other = split("cart", "cart").weight(10).candidate_hash("sluice-v3");
    let touched = world.apply_split(&other.build());
    let endpoints = touched.iter().filter(|name| name.kind == Kind::Endpoints);
    assert_eq!(endpoints.count(), 3);
    assert_eq!(look::endpoints(&world, CANDIDATE), Some(vec![]));
}

#[test]
fn the_clusters_of_the_arms_outlive_the_split() {
    let mut world = split_cart(10);
    world.remove(Input::Split, &key("cart"));
    assert_eq!(
        look::route(&world, ROUTE),
        Some(vec![(WHOLE.to_owned(), 100)])
    );
    assert!(look::cluster(&world, CANDIDATE).is_some());
    assert_eq!(look::endpoints(&world, CANDIDATE), Some(vec![]));
    let ready = ["10.1.0.1:8080", "10.1.0.2:8080"].map(str::to_owned);
    assert_eq!(look::endpoints(&world, STABLE), Some(ready.into()));
}

#[test]
fn a_tcp_port_is_a_tcp_proxy_with_the_weights_and_no_routes() {
    let mut world = split_cart(10);
    world.apply_service(&service("cart").vip("10.96.0.1").port("tcp-db", 80).build());
    let listener = look::listener(&world, "outbound/10.96.0.1:80").unwrap();
    assert_eq!(listener.filter_chains.len(), 1);
    assert!(listener.default_filter_chain.is_none());
    assert_eq!(look::tcp(&listener), branches(90, 10));
    let facts = RouteFacts::from_metadata(&listener.metadata.unwrap()).unwrap();
    assert_eq!((facts.service.as_str(), facts.fence), ("shop/cart", 1));
    assert_eq!(look::route(&world, ROUTE), None);
}

#[test]
fn a_port_that_does_not_say_what_it_speaks_is_both() {
    let mut world = split_cart(10);
    world.apply_service(&service("cart").vip("10.96.0.1").port("web", 80).build());
    let listener = look::listener(&world, "outbound/10.96.0.1:80").unwrap();
    let condition = listener.filter_chains[0]
        .filter_chain_match
        .as_ref()
        .unwrap();
    assert_eq!(condition.application_protocols, ["http/1.1", "h2c"]);
    assert!(listener.default_filter_chain.is_some());
    assert_eq!(look::tcp(&listener), branches(90, 10));
    assert_eq!(look::route(&world, ROUTE), branches(90, 10));

    let touched = world.apply_split(&split("cart", "cart").weight(25).build());
    let kinds: Vec<_> = touched.iter().map(|name| name.kind).collect();
    assert_eq!(kinds, [Kind::Listener, Kind::Listener, Kind::Route]);
}
