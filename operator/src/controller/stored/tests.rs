#![allow(clippy::unwrap_used)]

use serde_json::json;
use sluice_crds::TrafficSplit;
use sluice_rollout::state::{Arm, Candidate};

use super::*;
use crate::controller::fixtures::{rollout, with_state};

fn split(fence: i64, services: &[&str]) -> SplitFacts {
    let object: TrafficSplit = serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "TrafficSplit",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"fence": fence, "services": services, "arms": []},
    }))
    .unwrap();
    SplitFacts::of(object)
}

fn seen(services: &[&str]) -> Observation {
    let services = services.iter().map(|&name| name.to_owned()).collect();
    Observation {
        services,
        ..Observation::default()
    }
}

/// As the controller does once it has decided: the split is to be of the Services that are seen.
fn keep(state: &mut State, split: &SplitFacts, seen: &Observation) {
    let wanted = TrafficSplitSpec {
        fence: state.fence,
        services: seen.services.clone(),
        ..split.object().spec
    };
    keep_fence(state, Some(split), Some(&wanted), seen);
}

#[test]
fn a_new_life_of_a_name_begins_above_the_fences_of_the_last_one() {
    let now = Timestamp::from_second(1_000).unwrap();
    let fresh = rollout("web", "web");
    assert_eq!(read_state(&fresh, None, now).unwrap().fence, 1_000);
    assert_eq!(
        read_state(&fresh, Some(&split(5_000, &["web"])), now)
            .unwrap()
            .fence,
        5_000
    );
}

#[test]
fn a_state_that_cannot_be_read_is_said_and_not_replaced() {
    let edited = with_state(&rollout("web", "web"), json!({"fence": "seven"}));
    let error = read_state(&edited, None, Timestamp::UNIX_EPOCH).unwrap_err();
    assert!(
        error.to_string().contains("status.state cannot be read"),
        "{error}"
    );
}

#[test]
fn a_state_of_a_later_version_is_read_without_what_this_one_does_not_know() {
    let web = rollout("web", "web");
    let known = json!({"fence": 7, "phase": {"name": "Idle"}, "later": {"any": "thing"}});
    let state = read_state(&with_state(&web, known), None, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(state.fence, 7);
    let later = with_state(&web, json!({"fence": 7, "phase": {"name": "Warming"}}));
    let error = read_state(&later, None, Timestamp::UNIX_EPOCH).unwrap_err();
    assert!(error.to_string().contains("Warming"), "{error}");
}

#[test]
fn what_an_older_crd_drops_is_named() {
    let sent = json!({"weight": 10, "state": {"logs": [0.0, 0.5]}, "verdict": null});
    let told = |stored| kept("crd", "status", &sent, &stored).map_err(|error| error.to_string());
    let whole = json!({"weight": 10, "state": {"logs": [0, 0.5]}, "of": "a later version"});
    assert_eq!(told(whole), Ok(()));
    for (stored, field) in [
        (json!({"weight": 10}), "status.state was"),
        (json!({"state": sent["state"]}), "status.weight was"),
        (json!({"weight": 10, "state": {}}), "status.state.logs was"),
        (
            json!({"weight": 10, "state": {"logs": [0.0, 0.6]}}),
            "status.state.logs was",
        ),
    ] {
        let why = told(stored).unwrap_err();
        assert!(why.starts_with(field), "{why}");
        assert!(
            why.contains("the CRD crd is older than this operator"),
            "{why}"
        );
    }
}

#[test]
fn other_services_are_another_decision_about_traffic() {
    let arm = Arm {
        revision: "r2".to_owned(),
        ..Arm::default()
    };
    let candidate = Candidate {
        arm,
        ..Candidate::default()
    };
    let before = State {
        fence: 7,
        candidate: Some(candidate),
        ..State::default()
    };
    let mut state = before.clone();
    keep(&mut state, &split(7, &["web"]), &seen(&["web"]));
    assert_eq!(state, before);
    let mut observation = seen(&["web", "web-admin"]);
    observation.evidence.closed.through_fence = 7;
    keep(&mut state, &split(7, &["web"]), &observation);
    assert_eq!(state.fence, 8);
    assert_eq!(state.candidate.unwrap().closed.through_fence, 7);
}

#[test]
fn what_a_changed_spec_asks_of_the_split_is_another_decision_too() {
    let mut state = State {
        fence: 7,
        ..State::default()
    };
    let split = split(7, &["web"]);
    let wanted = TrafficSplitSpec {
        hung_after_ms: 1_000,
        ..split.object().spec
    };
    keep_fence(&mut state, Some(&split), Some(&wanted), &seen(&["web"]));
    assert_eq!(state.fence, 8);
}

#[test]
fn a_fence_that_is_on_its_way_is_not_raised_twice() {
    let mut state = State {
        fence: 8,
        ..State::default()
    };
    keep(
        &mut state,
        &split(7, &["web"]),
        &seen(&["web", "web-admin"]),
    );
    assert_eq!(state.fence, 8);
}

#[test]
fn a_split_that_is_ahead_of_a_restored_status_is_overtaken() {
    let mut state = State {
        fence: 7,
        ..State::default()
    };
    keep(&mut state, &split(9, &["web"]), &seen(&["web"]));
    assert_eq!(state.fence, 10);
}
