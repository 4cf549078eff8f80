//! A whole controller before an apiserver that is cut off in every way.
#![allow(clippy::unwrap_used)]

mod stage;

use serde_json::{Value, json};
use sluice_rollout::state::Phase;
use tokio::time::Instant;

use self::stage::{Apiserver, FENCE, Fate, Leader, split};
use super::*;
use crate::{controller::fixtures::NAMESPACE, lease::Leadership};

fn condemned() -> Option<(String, i64)> {
    Some(("r2".to_owned(), FENCE))
}

fn phase(object: &Value) -> &Value {
    &object["status"]["phase"]
}

#[tokio::test(start_paused = true)]
async fn where_the_apiserver_answers_nobody_is_told_anything_beside_it() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Done);
    let mut leader = Leader::new(&apiserver, Leadership::always());
    leader.hears(50, 50);
    leader.look().await;
    assert_eq!(leader.ejected(), None);
    let written = apiserver.written.lock();
    assert_eq!(phase(&written[0]), "RollingBack");
    assert_eq!(written[1]["spec"]["fence"], FENCE + 1);
}

#[tokio::test(start_paused = true)]
async fn a_condemned_candidate_is_ejected_at_once_where_the_apiserver_cannot_take_the_decision() {
    for fate in [
        Fate::Refused,
        Fate::Answered(500),
        Fate::Answered(503),
        Fate::Answered(429),
    ] {
        let apiserver = Apiserver::new(fate, fate);
        let mut leader = Leader::new(&apiserver, Leadership::always());
        leader.hears(50, 50);
        let before = Instant::now();
        leader.look().await;
        assert_eq!(leader.ejected(), condemned(), "{fate:?}");
        assert!(before.elapsed() < PROMPT, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_apiserver_that_takes_the_write_and_says_nothing_is_waited_for_a_second() {
    let apiserver = Apiserver::new(Fate::Hangs, Fate::Hangs);
    let mut leader = Leader::new(&apiserver, Leadership::always());
    leader.hears(50, 50);
    let mut told = leader.controller.hub.ejects.subscribe();
    let before = Instant::now();
    let at = async {
        told.changed().await.unwrap();
        before.elapsed()
    };
    let ((), at) = tokio::join!(leader.look(), at);
    assert_eq!(at, PROMPT);
    assert!(
        before.elapsed() > PROMPT,
        "the write itself is waited for on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer() {
    for code in [400, 403, 404, 409, 422] {
        let fate = Fate::Answered(code);
        let mut leader = Leader::new(&Apiserver::new(fate, fate), Leadership::always());
        leader.hears(50, 50);
        leader.look().await;
        assert_eq!(leader.ejected(), None, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_not_condemned_is_never_ejected() {
    let mut leader = Leader::new(
        &Apiserver::new(Fate::Refused, Fate::Refused),
        Leadership::always(),
    );
    leader.hears(50, 0);
    leader.look().await;
    assert_eq!(leader.ejected(), None);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_decided_and_not_in_the_split_is_no_reason() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Refused);
    let mut leader = Leader::new(&apiserver, Leadership::always());
    leader.controller.world.splits.put(split(FENCE - 1, 5));
    leader.look().await;
    assert_eq!(leader.ejected(), None);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_decided_but_not_in_the_split_is_ejected_too() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Refused);
    let mut leader = Leader::new(&apiserver, Leadership::always());
    leader.hears(50, 50);
    leader.look().await;
    assert_eq!(phase(&apiserver.written.lock()[0]), "RollingBack");
    assert_eq!(leader.ejected(), condemned());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_has_lapsed_writes_nothing_and_ejects_all_the_same() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Done);
    let mut leader = Leader::new(&apiserver, Leadership::until(Instant::now()));
    leader.look().await;
    assert_eq!(leader.ejected(), None, "nothing is condemned yet");
    leader.hears(50, 50);
    leader.look().await;
    assert_eq!(leader.ejected(), condemned());
    assert!(apiserver.written.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_leader_knows_its_last_write_though_no_watch_has_shown_it() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Done);
    let mut leader = Leader::new(&apiserver, Leadership::until(Instant::now()));
    let rollout = leader.controller.world.rollouts.get(NAMESPACE, "web");
    let shown = read_state(&rollout.unwrap(), None, Timestamp::now()).unwrap();
    leader.memory.written = Some(Box::new(State {
        fence: FENCE + 1,
        weight: 25,
        phase: Phase::Shifting { step: 1 },
        ..shown
    }));
    leader.hears(50, 50);
    leader.look().await;
    assert_eq!(leader.ejected(), Some(("r2".to_owned(), FENCE + 1)));
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_rolls_back_on_the_eject_without_its_evidence() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Done);
    let mut leader = Leader::new(&apiserver, Leadership::always());
    leader.controller.hub.ejects.add(eject(FENCE, "r2"));
    leader.look().await;
    let written = apiserver.written.lock();
    assert_eq!(phase(&written[0]), "RollingBack");
    let verdict = written[0]["status"]["verdict"].as_str().unwrap();
    assert!(
        verdict.contains("it fails (off traffic since 1970-01-01T00:00:00Z"),
        "{verdict}"
    );
    let (fence, arms) = (&written[1]["spec"]["fence"], &written[1]["spec"]["arms"]);
    assert_eq!((fence, &arms[1]["weight"]), (&json!(FENCE + 1), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn an_eject_of_an_older_fence_or_another_revision_is_no_verdict() {
    for old in [eject(FENCE - 1, "r2"), eject(FENCE, "r0")] {
        let apiserver = Apiserver::new(Fate::Done, Fate::Done);
        let mut leader = Leader::new(&apiserver, Leadership::always());
        leader.controller.hub.ejects.add(old);
        leader.look().await;
        let written = apiserver.written.lock();
        assert!(
            written.iter().all(|o| phase(o) != "RollingBack"),
            "{written:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_eject_is_let_go_when_the_split_has_a_higher_fence_or_is_gone() {
    let apiserver = Apiserver::new(Fate::Done, Fate::Done);
    let leader = Leader::new(&apiserver, Leadership::always());
    let (world, ejects) = (&leader.controller.world, &leader.controller.hub.ejects);
    ejects.add(eject(FENCE, "r2"));
    leader.controller.forget_ejects();
    assert_eq!(leader.ejected(), condemned());
    world.splits.put(split(FENCE + 1, 0));
    leader.controller.forget_ejects();
    assert_eq!(leader.ejected(), None);
    ejects.add(eject(FENCE + 1, "r2"));
    world.splits.remove(NAMESPACE, "web");
    leader.controller.forget_ejects();
    assert_eq!(leader.ejected(), None);
}

fn eject(fence: i64, revision: &str) -> Eject {
    Eject {
        namespace: NAMESPACE.to_owned(),
        rollout: "web".to_owned(),
        revision: revision.to_owned(),
        fence,
        since_ms: 0,
        why: "it fails".to_owned(),
    }
}
