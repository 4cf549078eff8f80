//! Whole rollouts against the small model of a cluster, in virtual time.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_crds::{FailureAction, Pause, Step};
use sluice_rollout::conditions::conditions;
use sluice_rollout::desired::Hold;
use sluice_rollout::observation::{Contest, Witness, Workload};
use sluice_rollout::project::project;
use sluice_rollout::state::{Outcome, PauseReason, Phase, PromotionStage, State};
use world::{World, policy};

fn ready(world: &World) -> String {
    let all = conditions(Ok(&world.policy), &world.state, &world.seen(), world.now);
    all.iter()
        .map(|c| format!("{}={}", c.kind, c.status))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_first_deployment_is_stable_and_never_held() {
    let world = World::new(policy(|_| {}));
    assert_eq!(world.stable(), "v1");
    assert_eq!(ready(&world), "Ready=True");
    assert!(!world.paused);
}

#[test]
fn a_first_deployment_is_not_ready_before_one_of_its_pods_is() {
    let mut world = World::new(policy(|_| {}));
    world.state = State::default();
    world.starting = true;
    world.run(5);
    assert_eq!(world.stable(), "");
    assert_eq!(ready(&world), "Ready=Unknown Reconciling=True");
    world.starting = false;
    world.run(2);
    assert_eq!(world.stable(), "v1");
    assert_eq!(ready(&world), "Ready=True");
}

#[test]
fn a_good_revision_is_let_in_step_by_step_and_promoted() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(120);
    assert_eq!(world.weights, [0, 10, 25, 50, 75, 100, 0]);
    assert_eq!(world.stable(), "v2");
    assert_eq!(world.state.history[0].outcome, Outcome::Promoted);
    assert_eq!(ready(&world), "Ready=True");
    assert!(!world.paused, "the hold is released");
    assert!(
        world.least_serving >= 4,
        "capacity fell to {}",
        world.least_serving
    );
}

#[test]
fn a_bad_revision_is_rolled_back_and_the_same_commit_never_retries_it() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    assert_eq!(world.weights, [0, 10, 0]);
    assert_eq!(world.stable(), "v1");
    assert_eq!(ready(&world), "Ready=False Stalled=True");
    for _ in 0..3 {
        world.commit("v2");
        world.run(30);
    }
    assert_eq!(world.weights, [0, 10, 0]);
    assert!(world.paused, "the hold stays");
}

#[test]
fn a_kept_candidate_pod_goes_after_its_time() {
    let mut world = World::new(policy(|spec| {
        spec.on_failure.keep_candidate_for = "60s".to_owned();
    }));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(30);
    assert_eq!(world.ours[0].replicas, 1);
    world.run(90);
    assert!(world.ours.is_empty());
    assert_eq!(ready(&world), "Ready=False Stalled=True");
}

#[test]
fn a_revert_after_a_rejection_makes_it_ready_again() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    world.commit("v1");
    world.run(5);
    assert_eq!(world.phase(), &Phase::Idle);
    assert_eq!(ready(&world), "Ready=True");
    assert!(!world.paused && world.ours.is_empty());
    world.commit("v3");
    world.run(120);
    assert_eq!(world.stable(), "v3");
}

#[test]
fn a_revert_in_the_middle_takes_the_weight_off_before_the_pods_go() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(15);
    assert!(world.state.weight > 0);
    world.commit("v1");
    world.turn();
    assert_eq!(world.state.weight, 0);
    assert_eq!(
        world.ours.len(),
        0,
        "git's template is another: nothing of ours is wanted"
    );
    world.run(15);
    assert_eq!(world.phase(), &Phase::Idle);
    assert_eq!(world.state.history[0].outcome, Outcome::Replaced);
}

#[test]
fn a_fix_in_the_middle_of_adoption_is_not_judged_by_what_was_seen_of_the_old_one() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    while !matches!(
        world.phase(),
        Phase::Promoting {
            stage: PromotionStage::Release
        }
    ) {
        world.turn();
        world.cluster();
        world.now += 1000;
    }
    world.bad.push("v3".to_owned());
    world.commit("v3");
    world.turn();
    assert_eq!(world.state.weight, 0);
    assert!(world.state.candidate.is_none() && world.state.rejected.is_empty());
    world.bad.clear();
    world.run(120);
    assert_eq!(world.stable(), "v3");
}

