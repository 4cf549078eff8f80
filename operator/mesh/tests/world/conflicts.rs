//! More than one split for a Service.

use sluice_mesh::{Input, SplitConflict, Standing};

use crate::{
    ROUTE, cart,
    fixtures::{key, split},
    look,
};

#[test]
fn the_older_split_wins_and_the_younger_one_is_named() {
    let mut world = cart();
    world.apply_split(&split("a-young", "cart").weight(50).created(2).build());
    world.apply_split(&split("z-old", "cart").weight(10).created(1).build());
    assert_eq!(look::route(&world, ROUTE).unwrap()[1].1, 10);
    let conflict = SplitConflict {
        service: key("cart"),
        winner: key("z-old"),
        loser: key("a-young"),
    };
    assert_eq!(world.split_conflicts(), [conflict]);
    assert_eq!(
        world.split_status(&key("a-young")),
        Some(vec![(
            key("cart"),
            Standing::Overruled { by: key("z-old") }
        )])
    );
    assert_eq!(
        world.split_status(&key("z-old")),
        Some(vec![(key("cart"), Standing::InForce)])
    );
}

#[test]
fn of_two_of_one_age_the_first_by_name_wins() {
    let mut world = cart();
    world.apply_split(&split("b", "cart").weight(50).build());
    world.apply_split(&split("a", "cart").weight(10).build());
    assert_eq!(look::route(&world, ROUTE).unwrap()[1].1, 10);
}

#[test]
fn a_change_of_the_losing_split_touches_nothing() {
    let mut world = cart();
    world.apply_split(&split("a", "cart").created(1).build());
    world.apply_split(&split("b", "cart").created(2).build());
    let touched = world.apply_split(&split("b", "cart").created(2).weight(50).build());
    assert!(touched.is_empty());
}

#[test]
fn when_the_winner_goes_the_other_one_holds() {
    let mut world = cart();
    world.apply_split(&split("a", "cart").weight(10).created(1).build());
    world.apply_split(&split("b", "cart").weight(50).created(2).build());
    let touched = world.remove(Input::Split, &key("a"));
    assert!(!touched.is_empty());
    assert_eq!(look::route(&world, ROUTE).unwrap()[1].1, 50);
    assert!(world.split_conflicts().is_empty());
}

#[test]
fn a_split_of_a_service_that_does_not_exist_says_so() {
    let mut world = cart();
    assert!(world.apply_split(&split("x", "nothing").build()).is_empty());
    assert_eq!(
        world.split_status(&key("x")),
        Some(vec![(key("nothing"), Standing::NoService)])
    );
    assert_eq!(world.split_status(&key("unknown")), None);
}
