//! Cluster objects in, what proxies see out.
#![allow(clippy::unwrap_used)]

mod conflicts;
mod ejects;
mod endpoints;
mod fixtures;
mod look;
mod random;
mod snapshot;
mod tenants;
mod weights;

use fixtures::{NAMESPACE, pod, service, slice, split};
use sluice_mesh::{Input, World};
use sluice_xds::{Kind, Limits, ServerSession};

const HOST: &str = "cart.shop.svc.cluster.local";
const ROUTE: &str = "cart.shop.svc.cluster.local:80";
const WHOLE: &str = "outbound|80||cart.shop.svc.cluster.local";
const STABLE: &str = "outbound|80|stable|cart.shop.svc.cluster.local";
const CANDIDATE: &str = "outbound|80|candidate|cart.shop.svc.cluster.local";

/// Every name under which `shop/cart` can be asked for.
const NAMES: [(Kind, &str); 9] = [
    (Kind::Listener, "outbound/10.96.0.1:80"),
    (Kind::Listener, "outbound/cart.shop.svc.cluster.local:80"),
    (Kind::Route, ROUTE),
    (Kind::Cluster, WHOLE),
    (Kind::Cluster, STABLE),
    (Kind::Cluster, CANDIDATE),
    (Kind::Endpoints, WHOLE),
    (Kind::Endpoints, STABLE),
    (Kind::Endpoints, CANDIDATE),
];

/// `cart` at 10.96.0.1:80, two pods of v1, one gated pod of v2.
pub fn cart() -> World {
    let mut world = World::new("cluster.local");
    world.apply_service(&service("cart").vip("10.96.0.1").port("http", 80).build());
    world.apply_slice(
        &slice("cart-x", "cart")
            .port("http", 8080)
            .pod("cart-1", "10.1.0.1")
            .pod("cart-2", "10.1.0.2")
            .unready_pod("cart-3", "10.1.0.3")
            .build(),
    );
    world.apply_pod(&pod("cart-1", "v1").build());
    world.apply_pod(&pod("cart-2", "v1").build());
    world.apply_pod(&pod("cart-3", "sluice-v2").gated().build());
    world
}

/// [`cart`] under a split.
pub fn split_cart(candidate: i32) -> World {
    let mut world = cart();
    world.apply_split(&split("cart", "cart").weight(candidate).build());
    world
}

#[test]
fn a_service_has_a_listener_by_address_and_by_host_name() {
    let world = cart();
    for name in [
        "outbound/10.96.0.1:80",
        "outbound/cart.shop.svc.cluster.local:80",
    ] {
        let listener = look::listener(&world, name).unwrap();
        assert_eq!(listener.name, name);
        assert_eq!(listener.filter_chains.len(), 1);
    }
}

#[test]
fn an_address_or_port_that_is_no_service_does_not_exist() {
    let world = cart();
    for name in [
        "outbound/10.96.0.1:81",
        "outbound/10.96.0.2:80",
        "outbound/user.shop.svc.cluster.local:80",
        "outbound/cart.shop.svc.cluster.local:080",
        "outbound/CART.shop.svc.cluster.local:80",
        "outbound",
    ] {
        assert!(look::get(&world, Kind::Listener, name).is_none(), "{name}");
    }
    assert!(look::get(&world, Kind::Route, "user.shop.svc.cluster.local:80").is_none());
    assert!(
        look::get(
            &world,
            Kind::Cluster,
            "outbound|81||cart.shop.svc.cluster.local"
        )
        .is_none()
    );
}

#[test]
fn a_headless_service_has_no_listener_by_address() {
    let mut world = cart();
    world.apply_service(&service("cart").headless().port("http", 80).build());
    assert!(look::get(&world, Kind::Listener, "outbound/10.96.0.1:80").is_none());
    assert!(look::get(&world, Kind::Listener, &format!("outbound/{HOST}:80")).is_some());
}

#[test]
fn a_service_of_both_families_has_a_listener_for_each_address() {
    let mut both = service("cart").vip("10.96.0.1").port("http", 80).build();
    let addresses = ["10.96.0.1", "fd00::1"].map(str::to_owned);
    both.spec.as_mut().unwrap().cluster_ips = Some(addresses.into());
    let mut world = cart();
    world.apply_service(&both);
    assert!(look::get(&world, Kind::Listener, "outbound/10.96.0.1:80").is_some());
    assert!(look::get(&world, Kind::Listener, "outbound/[fd00::1]:80").is_some());
}