#[test]
fn a_fix_in_the_middle_replaces_the_candidate() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(30);
    world.commit("v3");
    world.run(150);
    assert_eq!(world.stable(), "v3");
    let ends: Vec<_> = world
        .state
        .history
        .iter()
        .map(|e| (e.revision.as_str(), e.outcome))
        .collect();
    assert_eq!(ends, [("v3", Outcome::Promoted), ("v2", Outcome::Replaced)]);
}

#[test]
fn a_new_string_in_spec_retry_tries_a_rejected_revision_again() {
    let mut world = World::new(policy(|_| {}));
    world.bad.push("v2".to_owned());
    world.commit("v2");
    world.run(60);
    world.bad.clear();
    world.policy = policy(|spec| spec.retry = "now".to_owned());
    world.run(120);
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_command_pinned_to_another_revision_does_nothing() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2revision");
    world.run(15);
    world.command = "abort@v1revision".to_owned();
    world.run(1);
    assert!(world.events.contains(&"CommandRefused".to_owned()));
    assert!(world.state.weight > 0);
    world.command = "abort@v2revision".to_owned();
    world.run(1);
    assert_eq!(world.state.weight, 0);
    assert!(matches!(world.phase(), Phase::RollingBack { .. }));
}

#[test]
fn promote_skips_evidence_but_never_capacity() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2revision");
    world.run(8);
    world.slow_pods = true;
    world.command = "promote@v2revision".to_owned();
    world.run(10);
    assert!(world.state.weight <= 25, "one pod of four is ready");
    world.slow_pods = false;
    world.run(20);
    assert_eq!(world.stable(), "v2revision");
}

#[test]
fn a_pause_step_waits_for_resume() {
    let mut world = World::new(policy(|spec| {
        spec.strategy.steps.insert(
            1,
            Step {
                pause: Some(Pause { duration: None }),
                ..Step::default()
            },
        );
    }));
    world.commit("v2revision");
    world.run(600);
    assert!(matches!(
        world.phase(),
        Phase::Paused {
            why: PauseReason::Step,
            ..
        }
    ));
    assert_eq!(world.state.weight, 10);
    world.command = "resume@v2revision".to_owned();
    world.run(120);
    assert_eq!(world.stable(), "v2revision");
}

#[test]
fn a_pause_that_outlasts_the_deadline_sets_no_timer() {
    let mut world = World::new(policy(|spec| {
        spec.deadline = "60s".to_owned();
        let pause = Some(Pause { duration: None });
        spec.strategy.steps.insert(
            1,
            Step {
                pause,
                ..Step::default()
            },
        );
    }));
    world.commit("v2revision");
    world.run(300);
    assert!(matches!(world.phase(), Phase::Paused { .. }));
    let seen = world.seen();
    assert_eq!(world.decide(&seen).again_at, None);
}

#[test]
fn fewer_steps_in_the_middle_raise_no_weight_that_was_not_earned() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.in_step = 0;
    while world.state.weight < 50 {
        world.run(1);
    }
    let weight = |weight| Step {
        weight: Some(weight),
        ..Step::default()
    };
    world.policy = policy(|spec| spec.strategy.steps = vec![weight(20), weight(100)]);
    world.turn();
    assert_eq!(world.state.weight, 20);
    assert_eq!(world.phase().step(), Some(0));
    world.run(120);
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_step_that_becomes_a_pause_goes_on_from_the_weight_before_it() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    while world.state.weight < 25 {
        world.run(1);
    }
    world.run(2);
    let pause = Step {
        pause: Some(Pause { duration: None }),
        ..Step::default()
    };
    world.policy = policy(|spec| spec.strategy.steps[1] = pause);
    world.run(60);
    assert_eq!(world.state.weight, 10);
    assert!(matches!(world.phase(), Phase::Paused { step: 1, .. }));
}

