//! Which pods are in which arm.

use sluice_mesh::Input;
use sluice_xds::metadata::EndpointFacts;

use crate::{
    CANDIDATE, STABLE, WHOLE, cart,
    fixtures::{key, pod, service, slice, split},
    look, split_cart,
};

const ONE: &str = "10.1.0.1:8080";
const TWO: &str = "10.1.0.2:8080";
const THREE: &str = "10.1.0.3:8080";

/// Endpoints of the whole Service, of stable and of the candidate.
#[track_caller]
fn check(world: &sluice_mesh::World, whole: &[&str], stable: &[&str], candidate: &[&str]) {
    for (name, expected) in [(WHOLE, whole), (STABLE, stable), (CANDIDATE, candidate)] {
        assert_eq!(look::endpoints(world, name).unwrap(), expected, "{name}");
    }
}

#[test]
fn without_a_split_ready_pods_are_stable() {
    check(&cart(), &[ONE, TWO], &[ONE, TWO], &[]);
}

#[test]
fn a_gated_pod_whose_containers_are_ready_joins_the_candidate_arm_only() {
    check(&split_cart(10), &[ONE, TWO], &[ONE, TWO], &[THREE]);
}

#[test]
fn a_gated_pod_whose_containers_are_not_ready_joins_nothing() {
    let mut world = split_cart(10);
    world.apply_pod(&pod("cart-3", "sluice-v2").unready().build());
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
}

#[test]
fn an_arm_that_does_not_count_gated_pods_takes_ready_ones_only() {
    let mut world = cart();
    let mut strict = split("cart", "cart").build();
    strict.spec.arms[1].include_gated = false;
    world.apply_split(&strict);
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
    world.apply_pod(&pod("cart-3", "sluice-v2").build());
    check(&world, &[ONE, TWO, THREE], &[ONE, TWO], &[THREE]);
}

#[test]
fn a_pod_of_neither_arm_counts_as_stable() {
    let mut world = split_cart(10);
    world.apply_pod(&pod("cart-2", "v0").build());
    check(&world, &[ONE, TWO], &[ONE, TWO], &[THREE]);
}

#[test]
fn a_gated_pod_of_neither_arm_is_in_none() {
    let mut world = split_cart(10);
    world.apply_pod(&pod("cart-3", "sluice-v9").gated().build());
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
}

#[test]
fn an_excluded_pod_is_in_no_arm_until_it_is_named_no_more() {
    let mut world = split_cart(10);
    let others = pod("cart-2", "sluice-v2").gated().build();
    world.apply_pod(&others);
    check(&world, &[ONE], &[ONE], &[TWO, THREE]);
    let excluding = split("cart", "cart")
        .weight(10)
        .fence(2)
        .excluding("cart-3");
    let touched = world.apply_split(&excluding.build());
    assert!(touched.iter().any(|name| name.name == CANDIDATE));
    check(&world, &[ONE], &[ONE], &[TWO]);
    // Ready by itself, as in mode B, it is still of the candidate.
    world.apply_pod(&pod("cart-3", "sluice-v2").build());
    check(&world, &[ONE, THREE], &[ONE], &[TWO]);
    world.apply_split(&split("cart", "cart").weight(10).fence(3).build());
    check(&world, &[ONE, THREE], &[ONE], &[TWO, THREE]);
}

#[test]
fn a_deleting_pod_leaves_before_its_slice_says_so() {
    let mut world = split_cart(10);
    world.apply_pod(&pod("cart-1", "v1").deleting().build());
    world.apply_pod(&pod("cart-3", "sluice-v2").gated().deleting().build());
    check(&world, &[TWO], &[TWO], &[]);
}

#[test]
fn a_terminating_endpoint_is_left_out() {
    let mut world = cart();
    let slice = slice("cart-x", "cart").port("http", 8080);
    world.apply_slice(&slice.pod("cart-1", "10.1.0.1").terminating().build());
    check(&world, &[], &[], &[]);
}

#[test]
fn a_pod_that_turns_unready_leaves_before_its_slice_says_so() {
    let mut world = split_cart(10);
    world.apply_pod(&pod("cart-1", "v1").unready().build());
    check(&world, &[TWO], &[TWO], &[THREE]);
}

