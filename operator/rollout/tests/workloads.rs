//! A workload that the spec names no more, or that was deleted, against the small model of a
//! cluster in virtual time.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_crds::Versions;
use sluice_rollout::desired::{Hold, ScaleDown};
use sluice_rollout::observation::{DeploymentView, Observation, SubsetsView, Workload};
use sluice_rollout::policy::Policy;
use sluice_rollout::project::project;
use sluice_rollout::state::{Outcome, Phase, State};
use world::{World, policy};

/// In mid-rollout.
fn trying() -> World {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(30);
    assert!(world.state.weight > 0);
    world
}

/// The spec names another Deployment, which runs.
fn renamed() -> World {
    let mut world = trying();
    world.deployment = "ratings".to_owned();
    world.uid = "ratings".to_owned();
    world.git = "w1".to_owned();
    world.native = ("w1".to_owned(), 4);
    world.paused = false;
    world
}

fn versions() -> Policy {
    policy(|spec| {
        spec.workload = None;
        spec.versions = Some(Versions {
            label: "version".to_owned(),
            stable: "blue".to_owned(),
            candidate: "green".to_owned(),
        });
    })
}

#[test]
fn a_candidate_of_a_workload_that_is_named_no_more_leaves_traffic_before_its_pods_go() {
    let mut world = renamed();
    let fence = world.state.fence;
    world.turn();
    assert_eq!(world.state.weight, 0);
    assert!(world.state.fence > fence);
    // The shim keeps the pods of the revision that the state is about.
    assert_eq!(world.state.candidate.as_ref().unwrap().arm.revision, "v2");
    assert_eq!(world.state.history[0].outcome, Outcome::Replaced);
    world.run(9);
    let split = world.seen().split;
    assert_eq!((split.behind, split.fence), (0, Some(world.state.fence)));
    assert!(
        world.state.candidate.is_some(),
        "these are other Services: who routes to the old pods is not known, and gets its time"
    );
    world.run(2);
    assert_eq!(world.state.candidate, None);
}

#[test]
fn the_workload_that_is_named_now_is_left_alone_until_it_is_met() {
    let mut world = renamed();
    world.turn();
    let desired = project(&world.policy, &world.state, &world.seen());
    assert_eq!(
        (desired.hold, desired.scale_down),
        (Hold::Leave, ScaleDown::Leave)
    );
    assert_eq!(desired.candidate, None);
    world.run(20);
    assert_eq!(world.stable(), "w1");
    assert!(!world.paused && world.events.contains(&"WorkloadReplaced".to_owned()));
    world.commit("w2");
    world.run(120);
    assert_eq!(world.stable(), "w2");
}

#[test]
fn a_rejection_says_nothing_of_another_workload() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    assert!(matches!(world.phase(), Phase::Rejected { .. }));
    world.deployment = "ratings".to_owned();
    world.uid = "ratings".to_owned();
    world.git = "v1".to_owned();
    world.paused = false;
    world.bad.clear();
    world.run(20);
    assert_eq!(world.stable(), "v1");
    world.commit("v2");
    world.run(120);
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_rename_that_is_taken_back_at_once_tries_the_revision_again() {
    let before = trying();
    let mut world = renamed();
    world.turn();
    world.deployment.clone_from(&before.deployment);
    world.uid.clone_from(&before.uid);
    world.git.clone_from(&before.git);
    world.native.clone_from(&before.native);
    world.paused = true;
    world.run(150);
    assert_eq!(world.stable(), "v2");
}

/// One look after another at this, a second apart.
fn look(state: &State, policy: &Policy, seen: &Observation, now: &mut i64, turns: u32) -> State {
    let mut state = state.clone();
    for _ in 0..turns {
        *now += 1000;
        let mut seen = seen.clone();
        seen.split.fence = Some(state.fence);
        let decision = sluice_rollout::decide::decide(policy, &state, &seen, *now);
        sluice_rollout::invariants::check(policy, &state, &decision.state).unwrap();
        state = decision.state;
    }
    state
}

