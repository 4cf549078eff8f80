//! An autoscaler changes `replicas` while a revision is tried, and goes by the load of stable pods.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_crds::FailureAction;
use sluice_rollout::conditions::conditions;
use sluice_rollout::desired::{Desired, ScaleDown};
use sluice_rollout::observation::UnheldAutoscaler;
use sluice_rollout::project::project;
use sluice_rollout::state::{Phase, State};
use world::{World, policy};

fn desired(world: &World) -> Desired {
    project(&world.policy, &world.state, &world.seen())
}

fn at_weight(weight: i32) -> World {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    while world.state.weight < weight {
        world.run(1);
    }
    world.run(2);
    world
}

#[test]
fn nothing_is_taken_from_stable_from_the_candidates_first_pod_until_it_is_promoted() {
    let mut world = World::new(policy(|_| {}));
    assert_eq!(desired(&world).scale_down, ScaleDown::Free { since: 0 });
    world.commit("v2");
    let mut held = Vec::new();
    while world.stable() != "v2" {
        world.turn();
        if world.state.candidate.is_some() {
            assert_eq!(
                desired(&world).scale_down,
                ScaleDown::Hold,
                "{:?}",
                world.phase()
            );
            held.push(world.phase().name());
        }
        world.cluster();
        world.now += 1000;
    }
    held.dedup();
    assert_eq!(
        (held.first(), held.last()),
        (Some(&"Preparing"), Some(&"Promoting"))
    );
    let since = world.state.history[0].at;
    assert_eq!(desired(&world).scale_down, ScaleDown::Free { since });
}

#[test]
fn a_rejected_revision_lets_go_of_the_autoscaler_as_of_its_verdict() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    while world.state.rejected.is_empty() {
        world.run(1);
    }
    let since = world.state.rejected[0].at;
    for _ in 0..60 {
        assert_eq!(desired(&world).scale_down, ScaleDown::Free { since });
        world.run(1);
    }
    assert!(matches!(world.phase(), Phase::Rejected { .. }));
}

#[test]
fn a_condemned_revision_that_waits_for_a_person_holds_nothing() {
    let mut world = World::new(policy(|spec| spec.on_failure.action = FailureAction::Pause));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    let Phase::Paused { since, .. } = *world.phase() else {
        panic!("{:?}", world.phase());
    };
    assert_eq!(desired(&world).scale_down, ScaleDown::Free { since });
}

#[test]
fn a_workload_that_another_rollout_governs_keeps_its_autoscaler() {
    let world = at_weight(50);
    let mut seen = world.seen();
    seen.conflict = Some("reviews-old".to_owned());
    let desired = project(&world.policy, &world.state, &seen);
    assert_eq!(desired.scale_down, ScaleDown::Leave);
    let first = project(&world.policy, &State::default(), &world.seen());
    assert_eq!(first.scale_down, ScaleDown::Leave);
}

#[test]
fn more_replicas_bring_more_candidate_pods_before_they_get_any_more_weight() {
    let mut world = at_weight(50);
    assert_eq!((world.replicas, world.ours[0].replicas), (4, 2));
    world.slow_pods = true;
    world.replicas = 10;
    world.run(1);
    assert_eq!(
        world.ours[0].replicas, 5,
        "half of the load, half of the pods"
    );
    assert_eq!(world.state.weight, 20, "two of ten are ready");
    assert!(world.events.contains(&"CapacityLost".to_owned()));
    world.run(60);
    assert_eq!(world.state.weight, 20);
    world.slow_pods = false;
    world.run(2);
    assert_eq!(world.state.weight, 50);
    world.run(120);
    assert_eq!(world.stable(), "v2");
    assert_eq!(world.native.1, 10);
}

#[test]
fn fewer_replicas_take_no_pod_away_that_serves_a_share() {
    let mut world = at_weight(75);
    assert_eq!(world.ours[0].replicas, 3);
    world.replicas = 1;
    world.run(3);
    assert_eq!((world.ours[0].replicas, world.state.weight), (3, 75));
    while matches!(
        world.phase(),
        Phase::Shifting { .. } | Phase::Observing { .. }
    ) {
        assert!(world.ours[0].replicas >= 3, "{:?}", world.phase());
        world.run(1);
    }
    world.run(60);
    assert_eq!(
        (world.stable(), world.native.1),
        ("v2", 1),
        "the Deployment's own number at the end"
    );
}

#[test]
fn a_workload_that_is_scaled_to_zero_keeps_no_candidate_pod() {
    let mut world = at_weight(75);
    world.replicas = 0;
    world.run(1);
    assert_eq!(world.ours[0].replicas, 0);
}

#[test]
fn an_autoscaler_that_git_keeps_for_itself_is_named_while_it_matters() {
    let mut world = World::new(policy(|_| {}));
    let told = |world: &World| {
        let mut seen = world.seen();
        seen.unheld = Some(UnheldAutoscaler {
            name: "reviews".to_owned(),
            manager: "kustomize-controller".to_owned(),
        });
        conditions(Ok(&world.policy), &world.state, &seen, world.now)
    };
    assert!(!told(&world).iter().any(|c| c.kind == "AutoscalerNotHeld"));
    world.commit("v2");
    world.run(15);
    let all = told(&world);
    let unheld = all.iter().find(|c| c.kind == "AutoscalerNotHeld").unwrap();
    assert!(unheld.message.contains("HorizontalPodAutoscaler reviews"));
    assert!(unheld.message.contains("kustomize-controller sets"));
    assert_eq!(all[0].status, "Unknown", "it is no obstacle: {all:?}");
}