#[test]
fn an_external_name_and_a_udp_port_are_not_served() {
    let mut world = cart();
    world.apply_service(&service("cart").vip("10.96.0.1").udp("dns", 80).build());
    assert!(look::get(&world, Kind::Listener, "outbound/10.96.0.1:80").is_none());
    world.apply_service(&service("cart").external_name().port("http", 80).build());
    assert!(look::get(&world, Kind::Cluster, WHOLE).is_none());
}

#[test]
fn a_port_that_is_told_to_be_http2_forces_it_towards_the_pods() {
    let mut world = cart();
    assert!(
        look::cluster(&world, WHOLE)
            .unwrap()
            .typed_extension_protocol_options
            .is_empty()
    );
    world.apply_service(
        &service("cart")
            .vip("10.96.0.1")
            .port("grpc-api", 80)
            .build(),
    );
    for name in [WHOLE, STABLE, CANDIDATE] {
        let cluster = look::cluster(&world, name).unwrap();
        assert_eq!(cluster.typed_extension_protocol_options.len(), 1, "{name}");
    }
}

#[test]
fn an_address_moves_with_its_service() {
    let mut world = cart();
    world.apply_service(&service("user").vip("10.96.0.1").port("tcp", 80).build());
    world.remove(Input::Service, &fixtures::key("cart"));
    let listener = look::listener(&world, "outbound/10.96.0.1:80").unwrap();
    let user = "outbound|80||user.shop.svc.cluster.local";
    assert_eq!(look::tcp(&listener), Some(vec![(user.to_owned(), 100)]));
}

#[test]
fn a_removed_service_takes_all_its_resources_with_it() {
    let mut world = split_cart(10);
    let gone = world.remove(Input::Service, &fixtures::key("cart"));
    assert_eq!(gone.len(), 3 + 3 + 2 + 1);
    for name in gone {
        assert!(look::get(&world, name.kind, &name.name).is_none(), "{name}");
    }
}

#[test]
fn applying_an_object_again_touches_nothing() {
    let mut world = cart();
    let same = service("cart").vip("10.96.0.1").port("http", 80).build();
    assert!(world.apply_service(&same).is_empty());
    assert!(world.apply_pod(&pod("cart-1", "v1").build()).is_empty());
    let before = world.stats();
    assert_eq!(
        (
            before.services,
            before.slices,
            before.pods,
            before.templates
        ),
        (1, 1, 3, 2)
    );
}

#[test]
fn nothing_is_compiled_that_nobody_asked_for() {
    let world = cart();
    assert_eq!(world.stats().compiled, 0);
    look::get(&world, Kind::Route, ROUTE);
    look::get(&world, Kind::Route, "nobody.shop.svc.cluster.local:80");
    assert_eq!(world.stats().compiled, 1);
    world.trim(|_| false);
    assert_eq!(world.stats().compiled, 0);
}

#[test]
fn the_view_of_a_proxy_is_the_services_whose_traffic_it_routes() {
    let world = cart();
    let subscriptions = [
        (Kind::Listener, "outbound/10.96.0.1:80"),
        (Kind::Listener, "outbound/10.96.0.9:80"),
        (Kind::Route, ROUTE),
        (Kind::Cluster, WHOLE),
    ];
    let view: Vec<_> = world
        .sight(NAMESPACE)
        .services_view(subscriptions)
        .into_iter()
        .collect();
    assert_eq!(view, [format!("{NAMESPACE}/cart")]);
}

#[test]
fn a_session_gets_one_response_for_one_weight_change() {
    let mut world = split_cart(10);
    let mut session = ServerSession::new(Limits::default());
    for (kind, name) in [
        (Kind::Listener, "outbound/10.96.0.1:80"),
        (Kind::Route, ROUTE),
        (Kind::Cluster, STABLE),
        (Kind::Cluster, CANDIDATE),
        (Kind::Endpoints, STABLE),
        (Kind::Endpoints, CANDIDATE),
    ] {
        let request = envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            resource_names_subscribe: vec![name.to_owned()],
            ..Default::default()
        };
        session.handle_request(request).unwrap();
    }
    while session.poll(&world.sight(NAMESPACE)).is_some() {}
    let changed = world.apply_split(&split("cart", "cart").weight(25).fence(2).build());
    session.changed(&changed);
    let response = session.poll(&world.sight(NAMESPACE)).unwrap();
    assert_eq!(response.type_url, Kind::Route.type_url());
    assert_eq!(response.resources.len(), 1);
    assert!(session.poll(&world.sight(NAMESPACE)).is_none());
}