#[test]
fn from_a_deployment_to_two_subsets_and_back_nothing_is_left_of_the_one_in_the_other() {
    let world = trying();
    let (policy, mut now) = (versions(), world.now);
    let subsets = Observation {
        workload: Workload::Subsets(SubsetsView {
            stable_revision: "blue-1".to_owned(),
            candidate_revision: "green-1".to_owned(),
            stable_ready: 3,
            ..SubsetsView::default()
        }),
        ..world.seen()
    };
    let left = look(&world.state, &policy, &subsets, &mut now, 1);
    assert_eq!((left.weight, left.phase.name()), (0, "RollingBack"));
    let split = project(&policy, &left, &subsets).split.unwrap();
    assert_eq!(split.candidate.unwrap(), ["green"]);
    let met = look(&left, &policy, &subsets, &mut now, 15);
    assert_eq!(met.stable.as_ref().unwrap().revision, "blue-1");
    assert_eq!(met.candidate.as_ref().unwrap().arm.revision, "green-1");
    assert_eq!(met.deployment_seen, None);

    let mut native = world.seen();
    let Workload::Deployment(view) = &mut native.workload else {
        panic!("mode A")
    };
    (view.revision, view.candidate) = ("v1".to_owned(), None);
    let back = look(&met, &world.policy, &native, &mut now, 1);
    let desired = project(&world.policy, &back, &native);
    assert_eq!(
        (back.phase.name(), desired.hold),
        ("RollingBack", Hold::Leave)
    );
    let back = look(&back, &world.policy, &native, &mut now, 15);
    assert_eq!(back.stable.as_ref().unwrap().revision, "v1");
    assert_eq!((back.candidate, back.weight), (None, 0));
}

#[test]
fn a_candidate_of_a_workload_that_is_gone_leaves_traffic_and_goes() {
    let world = trying();
    let mut now = world.now;
    let gone = Observation {
        workload: Workload::Missing,
        services: Vec::new(),
        ..world.seen()
    };
    let off = look(&world.state, &world.policy, &gone, &mut now, 1);
    assert_eq!((off.weight, off.phase.name()), (0, "RollingBack"));
    // There is no Service, so no split, and no proxy that could say that it follows.
    let mut state = off;
    for _ in 0..11 {
        now += 1000;
        let mut seen = gone.clone();
        seen.split.fence = None;
        state = sluice_rollout::decide::decide(&world.policy, &state, &seen, now).state;
    }
    assert_eq!(
        (state.candidate.is_none(), state.phase.name()),
        (true, "Idle")
    );
    assert_eq!(
        state.stable.as_ref().unwrap().revision,
        "v1",
        "it may come back"
    );
    let again = look(&state, &world.policy, &world.seen(), &mut now, 2);
    assert_eq!(again.candidate.unwrap().arm.revision, "v2");
}

#[test]
fn a_workload_made_anew_and_held_by_the_stable_of_the_one_before_gets_its_pods() {
    let world = World::new(policy(|_| {}));
    let mut seen = world.seen();
    let Workload::Deployment(view) = &mut seen.workload else {
        panic!("mode A")
    };
    (view.uid, view.revision) = ("another".to_owned(), "v2".to_owned());
    (view.paused, view.complete) = (true, false);
    let running = std::mem::take(&mut view.running);
    let state = world.decide(&seen).state;
    assert_eq!(state.stable, None, "nothing serves that could be met");
    let hold = |seen: &Observation| project(&world.policy, &state, seen).hold;
    assert_eq!(hold(&seen), Hold::Release);
    for change in [
        &(|view: &mut DeploymentView| view.paused_by_hand = Some("kubectl".to_owned()))
            as &dyn Fn(&mut DeploymentView),
        &|view| view.running.clone_from(&running),
    ] {
        let mut other = seen.clone();
        let Workload::Deployment(view) = &mut other.workload else {
            panic!("mode A")
        };
        change(view);
        assert_eq!(hold(&other), Hold::Leave);
    }
}