#[test]
fn a_promotion_that_is_taken_back_shuts_its_gates_and_keeps_no_pod_without_one() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    while !matches!(world.phase(), Phase::Promoting { .. }) {
        world.run(1);
    }
    let mut seen = world.seen();
    seen.evidence.condemned = Some("failed 300 of 1000 requests".to_owned());
    if let Workload::Deployment(view) = &mut seen.workload {
        view.candidate.as_mut().unwrap().ungated = 1;
    }
    let mut state = world.decide(&seen).state;
    let rolling_back = project(&world.policy, &state, &seen).candidate.unwrap();
    assert!(!rolling_back.gates_open && rolling_back.replicas == 4);
    state.phase = Phase::Rejected { since: world.now };
    let rejected = project(&world.policy, &state, &seen).candidate.unwrap();
    assert_eq!(rejected.replicas, 0);
}

#[test]
fn a_shared_outage_pauses_and_resumes_by_itself() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(15);
    world.shared_outage = true;
    world.run(60);
    assert!(matches!(
        world.phase(),
        Phase::Paused {
            why: PauseReason::SharedOutage,
            ..
        }
    ));
    assert!(world.state.weight > 0 && world.state.rejected.is_empty());
    world.shared_outage = false;
    world.run(120);
    assert_eq!(world.stable(), "v2");
}

/// A rollout at its first step that one witness alone speaks against.
fn contested() -> World {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2revision");
    world.run(8);
    world.contested = Some(Contest {
        witness: Witness::Proxy("shop/forger".to_owned()),
        why: "the proxy of pod shop/forger alone says so".to_owned(),
    });
    world.run(300);
    world
}

fn is_contested(world: &World) -> bool {
    let Phase::Paused { why, .. } = world.phase() else {
        return false;
    };
    matches!(why, PauseReason::Contested { .. })
}

#[test]
fn one_witness_alone_pauses_and_is_named_and_the_weight_stays() {
    let world = contested();
    assert!(is_contested(&world));
    assert_eq!(world.state.weight, 10);
    assert!(
        world.state.verdict.contains("shop/forger"),
        "{}",
        world.state.verdict
    );
    assert!(world.events.contains(&"Contested".to_owned()));
    assert_eq!(ready(&world), "Ready=Unknown Reconciling=True");
    assert!(world.state.rejected.is_empty());
}

#[test]
fn a_contested_revision_is_rolled_back_when_others_confirm() {
    let mut world = contested();
    world.contested = None;
    world.bad.push("v2revision".to_owned());
    world.run(15);
    assert_eq!(world.state.weight, 0);
    assert_eq!(world.state.rejected[0].revision, "v2revision");
}

#[test]
fn a_contested_revision_goes_on_by_itself_when_the_contest_is_over() {
    let mut world = contested();
    world.contested = None;
    world.run(120);
    assert_eq!(world.stable(), "v2revision");
}

#[test]
fn resume_promote_and_skip_set_aside_the_one_that_spoke_alone() {
    for command in ["resume", "promote", "skip"] {
        let mut world = contested();
        world.command = format!("{command}@v2revision");
        world.turn();
        let candidate = world.state.candidate.as_ref().unwrap();
        let forger = Witness::Proxy("shop/forger".to_owned());
        assert_eq!(candidate.set_aside, [forger], "{command}");
        // The analysis leaves it out from now on.
        world.contested = None;
        world.run(120);
        assert_eq!(world.stable(), "v2revision", "{command}");
    }
}

#[test]
fn a_candidate_that_does_not_bear_the_load_goes_back_to_fifty_and_is_condemned_when_it_fails_again()
{
    let steps = |spec: &mut sluice_crds::MeshRolloutSpec| {
        spec.strategy.steps = [50, 100]
            .map(|weight| Step {
                weight: Some(weight),
                ..Step::default()
            })
            .to_vec();
    };
    let mut world = World::new(policy(steps));
    world.bears = 60;
    world.commit("v2");
    world.run(200);
    assert_eq!(world.weights, [0, 50, 100, 50, 100, 0]);
    let why = &world.state.rejected[0].why;
    assert!(why.contains("does not bear the load"), "{why}");
    let told: Vec<_> = world
        .events
        .iter()
        .filter(|e| e.starts_with("Stepped"))
        .collect();
    assert_eq!(told, ["SteppedDown", "SteppedUp"]);
}

