#![allow(clippy::unwrap_used)]

use super::*;

const V1: &str = "1111111111111111";
const V2: &str = "2222222222222222";

fn governed() -> Governance {
    Governance::Governed {
        rollout: "reviews".into(),
        stable: V1.into(),
        rejected: None,
    }
}

fn change(old: &str, new: &str, was_paused: bool, paused: bool) -> Change {
    Change {
        old: old.into(),
        new: new.into(),
        was_paused,
        paused,
        ..Change::default()
    }
}

/// `leave`, `warn`, `pause` or `release`.
fn verb(hold: &Hold) -> &'static str {
    match hold {
        Hold::Leave => "leave",
        Hold::Warn(_) => "warn",
        Hold::Pause(_) => "pause",
        Hold::Release(_) => "release",
    }
}

#[test]
fn the_decision_table() {
    // before, after, paused before, paused after: what happens
    let table = [
        (V1, V2, false, false, "pause", "a new template is held"),
        (V1, V2, false, true, "pause", "a new template stays held"),
        (V2, V2, true, true, "pause", "the same template stays held"),
        (
            V2,
            "3333",
            true,
            true,
            "pause",
            "a third revision in the middle stays held",
        ),
        (
            V2,
            "3333",
            true,
            false,
            "pause",
            "also when the request would release it",
        ),
        (
            V2,
            V2,
            true,
            false,
            "pause",
            "resume by hand does not promote",
        ),
        (
            V2,
            V1,
            true,
            true,
            "release",
            "git's revert releases in the same request",
        ),
        (
            V2,
            V1,
            true,
            false,
            "leave",
            "a revert that releases by itself",
        ),
        (
            V1,
            V1,
            true,
            true,
            "release",
            "held on stable: nothing to hold",
        ),
        (
            V1,
            V1,
            false,
            false,
            "leave",
            "a change of something else on stable",
        ),
        (
            V2,
            V2,
            false,
            false,
            "leave",
            "an unheld template is the controller's matter",
        ),
        (
            V2,
            V1,
            false,
            false,
            "leave",
            "a revert of an unheld template",
        ),
    ];
    for (old, new, was_paused, paused, expected, what) in table {
        let hold = decide(&change(old, new, was_paused, paused), &governed());
        assert_eq!(verb(&hold), expected, "{what}: {hold:?}");
    }
}

#[test]
fn a_deployment_that_nobody_governs_or_that_has_no_stable_revision_passes() {
    let new = change(V1, V2, false, false);
    assert_eq!(decide(&new, &Governance::Nobody), Hold::Leave);
    let unseen = Governance::Unseen {
        rollout: "reviews".into(),
    };
    assert_eq!(verb(&decide(&new, &unseen)), "warn");
}

#[test]
fn our_own_controller_is_never_held_up() {
    let mut release = change(V2, V2, true, false);
    release.by_controller = true;
    assert_eq!(decide(&release, &governed()), Hold::Leave);
}

#[test]
fn what_git_pauses_stays_paused_and_git_is_named() {
    for new in [V1, V2] {
        let mut change = change(V1, new, false, true);
        change.paused_by = Some("kustomize-controller".into());
        let hold = decide(&change, &governed());
        assert_eq!(verb(&hold), "warn");
        assert!(format!("{hold:?}").contains("kustomize-controller"));
    }
    let mut explicit_false = change(V1, V2, false, false);
    explicit_false.paused_by = Some("kustomize-controller".into());
    assert_eq!(
        verb(&decide(&explicit_false, &governed())),
        "pause",
        "paused: false in git"
    );
}

#[test]
fn a_rejected_revision_applied_again_stays_held_and_says_why() {
    let governance = Governance::Governed {
        rollout: "reviews".into(),
        stable: V1.into(),
        rejected: Some(V2.into()),
    };
    let Hold::Pause(why) = decide(&change(V1, V2, false, false), &governance) else {
        panic!("must be held")
    };
    assert!(
        why.contains("rejected") && why.contains("spec.retry"),
        "{why}"
    );
    assert_eq!(
        verb(&decide(&change(V2, "3333", true, true), &governance)),
        "pause"
    );
    assert_eq!(
        verb(&decide(&change(V2, V1, true, true), &governance)),
        "release"
    );
}

#[test]
fn warnings_are_short_enough_to_be_shown_whole() {
    for hold in [
        decide(&change(V1, V2, false, false), &governed()),
        decide(&change(V2, V2, true, false), &governed()),
        decide(&change(V2, V1, true, true), &governed()),
    ] {
        let (Hold::Pause(text) | Hold::Release(text)) = hold else {
            panic!("{hold:?}")
        };
        assert!(text.len() <= 120, "{} characters: {text}", text.len());
    }
}

#[test]
fn the_owner_of_paused_is_read_from_managed_fields_and_we_do_not_count() {
    let deployment = |manager: &str, field: &str| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "reviews", "managedFields": [{
                "manager": manager, "operation": "Apply", "apiVersion": "apps/v1",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {field: {}}},
            }]},
            "spec": {"paused": true},
        }))
        .unwrap()
    };
    assert_eq!(
        owner_of_paused(&deployment("flux", "f:paused")).as_deref(),
        Some("flux")
    );
    assert_eq!(owner_of_paused(&deployment("flux", "f:replicas")), None);
    assert_eq!(
        owner_of_paused(&deployment("sluice-controller", "f:paused")),
        None
    );
    assert!(paused(&deployment("flux", "f:paused")));
}
