//! What a namespace sees, and what it can do to another's Services.

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use sluice_mesh::{ExportTo, Input, ObjectKey, World, WrongExportTo};
use sluice_xds::{Kind, Limits, Resources, ServerSession};

use crate::{
    CANDIDATE, HOST, NAMES, ROUTE, STABLE, WHOLE, cart,
    fixtures::{NAMESPACE, key, mesh, pod, service, slice, split},
    look, split_cart,
};

fn exported(to: &str) -> Service {
    let cart = service("cart").vip("10.96.0.1").port("http", 80);
    cart.export_to(to).build()
}

/// Whether the namespace sees the whole of `shop/cart`; never a part of it.
#[track_caller]
fn sees(world: &World, namespace: &str) -> bool {
    let seen = |(kind, name)| world.sight(namespace).get(kind, name).is_some();
    let all = NAMES.map(seen);
    assert!(
        all.iter().all(|seen| *seen == all[0]),
        "{namespace}: {all:?}"
    );
    let view = world.sight(namespace).services_view(NAMES);
    assert_eq!(view.contains("shop/cart"), all[0], "{namespace}");
    assert_eq!(world.sight(namespace).is_denied("shop/cart"), !all[0]);
    all[0]
}

#[test]
fn a_service_is_seen_by_whom_its_annotation_names() {
    let mut world = split_cart(10);
    // Annotation; whether shop, a and b see it.
    for (value, expected) in [
        ("*", [true, true, true]),
        (".", [true, false, false]),
        ("~", [false, false, false]),
        // As in Istio, a list without `.` leaves the Service's own namespace out.
        ("a", [false, true, false]),
        (" . , a ", [true, true, false]),
        ("shop,b", [true, false, true]),
        ("a,*", [true, true, true]),
        ("", [true, true, true]),
    ] {
        world.apply_service(&exported(value));
        let seen = ["shop", "a", "b"].map(|namespace| sees(&world, namespace));
        assert_eq!(seen, expected, "`{value}`");
    }
}

#[test]
fn who_writes_something_wrong_shows_the_service_to_nobody_else() {
    for wrong in [
        "a,,b", "team_a", "Team", "*.prod", "a b", "~,a", "~,*", "-a", "a.",
    ] {
        let mut world = cart();
        world.apply_service(&exported(wrong));
        let seen = ["shop", "a", "b"].map(|namespace| sees(&world, namespace));
        assert_eq!(seen, [true, false, false], "`{wrong}`");
    }
}

#[test]
fn what_is_wrong_with_an_annotation_is_said_with_what_to_write() {
    let why = |value| {
        let told = ExportTo::of_annotation(Some(value)).unwrap();
        told.unwrap_err().to_string()
    };
    for part in [
        "networking.istio.io/exportTo",
        "`team_b`",
        "only the Service's own namespace",
        "'.' (its own)",
    ] {
        assert!(why("a, team_b").contains(part), "{}", why("a, team_b"));
    }
    let both = ExportTo::of_annotation(Some("~,a"));
    assert_eq!(both, Some(Err(WrongExportTo::NobodyAndSomebody)));
    assert!(why(&"é".repeat(10_000)).len() < 500, "a sentence stays one");
    assert_eq!(ExportTo::of_annotation(Some(" ")), None);
}

#[test]
fn the_meshs_default_holds_for_those_that_do_not_say() {
    let mut world = cart();
    assert!(sees(&world, "a"));
    let touched = world.apply_mesh(&mesh(&[".", "gateways"]));
    assert_eq!(touched.len(), NAMES.len());
    let seen = ["shop", "gateways", "a"].map(|namespace| sees(&world, namespace));
    assert_eq!(seen, [true, true, false]);
    assert!(world.apply_mesh(&mesh(&[".", "gateways"])).is_empty());

    world.apply_service(&exported("a"));
    let seen = ["shop", "gateways", "a"].map(|namespace| sees(&world, namespace));
    assert_eq!(seen, [false, false, true], "the Service's own word counts");
    assert!(world.apply_mesh(&mesh(&["~"])).is_empty());

    world.apply_service(&exported(""));
    assert!(!sees(&world, "shop"));
    assert_eq!(world.known(Input::Mesh), [ObjectKey::new("", "default")]);
    world.remove(Input::Mesh, &ObjectKey::new("", "default"));
    assert!(sees(&world, "a") && world.known(Input::Mesh).is_empty());
}

#[test]
fn for_whom_nothing_changes_nothing_is_made_anew() {
    let mut world = cart();
    let version = |world: &World| look::version(world, Kind::Route, ROUTE).unwrap();
    let before = version(&world);
    world.apply_service(&exported("."));
    assert_eq!(version(&world), before);
    let made = world.stats().compiled;
    for (kind, name) in NAMES {
        assert!(world.sight("a").get(kind, name).is_none());
    }
    assert_eq!(
        world.stats().compiled,
        made,
        "nothing is made for who may not see it"
    );
}