#[test]
fn a_breach_that_does_not_come_back_after_the_look_at_fifty_is_forgiven() {
    let mut world = World::new(policy(|_| {}));
    world.bears = 90;
    world.commit("v2");
    while world.weights.last() != Some(&100) {
        world.run(1);
    }
    while !world.events.contains(&"SteppedDown".to_owned()) {
        world.run(1);
    }
    let down = world.now;
    world.bears = 100;
    while !world.events.contains(&"SteppedUp".to_owned()) {
        world.run(1);
    }
    assert!(
        world.now - down >= 10_000,
        "it was looked at for the whole hold"
    );
    world.run(200);
    assert_eq!(world.weights, [0, 10, 25, 50, 75, 100, 50, 100, 0]);
    assert_eq!(world.stable(), "v2", "{:?}", world.state);
}

#[test]
fn the_deadline_rolls_back_and_paused_time_does_not_count() {
    let mut world = World::new(policy(|spec| spec.deadline = "60s".to_owned()));
    world.commit("v2");
    world.run(15);
    world.shared_outage = true;
    world.run(300);
    assert!(world.state.rejected.is_empty());
    world.shared_outage = false;
    world.bad.push("v2".to_owned());
    world.in_step = 0;
    world.run(80);
    assert_eq!(world.state.history[0].outcome, Outcome::RolledBack);
}

#[test]
fn on_failure_pause_takes_it_off_traffic_and_waits_for_a_person() {
    let mut world = World::new(policy(|spec| spec.on_failure.action = FailureAction::Pause));
    world.bad.push("v2revision".to_owned());
    world.commit("v2revision");
    world.run(60);
    assert!(matches!(
        world.phase(),
        Phase::Paused {
            why: PauseReason::Condemned,
            ..
        }
    ));
    assert_eq!(world.state.weight, 0);
    world.command = "abort@v2revision".to_owned();
    world.run(15);
    assert!(matches!(world.phase(), Phase::Rejected { .. }));
}

#[test]
fn a_release_that_came_unheld_is_held_while_its_pods_are_not_all_there() {
    let mut world = World::new(policy(|_| {}));
    world.held_by_webhook = false;
    world.commit("v2");
    world.turn();
    assert!(world.paused);
    assert!(world.events.contains(&"NotHeld".to_owned()));
    assert_eq!(
        project(&world.policy, &world.state, &world.seen()).hold,
        Hold::Leave
    );
}

#[test]
fn a_missing_service_is_reconciling_for_two_minutes_and_stalled_then() {
    let mut world = World::new(policy(|_| {}));
    let mut seen = world.seen();
    seen.missing_services = vec!["reviews".to_owned()];
    let kinds = |world: &World, now| {
        let all = conditions(Ok(&world.policy), &world.state, &seen, now);
        all.iter().map(|c| c.kind).collect::<Vec<_>>()
    };
    let decision = world.decide(&seen);
    world.store(decision);
    assert_eq!(kinds(&world, world.now), ["Ready", "Reconciling"]);
    assert_eq!(kinds(&world, world.now + 120_000), ["Ready", "Stalled"]);
}

#[test]
fn a_proxy_that_refuses_its_configuration_is_named_and_the_step_does_not_pass() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    world.run(8);
    let mut seen = world.seen();
    seen.split.behind = 1;
    seen.split.refusal = Some("gateway-1: route: no such cluster".to_owned());
    world.now += 60_000;
    let decision = world.decide(&seen);
    assert_eq!(decision.state.weight, world.state.weight);
    let all = conditions(Ok(&world.policy), &decision.state, &seen, world.now);
    let stalled = all.iter().find(|c| c.kind == "Stalled").unwrap();
    assert!(
        stalled
            .message
            .contains("gateway-1: route: no such cluster")
    );
}

#[test]
fn an_older_rollout_of_the_same_workload_wins_and_the_younger_touches_nothing() {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2");
    let mut seen = world.seen();
    seen.conflict = Some("reviews-old".to_owned());
    let decision = world.decide(&seen);
    assert_eq!(decision.state, world.state);
    let desired = project(&world.policy, &world.state, &seen);
    assert_eq!(desired, sluice_rollout::desired::Desired::default());
}
