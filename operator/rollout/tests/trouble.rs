//! Trouble of pods, replicas, the workload and people's hands, against the small model of a
//! cluster, in virtual time.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_rollout::conditions::conditions;
use sluice_rollout::desired::Hold;
use sluice_rollout::observation::Workload;
use sluice_rollout::project::project;
use sluice_rollout::state::{Outcome, Phase, PromotionStage, State};
use world::{World, policy};

fn message(world: &World, kind: &str) -> String {
    let all = conditions(Ok(&world.policy), &world.state, &world.seen(), world.now);
    let found = all.iter().find(|c| c.kind == kind);
    found.map(|c| c.message.clone()).unwrap_or_default()
}

#[test]
fn scaled_to_zero_in_the_middle_it_waits_without_a_deadline_and_goes_on_afterwards() {
    let mut world = World::new(policy(|spec| spec.deadline = "10m".to_owned()));
    world.commit("v2");
    world.run(30);
    assert!(world.state.weight > 0);
    world.replicas = 0;
    world.run(3600);
    assert_eq!((world.state.weight, world.ours[0].replicas), (0, 0));
    assert!(message(&world, "Reconciling").contains("scaled to zero"));
    world.replicas = 4;
    world.run(120);
    assert_eq!(world.stable(), "v2");
    assert_eq!(
        world
            .weights
            .iter()
            .filter(|weight| **weight == 100)
            .count(),
        1
    );
}

#[test]
fn a_rejected_revision_stays_rejected_when_nothing_runs() {
    let mut world = World::new(policy(|spec| {
        spec.on_failure.keep_candidate_for = "60s".to_owned();
    }));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(30);
    world.replicas = 0;
    world.run(120);
    assert_eq!(world.stable(), "v1");
    assert!(matches!(world.phase(), Phase::Rejected { .. }));
    assert!(world.paused && world.ours.is_empty());
}

#[test]
fn a_new_revision_of_a_workload_at_zero_is_stable_at_once() {
    let mut world = World::new(policy(|_| {}));
    world.replicas = 0;
    world.run(3);
    world.commit("v2");
    world.run(3);
    assert_eq!(world.stable(), "v2");
    assert!(!world.paused);
}

#[test]
fn scaled_to_zero_while_it_is_handed_over_it_is_stable() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    let adopt = Phase::Promoting {
        stage: PromotionStage::Adopt,
    };
    while world.phase() != &adopt {
        world.turn();
        world.cluster();
        world.now += 1000;
    }
    world.replicas = 0;
    world.run(5);
    assert_eq!(world.stable(), "v2");
    assert!(!world.paused);
}

#[test]
fn a_workload_made_anew_is_met_for_the_first_time() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(30);
    assert!(world.state.weight > 0);
    let fence = world.state.fence;
    // It was deleted with all of its pods, and git has applied its last commit.
    world.uid = "another".to_owned();
    world.ours.clear();
    world.native = ("v2".to_owned(), 4);
    world.paused = false;
    world.run(5);
    assert_eq!((world.stable(), world.state.weight), ("v2", 0));
    assert!(world.state.fence > fence);
    assert_eq!(world.state.history[0].outcome, Outcome::Replaced);
    assert!(world.events.contains(&"WorkloadReplaced".to_owned()));
    assert!(message(&world, "Ready").contains("v2 serves"));
    world.commit("v3");
    world.run(120);
    assert_eq!(world.stable(), "v3");
}

#[test]
fn what_a_person_has_paused_is_left_so() {
    let mut world = World::new(policy(|_| {}));
    world.paused = true;
    let mut seen = world.seen();
    let Workload::Deployment(view) = &mut seen.workload else {
        panic!("mode A")
    };
    view.paused_by_hand = Some("kubectl-rollout".to_owned());
    view.revision = "v2".to_owned();
    let decision = world.decide(&seen);
    assert_eq!(decision.state.phase, Phase::Idle);
    let desired = project(&world.policy, &decision.state, &seen);
    assert_eq!(desired.hold, Hold::Leave);
    let all = conditions(Ok(&world.policy), &decision.state, &seen, world.now);
    assert!(all[0].message.contains("kubectl-rollout has paused"));
}

#[test]
fn the_deadline_tells_what_kept_the_pods_from_serving() {
    let mut world = World::new(policy(|spec| spec.deadline = "60s".to_owned()));
    world.slow_pods = true;
    world.trouble = Some("pod web-1, container app: CrashLoopBackOff".to_owned());
    world.commit("v2");
    world.run(10);
    let told = message(&world, "Reconciling");
    assert!(
        told.contains("0 of 1 candidate pods are ready (pod web-1, container app"),
        "{told}"
    );
    assert!(world.state.verdict.contains("CrashLoopBackOff"));
    world.run(80);
    let told = message(&world, "Stalled");
    assert!(
        told.contains("the deadline of 60 s is over, and 0 of 1 candidate pods"),
        "{told}"
    );
    assert!(told.contains("CrashLoopBackOff"), "{told}");
    assert_eq!(world.weights, [0]);
}

#[test]
fn trouble_that_is_over_is_not_told_any_more() {
    let mut world = World::new(policy(|_| {}));
    world.slow_pods = true;
    world.trouble = Some("exceeded quota".to_owned());
    world.commit("v2");
    world.run(10);
    world.slow_pods = false;
    world.trouble = None;
    world.run(10);
    assert!(world.state.weight > 0);
    assert_eq!(world.state.verdict, "");
}

#[test]
fn a_step_waits_for_proxies_that_are_away_and_says_so() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(8);
    let mut seen = world.seen();
    (seen.split.applied, seen.split.away) = (3, 1);
    world.now += 60_000;
    let decision = world.decide(&seen);
    assert_eq!(decision.state.weight, world.state.weight);
    for phase in [Phase::Shifting { step: 0 }, decision.state.phase.clone()] {
        let state = State {
            phase,
            ..decision.state.clone()
        };
        let all = conditions(Ok(&world.policy), &state, &seen, world.now);
        let told = all.iter().find(|c| c.kind == "Reconciling").unwrap();
        let waits = "waiting for 1 of 4 proxies to be heard of again";
        assert!(told.message.contains(waits), "{}", told.message);
    }
}

#[test]
fn a_clock_that_jumps_passes_no_step_without_evidence_and_rejects_nobody() {
    for jump in [-7_200_000, 3_600_000] {
        let mut world = World::new(policy(|_| {}));
        world.commit("v2");
        while world.state.weight != 10 {
            world.turn();
            world.cluster();
            world.now += 1_000;
        }
        world.unconvinced = true;
        world.run(2);
        world.now += jump;
        world.run(60);
        assert_eq!(world.state.weight, 10, "after {jump} ms");
        assert!(world.state.rejected.is_empty());
        world.unconvinced = false;
        // What is left of a hold that began in the future is waited for.
        world.run(7_500);
        assert_eq!(world.stable(), "v2", "after {jump} ms");
    }
}
