//! Capacity before weight, in every phase, against the small model of a cluster in virtual time.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_crds::{MeshRolloutSpec, Pause, Step};
use sluice_rollout::observation::{
    Contest, DeploymentView, Observation, RunningRevision, Witness, Workload,
};
use sluice_rollout::state::{PauseReason, Phase, PromotionStage};
use world::{World, policy};

/// At 50 %, which two of four pods bear.
fn at_fifty(change: impl FnOnce(&mut MeshRolloutSpec)) -> World {
    let mut world = World::new(policy(change));
    world.commit("v2revision");
    while world.state.weight != 50 || !matches!(world.phase(), Phase::Observing { .. }) {
        world.run(1);
    }
    world.slow_pods = true;
    world
}

fn deployment(seen: &mut Observation) -> &mut DeploymentView {
    match &mut seen.workload {
        Workload::Deployment(view) => view,
        _ => panic!("mode A"),
    }
}

fn pause_step(spec: &mut MeshRolloutSpec) {
    let weight = |weight| Step {
        weight: Some(weight),
        ..Step::default()
    };
    let pause = Step {
        pause: Some(Pause::default()),
        ..Step::default()
    };
    spec.strategy.steps = vec![weight(50), pause, weight(100)];
}

fn contest(witness: Witness) -> Option<Contest> {
    Some(Contest {
        witness,
        why: "one alone says that it fails".to_owned(),
    })
}

/// A world at 50 %, in each of the pauses that keep a weight.
fn paused() -> Vec<World> {
    let mut outage = at_fifty(|_| {});
    outage.shared_outage = true;
    let mut command = at_fifty(|_| {});
    command.command = "pause@v2revision".to_owned();
    let mut contested = at_fifty(|_| {});
    contested.contested = contest(Witness::Proxy("shop/forger".to_owned()));
    let mut step = at_fifty(pause_step);
    while !matches!(step.phase(), Phase::Paused { .. }) {
        step.run(1);
    }
    let mut all = vec![outage, command, contested, step];
    for world in &mut all {
        world.run(2);
        assert!(matches!(world.phase(), Phase::Paused { .. }));
        assert_eq!(world.state.weight, 50);
    }
    all
}

#[test]
fn pods_lost_in_a_pause_take_the_weight_with_them_and_bring_it_back_within_it() {
    for mut world in paused() {
        let began = world.phase().clone();
        for (ready, weight) in [(1, 25), (0, 0), (1, 0), (2, 50), (4, 50)] {
            world.ours[0].ready = ready;
            world.turn();
            assert_eq!(world.state.weight, weight, "{ready} pods in {began:?}");
            assert_eq!(world.phase(), &began);
        }
        assert!(world.events.contains(&"CapacityLost".to_owned()));
    }
}

#[test]
fn pods_lost_in_the_very_look_that_pauses_take_the_weight_too() {
    let mut world = at_fifty(|_| {});
    world.shared_outage = true;
    world.ours[0].ready = 0;
    world.turn();
    let Phase::Paused { why, weight, .. } = world.phase() else {
        panic!("{:?}", world.phase());
    };
    assert_eq!((why, *weight), (&PauseReason::SharedOutage, 50));
    assert_eq!(world.state.weight, 0);
    world.ours[0].ready = 2;
    world.turn();
    assert_eq!(world.state.weight, 50);
}

#[test]
fn a_pause_while_pods_are_lacking_stands_for_what_was_earned_before() {
    let mut world = at_fifty(|_| {});
    world.ours[0].ready = 0;
    world.turn();
    assert_eq!(world.state.weight, 0);
    world.command = "pause@v2revision".to_owned();
    world.turn();
    world.ours[0].ready = 4;
    world.run(60);
    assert_eq!(world.state.weight, 50, "and no more, until `resume`");
    assert!(matches!(world.phase(), Phase::Paused { .. }));
}

#[test]
fn pods_lost_while_git_pauses_the_deployment_take_the_weight_too() {
    let mut world = at_fifty(|_| {});
    world.ours[0].ready = 0;
    let mut seen = world.seen();
    deployment(&mut seen).paused_by_git = Some("kustomize-controller".to_owned());
    let decision = world.decide(&seen);
    assert_eq!(decision.state.weight, 0);
    assert_eq!(decision.state.phase, *world.phase());
}

#[test]
fn where_no_stable_pod_is_ready_either_nothing_is_taken() {
    let mut world = at_fifty(|_| {});
    world.ours[0].ready = 0;
    world.starting = true;
    world.turn();
    assert_eq!(world.state.weight, 50);
    world.starting = false;
    world.turn();
    assert_eq!(world.state.weight, 0);
}

#[test]
fn pods_lost_while_they_are_handed_over_take_nothing_because_stable_is_on_its_way_out() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2revision");
    let stage = PromotionStage::Adopt;
    while world.phase() != &(Phase::Promoting { stage }) {
        world.turn();
        world.cluster();
        world.now += 1000;
    }
    // A list of before: our ReplicaSet is not in it, and stable's pods are.
    let mut past = world.seen();
    let view = deployment(&mut past);
    view.candidate = None;
    view.running = vec![RunningRevision {
        revision: "v1".to_owned(),
        ready: 4,
        ..RunningRevision::default()
    }];
    assert_eq!(world.decide(&past).state.weight, 100);
}