#[test]
fn a_pod_whose_labels_are_not_known_yet_is_in_no_arm() {
    let mut world = split_cart(10);
    world.remove(Input::Pod, &key("cart-1"));
    check(&world, &[ONE, TWO], &[TWO], &[THREE]);
    world.remove(Input::Split, &key("cart"));
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
}

#[test]
fn a_service_that_publishes_unready_pods_has_them() {
    let mut world = cart();
    let service = service("cart").vip("10.96.0.1").port("http", 80);
    world.apply_service(&service.publishing_unready().build());
    world.apply_pod(&pod("cart-1", "v1").unready().build());
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
}

#[test]
fn endpoints_that_are_no_pods_are_as_their_slice_says() {
    let mut world = split_cart(10);
    let service = service("cart").vip("10.96.0.1").port("http", 80);
    world.apply_service(&service.without_selector().build());
    let slice = slice("cart-x", "cart").port("http", 8080);
    let slice = slice.address("10.1.0.1", true).address("10.1.0.2", false);
    world.apply_slice(&slice.build());
    check(&world, &[ONE], &[ONE], &[]);
}

#[test]
fn a_named_target_port_may_differ_from_slice_to_slice() {
    let mut world = cart();
    let slice = slice("cart-y", "cart")
        .port("http", 9090)
        .port("admin", 9999);
    world.apply_slice(&slice.pod("cart-4", "10.1.0.4").build());
    assert_eq!(
        look::endpoints(&world, WHOLE).unwrap(),
        [ONE, TWO, "10.1.0.4:9090"]
    );
}

#[test]
fn a_pod_in_two_slices_is_one_endpoint() {
    let mut world = cart();
    let slice = slice("cart-y", "cart").port("http", 8080);
    world.apply_slice(&slice.pod("cart-1", "10.1.0.1").build());
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
    world.remove(Input::Slice, &key("cart-x"));
    check(&world, &[ONE], &[ONE], &[]);
    world.apply_pod(&pod("cart-1", "v1").deleting().build());
    check(&world, &[], &[], &[]);
}

#[test]
fn endpoints_are_of_the_first_family_of_the_service() {
    let mut world = cart();
    let slice = slice("cart-6", "cart").ipv6().port("http", 8080);
    world.apply_slice(&slice.pod("cart-1", "fd00::11").build());
    check(&world, &[ONE, TWO], &[ONE, TWO], &[]);
    let service = service("cart").vip("10.96.0.1").port("http", 80);
    world.apply_service(&service.with_family("IPv6").build());
    check(&world, &["fd00::11:8080"], &["fd00::11:8080"], &[]);
}

#[test]
fn a_change_of_a_pod_touches_the_services_that_have_it_and_no_other() {
    let mut world = cart();
    world.apply_service(&service("user").vip("10.96.0.2").port("http", 80).build());
    let touched = world.apply_pod(&pod("cart-1", "v1").unready().build());
    let names: Vec<_> = touched.iter().map(ToString::to_string).collect();
    let of = |name| format!("ClusterLoadAssignment {name}");
    assert_eq!(names, [of(CANDIDATE), of(STABLE), of(WHOLE)]);
    assert!(world.apply_pod(&pod("lonely", "v1").build()).is_empty());
}

#[test]
fn an_endpoint_says_whose_it_is() {
    let mut world = cart();
    let labelled = pod("cart-1", "v1").label("version", "7");
    world.apply_pod(&labelled.build());
    let endpoint = look::assignment(&world, STABLE).unwrap().remove(0);
    let facts = EndpointFacts::from_metadata(&endpoint.metadata.unwrap()).unwrap();
    let expected = EndpointFacts {
        pod: "cart-1".to_owned(),
        namespace: "shop".to_owned(),
        workload: "cart".to_owned(),
        app: "cart".to_owned(),
        version: "7".to_owned(),
        canonical_name: "cart".to_owned(),
        canonical_revision: "7".to_owned(),
        principal: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
    };
    assert_eq!(facts, expected);
}

#[test]
fn a_pod_of_our_own_replica_set_is_of_the_same_workload() {
    let world = split_cart(10);
    let endpoint = look::assignment(&world, CANDIDATE).unwrap().remove(0);
    let facts = EndpointFacts::from_metadata(&endpoint.metadata.unwrap()).unwrap();
    assert_eq!(facts.workload, "cart");
}
