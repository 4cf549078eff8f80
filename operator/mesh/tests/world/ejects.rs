//! A candidate that the leader has taken off traffic without writing its split.

use sluice_crds::TrafficSplit;
use sluice_mesh::{Eject, Input, World};
use sluice_xds::{Kind, ResourceName};

use crate::{
    ROUTE, cart,
    fixtures::{key, split},
    look,
};

/// Of the revision that the fixtures' splits are about.
fn eject(fence: i64) -> Eject {
    Eject {
        revision: "rev-2".to_owned(),
        fence,
        since_ms: 0,
        why: "it fails".to_owned(),
    }
}

fn version(fence: i64, weight: i32) -> TrafficSplit {
    split("cart", "cart").fence(fence).weight(weight).build()
}

fn at(fence: i64, weight: i32) -> World {
    let mut world = cart();
    world.apply_split(&version(fence, weight));
    world
}

#[track_caller]
fn check(world: &World, candidate: u32, fence: i64) {
    assert_eq!(look::route(world, ROUTE).unwrap()[1].1, candidate);
    assert_eq!(look::route_facts(world, ROUTE).fence, fence);
}

#[test]
fn an_ejected_candidate_gets_nothing_until_a_higher_fence_comes() {
    let mut world = at(5, 25);
    let touched = world.eject(&key("cart"), eject(5));
    assert_eq!(touched, [ResourceName::new(Kind::Route, ROUTE)]);
    // Without its fence: who routes so has not applied the split.
    check(&world, 0, 0);
    // The same again, as a watch that starts over tells it.
    assert!(world.apply_split(&version(5, 25)).is_empty());
    check(&world, 0, 0);
    world.apply_split(&version(6, 10));
    check(&world, 10, 6);
    assert!(world.ejects().is_empty());
}

#[test]
fn an_old_eject_cannot_touch_a_newer_fence() {
    let mut world = at(5, 25);
    assert!(world.eject(&key("cart"), eject(4)).is_empty());
    check(&world, 25, 5);
    world.eject(&key("cart"), eject(5));
    assert!(world.eject(&key("cart"), eject(4)).is_empty());
    check(&world, 0, 0);
}

#[test]
fn an_eject_of_another_revision_changes_nothing() {
    let mut world = at(5, 25);
    let before = look::version(&world, Kind::Route, ROUTE);
    let other = Eject {
        revision: "rev-1".to_owned(),
        ..eject(5)
    };
    world.eject(&key("cart"), other);
    check(&world, 25, 5);
    assert_eq!(look::version(&world, Kind::Route, ROUTE), before);
}

#[test]
fn an_eject_reaches_a_split_that_a_lagging_watch_shows_late() {
    let mut world = at(5, 0);
    world.eject(&key("cart"), eject(6));
    world.apply_split(&version(6, 10));
    check(&world, 0, 0);
    assert_eq!(world.ejects().get(&key("cart")), Some(&eject(6)));
}

#[test]
fn an_eject_goes_with_its_split_and_comes_to_none_that_is_not_there() {
    let mut world = at(5, 25);
    world.eject(&key("cart"), eject(5));
    world.remove(Input::Split, &key("cart"));
    world.apply_split(&version(5, 25));
    check(&world, 25, 5);
    assert!(world.eject(&key("nothing"), eject(5)).is_empty());
    assert!(world.ejects().is_empty());
}
