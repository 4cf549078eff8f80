//! One pod of the candidate that fails alone, against the small model of a cluster in virtual
//! time.
#![allow(clippy::unwrap_used)]

mod world;

use sluice_rollout::conditions::conditions;
use sluice_rollout::observation::{ClosedEvidence, Contest, Witness, Workload};
use sluice_rollout::project::project;
use sluice_rollout::state::{PauseReason, Phase};
use world::{World, policy};

const FAULTY: &str = "pod-0-0";

/// The evidence names a pod.
fn accuse(world: &mut World, pod: &str) {
    world.contested = Some(Contest {
        witness: Witness::Pod(pod.to_owned()),
        why: format!("pod {pod} of the candidate fails alone, 30 of 30 requests"),
    });
}

/// At 50 % with two pods of four, one of which fails alone.
fn faulty() -> World {
    let mut world = World::new(policy(|_| {}));
    world.commit("v2revision");
    while world.state.weight != 50 || !matches!(world.phase(), Phase::Observing { .. }) {
        world.run(1);
    }
    accuse(&mut world, FAULTY);
    world
}

/// It is left out, and the evidence is read without it.
fn left_out() -> World {
    let mut world = faulty();
    world.turn();
    world.contested = None;
    world
}

fn condition(world: &World, kind: &str) -> Option<String> {
    let all = conditions(Ok(&world.policy), &world.state, &world.seen(), world.now);
    let found = all.into_iter().find(|c| c.kind == kind);
    found.map(|c| c.message)
}

fn excluded(world: &World) -> Vec<String> {
    let desired = project(&world.policy, &world.state, &world.seen());
    desired.split.unwrap().excluded
}

#[test]
fn its_weight_is_taken_under_a_fence_and_it_is_named() {
    let mut world = faulty();
    let fence = world.state.fence;
    world.turn();
    assert_eq!(excluded(&world), [FAULTY]);
    assert!(world.state.fence > fence);
    assert!(world.events.contains(&"PodFault".to_owned()));
    let told = condition(&world, "PodFault").unwrap();
    assert!(
        told.contains(FAULTY) && told.contains("Delete it"),
        "{told}"
    );
    assert!(matches!(world.phase(), Phase::Observing { .. }));
}

#[test]
fn it_is_no_capacity_and_another_pod_takes_its_place_beside_it() {
    let mut world = faulty();
    world.slow_pods = true;
    world.turn();
    assert_eq!(world.state.weight, 25, "one of four pods is left to serve");
    assert_eq!(world.ours[0].replicas, 3);
    world.contested = None;
    world.run(3);
    assert_eq!(world.state.weight, 25);
    world.slow_pods = false;
    world.run(3);
    assert_eq!(world.state.weight, 50);
}

#[test]
fn what_was_seen_under_the_fence_before_is_not_closed_with_its_failures() {
    let world = faulty();
    let mut seen = world.seen();
    seen.evidence.closed = ClosedEvidence {
        through_fence: world.state.fence,
        ..ClosedEvidence::default()
    };
    let before = world.state.candidate.as_ref().unwrap().closed.clone();
    let decision = world.decide(&seen);
    let candidate = decision.state.candidate.unwrap();
    assert_eq!(candidate.pod_fault.unwrap().pod, FAULTY);
    assert_eq!(candidate.closed, before, "though the weight fell as well");
    assert!(decision.state.weight < world.state.weight);
}

#[test]
fn without_another_pod_that_can_serve_it_pauses_as_before_and_goes_on_when_there_is_one() {
    let mut world = faulty();
    world.slow_pods = true;
    world.ours[0].ready = 1;
    world.turn();
    assert!(world.state.left_out().is_none());
    let Phase::Paused { why, .. } = world.phase() else {
        panic!("{:?}", world.phase());
    };
    assert!(matches!(why, PauseReason::Contested { .. }));
    assert!(world.state.verdict.contains("Delete that pod"));
    world.ours[0].ready = 2;
    world.turn();
    assert_eq!(world.state.left_out(), Some(FAULTY));
    assert!(matches!(world.phase(), Phase::Shifting { .. }));
}

#[test]
fn it_is_left_out_until_it_is_gone_and_then_the_revision_is_promoted() {
    let mut world = left_out();
    world.run(200);
    assert_eq!(
        world.stable(),
        "v1",
        "gates would open to plain clients, too"
    );
    assert_eq!(excluded(&world), [FAULTY]);
    assert_eq!(world.state.weight, 100);
    let told = condition(&world, "Reconciling").unwrap();
    assert!(told.contains("kubectl delete pod pod-0-0"), "{told}");
    let open = project(&world.policy, &world.state, &world.seen()).candidate;
    assert!(!open.unwrap().gates_open);

    world.pods_of = 1;
    world.turn();
    assert!(excluded(&world).is_empty() && condition(&world, "PodFault").is_none());
    assert!(world.events.contains(&"PodFaultOver".to_owned()));
    world.run(60);
    assert_eq!(world.stable(), "v2revision");
    assert_eq!(world.replicas, 4);
}

#[test]
fn when_nobody_deletes_it_the_deadline_says_so() {
    let mut world = left_out();
    world.run(200);
    world.now += 3 * 3600 * 1000;
    world.run(15);
    assert_eq!(world.state.weight, 0);
    let why = &world.state.rejected[0].why;
    assert!(
        why.contains("pod pod-0-0, which fails alone, was not deleted"),
        "{why}"
    );
}

#[test]
fn a_second_pod_is_never_left_out_for_the_same_revision() {
    let mut world = left_out();
    world.run(3);
    world.pods_of = 1;
    world.run(3);
    accuse(&mut world, "pod-1-1");
    world.run(3);
    assert!(excluded(&world).is_empty());
    let fault = world.state.candidate.as_ref().unwrap().pod_fault.as_ref();
    assert_eq!(fault.unwrap().pod, FAULTY, "the first is remembered");
    // The next try of the revision begins without that.
    world.contested = None;
    world.bad.push("v2revision".to_owned());
    world.run(15);
    world.bad.clear();
    world.policy = policy(|spec| spec.retry = "again".to_owned());
    world.run(1);
    assert_eq!(world.state.candidate.as_ref().unwrap().pod_fault, None);
}

#[test]
fn a_pod_that_is_named_and_is_not_of_the_candidate_is_not_left_out() {
    let mut world = faulty();
    accuse(&mut world, "somebody-else");
    world.turn();
    assert!(world.state.left_out().is_none());
    assert!(matches!(world.phase(), Phase::Paused { .. }));
}

#[test]
fn a_pod_that_is_not_ready_any_more_is_still_left_out() {
    let world = left_out();
    let mut seen = world.seen();
    let Workload::Deployment(view) = &mut seen.workload else {
        panic!("mode A")
    };
    let candidate = view.candidate.as_mut().unwrap();
    candidate.named[0].can_serve = false;
    candidate.containers_ready -= 1;
    let decision = world.decide(&seen);
    assert_eq!(decision.state.left_out(), Some(FAULTY));
    assert_eq!(decision.state.weight, 25, "it is not missed twice");
}
