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
        ..DeploymentSeen::default()
    });
    assert_eq!(world.decide(&past).state, world.state, "a stale list");
    // The same as a commit of now.
    deployment(&mut past).generation = 3;
    assert!(world.decide(&past).state.rejected.is_empty());
    // A Deployment that was made anew counts from the beginning.
    deployment(&mut past).generation = 1;
    deployment(&mut past).uid = "another".to_owned();
    assert!(matches!(
        world.decide(&past).state.phase,
        Phase::RollingBack { .. }
    ));
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

#[test]
fn a_list_that_shows_a_deployment_that_has_ended_is_of_the_past() {
    let mut world = World::new(policy(|_| {}));
    let before = world.seen();
    world.uid = "another".to_owned();
    world.run(5);
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    assert_eq!(world.state.rejected[0].revision, "v2");
    assert_eq!(world.decide(&before).state, world.state, "a stale list");
    // Under another name it would be another workload, which the spec has named once more.
    let mut renamed = before;
    deployment(&mut renamed).name = "ratings".to_owned();
    let left = world.decide(&renamed).state;
    assert!(matches!(left.phase, Phase::RollingBack { .. }));
}

#[test]
fn what_runs_alone_serves_where_a_promotion_came_to_its_end_unseen() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v3");
    let mut seen = world.seen();
    let alone = |revision: &str| RunningRevision {
        revision: revision.to_owned(),
        pods: 4,
        ready: 4,
        ..RunningRevision::default()
    };
    deployment(&mut seen).running = vec![alone("v2")];
    let decision = world.decide(&seen);
    assert_eq!(decision.state.stable.unwrap().revision, "v2");
    assert_eq!(decision.state.candidate.unwrap().arm.revision, "v3");
    // Stable is what git wants: an old look may show the pods of before.
    let seen = Observation {
        workload: Workload::Deployment(DeploymentView {
            running: vec![alone("v0")],
            complete: false,
            ..deployment(&mut World::new(policy(|_| {})).seen()).clone()
        }),
        ..seen
    };
    assert_eq!(world.decide(&seen).state.stable.unwrap().revision, "v1");
}

#[test]
fn a_list_of_before_the_adoption_has_no_second_replica_set_made() {
    let world = promoting(PromotionStage::Release);
    let mut seen = world.seen();
    deployment(&mut seen).candidate = None;
    assert_eq!(project(&world.policy, &world.state, &seen).candidate, None);
}