#[test]
fn a_session_is_answered_the_same_for_what_is_kept_from_it_and_for_what_does_not_exist() {
    let mut world = cart();
    world.apply_service(&exported("."));
    let mut session = ServerSession::new(Limits::default());
    let absent = NAMES.map(|(kind, name)| {
        let name = name.replace("cart.shop", "cork.shop");
        (kind, name.replace("10.96.0.1", "10.96.0.9"))
    });
    let known = NAMES.map(|(kind, name)| (kind, name.to_owned()));
    for ((kind, known), (_, absent)) in known.into_iter().zip(absent) {
        let ask = envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            resource_names_subscribe: vec![known.clone(), absent.clone()],
            // Whoever saw it once holds a version of it: that proves nothing.
            initial_resource_versions: [known.clone(), absent.clone()]
                .map(|name| (name, "0123456789".to_owned()))
                .into(),
            ..Default::default()
        };
        session.handle_request(ask).unwrap();
        let answer = session.poll(&world.sight("a")).unwrap();
        assert!(answer.resources.is_empty());
        let mut removed = answer.removed_resources;
        removed.sort();
        let mut asked = [known, absent];
        asked.sort();
        assert_eq!(removed, asked);
        let ack = envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            response_nonce: answer.nonce,
            ..Default::default()
        };
        session.handle_request(ack).unwrap();
    }
    // Whatever happens to the Service is not told either.
    let mut changed = world.apply_split(&split("cart", "cart").weight(25).build());
    changed.extend(world.apply_pod(&pod("cart-1", "v1").unready().build()));
    changed.extend(world.remove(Input::Service, &key("cart")));
    assert!(!changed.is_empty());
    session.changed(&changed);
    assert!(session.poll(&world.sight("a")).is_none());
}

/// The same object in the namespace of another tenant.
fn hostile<K>(mut object: K, meta: fn(&mut K) -> &mut ObjectMeta) -> K {
    meta(&mut object).namespace = Some("evil".to_owned());
    object
}

#[test]
fn a_split_reaches_no_service_of_another_namespace_however_it_names_it() {
    let mut world = split_cart(10);
    let before = look::version(&world, Kind::Route, ROUTE);
    for name in [
        "cart",
        "shop/cart",
        "cart.shop",
        HOST,
        "../shop/cart",
        "10.96.0.1",
    ] {
        let theirs = split("cart", name).weight(100).fence(9).created(-1);
        let theirs = hostile(theirs.build(), |s| &mut s.metadata);
        assert!(world.apply_split(&theirs).is_empty(), "{name}");
        assert_eq!(look::version(&world, Kind::Route, ROUTE), before, "{name}");
        assert!(world.split_conflicts().is_empty());
    }
}

#[test]
fn a_slice_adds_nothing_to_a_service_of_another_namespace() {
    let mut world = cart();
    for name in ["cart", "shop/cart", "cart.shop"] {
        let theirs = slice("cart-x", name)
            .port("http", 8080)
            .address("10.6.6.6", true);
        world.apply_slice(&hostile(theirs.build(), |s| &mut s.metadata));
        let endpoints = look::endpoints(&world, WHOLE).unwrap();
        assert_eq!(endpoints, ["10.1.0.1:8080", "10.1.0.2:8080"], "{name}");
    }
}

#[test]
fn a_pod_of_another_namespace_joins_no_arm_whatever_its_labels_say() {
    let mut world = split_cart(50);
    // The candidate's own labels and name, and an endpoint that points at it.
    world.apply_pod(&hostile(pod("cart-3", "sluice-v2").build(), |p| {
        &mut p.metadata
    }));
    world.apply_pod(&hostile(pod("cart-9", "sluice-v2").build(), |p| {
        &mut p.metadata
    }));
    let theirs = slice("cart-9", "cart").port("http", 8080);
    world.apply_slice(
        &theirs
            .pod("cart-9", "10.6.6.6")
            .of_namespace("evil")
            .build(),
    );
    for (name, expected) in [
        (CANDIDATE, vec!["10.1.0.3:8080"]),
        (STABLE, vec!["10.1.0.1:8080", "10.1.0.2:8080"]),
        (WHOLE, vec!["10.1.0.1:8080", "10.1.0.2:8080"]),
    ] {
        assert_eq!(look::endpoints(&world, name).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_service_borrows_neither_name_nor_readiness_from_a_pod_of_another_namespace() {
    let mut world = World::new("cluster.local");
    let theirs = service("cart").vip("10.96.0.6").port("http", 80);
    let theirs = theirs.without_selector().build();
    world.apply_service(&hostile(theirs, |s| &mut s.metadata));
    world.apply_pod(&pod("cart-1", "v1").build());
    let written = slice("cart-x", "cart").port("http", 8080);
    let written = written.pod("cart-1", "10.6.6.6").of_namespace(NAMESPACE);
    world.apply_slice(&hostile(written.build(), |s| &mut s.metadata));
    let name = "outbound|80||cart.evil.svc.cluster.local";
    assert_eq!(look::endpoints(&world, name), Some(Vec::new()));
    let touched = world.apply_pod(&pod("cart-1", "v1").unready().build());
    assert!(touched.is_empty(), "nor do they hear of it");

    // By address alone it is nobody: stable as its slice says, under no one's name.
    let written = slice("cart-x", "cart").port("http", 8080);
    let written = written.address("10.1.0.1", true);
    world.apply_slice(&hostile(written.build(), |s| &mut s.metadata));
    world.apply_split(&hostile(split("cart", "cart").weight(50).build(), |s| {
        &mut s.metadata
    }));
    for (arm, expected) in [("", 1), ("stable", 1), ("candidate", 0)] {
        let name = format!("outbound|80|{arm}|cart.evil.svc.cluster.local");
        let endpoints = look::assignment(&world, &name).unwrap();
        assert_eq!(endpoints.len(), expected, "{arm}");
        for endpoint in endpoints {
            let facts =
                sluice_xds::metadata::EndpointFacts::from_metadata(&endpoint.metadata.unwrap());
            assert_eq!(facts.unwrap(), Default::default());
        }
    }
}
