//! Commits, deaths, lost pods and late looks in any order: the invariants hold, and the rollout
//! ends.
#![allow(clippy::unwrap_used)]

mod world;

use proptest::prelude::*;
use sluice_rollout::state::Phase;
use world::{World, policy};

/// What may happen in a second.
#[derive(Debug, Clone)]
enum Chance {
    Nothing,
    Commit(u8),
    Dies,
    DiesAfterStatus,
    SeesThePast,
    LosesPods,
    Replicas(i32),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        6 => Just(Chance::Nothing),
        1 => (1u8..4).prop_map(Chance::Commit),
        1 => Just(Chance::Dies),
        1 => Just(Chance::DiesAfterStatus),
        1 => Just(Chance::SeesThePast),
        1 => Just(Chance::LosesPods),
        1 => (1i32..8).prop_map(Chance::Replicas),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_the_rollout_ends(
        chances in prop::collection::vec(chance(), 1..80),
        last in 1u8..4,
        bad in any::<bool>(),
    ) {
        let mut world = World::new(policy(|_| {}));
        let mut past = world.seen();
        for chance in chances {
            let seen = world.seen();
            match chance {
                Chance::Nothing => world.turn(),
                Chance::Commit(n) => {
                    world.commit(&format!("v{n}"));
                    world.turn();
                }
                // The operator dies before it could write anything.
                Chance::Dies => {}
                Chance::DiesAfterStatus => {
                    let decision = world.decide(&seen);
                    world.store(decision);
                }
                Chance::SeesThePast => {
                    let decision = world.decide(&past);
                    world.store(decision);
                }
                Chance::LosesPods => {
                    world.ours.iter_mut().for_each(|o| o.ready = 0);
                    world.turn();
                }
                Chance::Replicas(n) => world.replicas = n,
            }
            past = seen;
            world.cluster();
            world.now += 1000;
        }
        let revision = format!("v{last}");
        if bad && revision != world.stable() {
            world.bad.push(revision.clone());
        }
        world.commit(&revision);
        world.run(400);
        let ended = matches!(world.phase(), Phase::Idle | Phase::Rejected { .. });
        prop_assert!(ended, "{:?}", world.state);
        if *world.phase() == Phase::Idle {
            prop_assert_eq!(world.stable(), revision.as_str());
        }
    }
}
