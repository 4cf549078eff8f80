//! What goes wrong between two looks: each a case that the model check (`tests/model`) found.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_crds::{FailureAction, MeshRolloutSpec, Step};
use sluice_rollout::observation::{DeploymentView, Observation, RunningRevision, Workload};
use sluice_rollout::project::project;
use sluice_rollout::state::{DeploymentSeen, Outcome, Phase, PromotionStage};
use world::{World, policy};

fn deployment(seen: &mut Observation) -> &mut DeploymentView {
    match &mut seen.workload {
        Workload::Deployment(view) => view,
        _ => panic!("mode A"),
    }
}

fn promoting(stage: PromotionStage) -> World {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    while *world.phase() != (Phase::Promoting { stage }) {
        let seen = world.seen();
        let decision = world.decide(&seen);
        world.store(decision);
        if *world.phase() == (Phase::Promoting { stage }) {
            break;
        }
        world.run(1);
    }
    world
}

#[test]
fn a_retry_that_was_written_before_the_verdict_does_not_overrule_it() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.turn();
    world.policy = policy(|spec| spec.retry = "early".to_owned());
    world.run(120);
    assert_eq!(world.weights, [0, 10, 0]);
    assert_eq!(world.state.rejected[0].revision, "v2");
    world.policy = policy(|spec| spec.retry = "now".to_owned());
    world.bad.clear();
    world.run(120);
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_look_at_an_older_deployment_forgets_no_rejection() {
    let mut world = World::new(policy(|_| {}));
    let mut past = world.seen();
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    assert_eq!(world.state.rejected[0].revision, "v2");
    world.state.deployment_seen = Some(DeploymentSeen {
        uid: world.uid.clone(),
        generation: 2,
    });
    assert_eq!(world.decide(&past).state, world.state, "a stale list");
    // The same as a commit of now.
    deployment(&mut past).generation = 3;
    assert!(world.decide(&past).state.rejected.is_empty());
    // A Deployment that was made anew counts from the beginning.
    deployment(&mut past).generation = 1;
    deployment(&mut past).uid = "another".to_owned();
    assert!(world.decide(&past).state.rejected.is_empty());
}

#[test]
fn a_revision_that_ran_everywhere_before_it_could_be_held_is_stable() {
    let mut world = World::new(policy(|_| {}));
    world.held_by_webhook = false;
    world.commit("v2");
    let seen = world.seen();
    let decision = world.decide(&seen);
    world.store(decision);
    assert_eq!(world.phase(), &Phase::Preparing);
    // The leader dies here, and the Deployment goes on.
    world.cluster();
    world.run(60);
    assert_eq!(world.stable(), "v2");
    assert_eq!(world.phase(), &Phase::Idle);
    assert!(!world.paused && world.ours.is_empty());
}

#[test]
fn a_new_revision_after_the_adoption_is_tried_beside_the_adopted_one() {
    let mut world = promoting(PromotionStage::Release);
    world.commit("v3");
    let mut seen = world.seen();
    // The adopted pods are the only ones.
    deployment(&mut seen).running = vec![RunningRevision {
        revision: "v2".to_owned(),
        pods: 4,
        ready: 4,
        ..RunningRevision::default()
    }];
    let decision = world.decide(&seen);
    world.store(decision);
    assert_eq!(world.stable(), "v2", "v1 has no pods any more");
    assert_eq!(world.state.history[0].outcome, Outcome::Promoted);
    assert_eq!(world.state.weight, 0);
}

#[test]
fn a_new_revision_before_the_adoption_takes_the_weight_off_before_the_pods_go() {
    let mut world = promoting(PromotionStage::Adopt);
    world.commit("v3");
    let seen = world.seen();
    let decision = world.decide(&seen);
    world.store(decision);
    assert_eq!(world.state.weight, 0);
    assert!(matches!(world.phase(), Phase::RollingBack { .. }));
    let candidate = world.state.candidate.as_ref().unwrap();
    assert_eq!(candidate.arm.revision, "v2", "its pods stay meanwhile");
    world.run(200);
    assert_eq!(world.stable(), "v3");
}

#[test]
fn what_is_being_replaced_is_not_judged_any_more() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(15);
    world.commit("v3");
    let mut seen = world.seen();
    seen.evidence.condemned = Some("failed 300 of 1000 requests".to_owned());
    let decision = world.decide(&seen);
    assert!(decision.state.rejected.is_empty());
    let ends: Vec<_> = decision.state.history.iter().map(|e| e.outcome).collect();
    assert_eq!(ends, [Outcome::Replaced]);
}

#[test]
fn no_weight_is_added_while_a_rollback_waits_for_a_stable_pod() {
    let mut world = World::new(policy(|spec: &mut MeshRolloutSpec| {
        let weight = |weight| Step {
            weight: Some(weight),
            ..Step::default()
        };
        spec.strategy.steps = vec![weight(50), weight(100)];
    }));
    world.commit("v2");
    while world.phase().step() != Some(1) {
        world.run(1);
    }
    let mut seen = world.seen();
    let view = deployment(&mut seen);
    view.running
        .iter_mut()
        .for_each(|running| running.ready = 0);
    let ours = view.candidate.as_mut().unwrap();
    (ours.containers_ready, ours.replicas) = (4, 4);
    seen.evidence.condemned = Some("failed 300 of 1000 requests".to_owned());
    world.state.phase = Phase::Shifting { step: 1 };
    world.state.weight = 50;
    let decision = world.decide(&seen);
    assert_eq!(decision.state.weight, 50);
    assert!(
        decision
            .state
            .verdict
            .contains("waits for a ready stable pod")
    );
}

#[test]
fn a_promotion_that_is_taken_back_at_weight_0_has_a_fence_of_its_own() {
    for action in [FailureAction::Rollback, FailureAction::Pause] {
        let mut world = promoting(PromotionStage::OpenGates);
        world.policy.on_failure = action;
        let mut seen = world.seen();
        deployment(&mut seen)
            .candidate
            .as_mut()
            .unwrap()
            .containers_ready = 0;
        let decision = world.decide(&seen);
        world.store(decision);
        assert_eq!(world.state.weight, 0, "no pods, no weight");
        let open = project(&world.policy, &world.state, &seen).split.unwrap();
        seen.evidence.condemned = Some("failed 300 of 1000 requests".to_owned());
        let decision = world.decide(&seen);
        world.store(decision);
        let back = project(&world.policy, &world.state, &seen).split.unwrap();
        assert!(!open.leased && back.leased);
        assert!(
            back.fence > open.fence,
            "the apiserver refuses one fence for two splits"
        );
    }
}

#[test]
fn proxies_are_waited_for_from_when_the_split_tells_them() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    while !matches!(world.phase(), Phase::RollingBack { .. }) {
        world.run(1);
        let seen = world.seen();
        let decision = world.decide(&seen);
        world.store(decision);
    }
    // The leader dies before it writes the split; the next one comes a minute later.
    world.now += 60_000;
    world.turn();
    assert!(matches!(world.phase(), Phase::RollingBack { .. }));
    assert_eq!(
        world.ours[0].replicas, 1,
        "the split has only just been written"
    );
    world.cluster();
    world.turn();
    assert!(matches!(world.phase(), Phase::Rejected { .. }));
}
