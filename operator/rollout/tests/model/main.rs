//! Every world that two leaders, a cluster and git can come to, in small numbers: the real
//! machine between crashes, late writes, watches that stand still, edits and deletions.
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod environment;
mod fair;
mod machine;
mod search;
mod shim;
mod world;

use search::{Scope, search};
use shim::Rules;
use sluice_crds::{FailureAction, MeshRolloutSpec, Step, WorkloadRef};
use sluice_rollout::policy::Policy;
use world::{Budget, Objects};

fn policy(weights: &[i32], change: impl FnOnce(&mut MeshRolloutSpec)) -> Policy {
    let mut spec = MeshRolloutSpec {
        workload: Some(WorkloadRef {
            kind: "Deployment".to_owned(),
            name: "reviews".to_owned(),
            namespace: None,
        }),
        deadline: "1000h".to_owned(),
        ..MeshRolloutSpec::default()
    };
    let weight = |weight| Step {
        weight: Some(weight),
        ..Step::default()
    };
    spec.strategy.steps = weights.iter().copied().map(weight).collect();
    spec.analysis.hold = "10s".to_owned();
    spec.on_failure.keep_candidate_for = "10s".to_owned();
    change(&mut spec);
    Policy::from_spec(&spec).unwrap()
}

/// The long form: any number of late looks, and more faults.
const LONG: &str = "SLUICE_MODEL_LONG";

fn is_long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// One step, one commit; one leader may look while the other has writes left.
fn scope(name: &'static str, change: impl FnOnce(&mut Budget)) -> Scope {
    let mut budget = Budget {
        edits: 1,
        overlaps: if is_long() { Budget::ANY } else { 1 },
        ..Budget::default()
    };
    change(&mut budget);
    Scope {
        name,
        policy: policy(&[100], |_| {}),
        rules: Rules::REAL,
        budget,
        ends: true,
    }
}

fn holds(scope: Scope) {
    if let Err(told) = search(scope) {
        panic!("{told}");
    }
}

#[test]
fn two_leaders_crash_and_write_late_at_two_steps_in_good_times_bad_times_and_outages() {
    holds(Scope {
        policy: policy(&[50, 100], |_| {}),
        ..scope("leaders", |budget| budget.outages = true)
    });
}

#[test]
fn git_brings_a_fix_goes_back_and_comes_again() {
    holds(scope("edits", |budget| budget.edits = 2));
}

#[test]
fn pods_fall_away_and_a_commit_passes_the_webhook() {
    holds(scope("faults", |budget| {
        budget.faults = if is_long() { 2 } else { 1 }
    }));
}

#[test]
fn any_watch_stands_still_and_a_process_starts_from_its_past() {
    holds(scope("watches", |budget| {
        budget.freezes = 1;
        budget.stops = Objects::ALL;
    }));
}

#[test]
fn a_watch_stands_still_while_git_brings_one_revision_after_the_other() {
    holds(scope("watches and edits", |budget| {
        budget.edits = 2;
        budget.overlaps = 0;
        budget.freezes = 1;
        budget.stops = if is_long() {
            Objects::ALL
        } else {
            Objects::SETS
        };
    }));
}

#[test]
fn the_deployment_is_deleted_and_made_anew_and_a_watch_may_show_the_old_one() {
    holds(scope("renewals", |budget| {
        budget.renewals = 1;
        budget.overlaps = if is_long() { 1 } else { 0 };
        budget.freezes = 1;
        budget.stops = if is_long() {
            Objects::ALL
        } else {
            Objects::DEPLOYMENT
        };
    }));
}

#[test]
fn a_pod_of_the_candidate_fails_alone() {
    holds(Scope {
        policy: policy(&[50, 100], |_| {}),
        ..scope("pod faults", |budget| budget.breaks = 1)
    });
}

#[test]
fn the_mesh_rollout_is_deleted_and_made_anew() {
    holds(scope("lives", |budget| budget.lives = 1));
}

#[test]
fn a_new_string_in_retry_comes_at_any_time() {
    holds(scope("retries", |budget| budget.retries = 1));
}

#[test]
fn a_person_says_any_word_at_any_time() {
    holds(scope("commands", |budget| budget.commands = 1));
}

#[test]
fn time_runs_out() {
    holds(Scope {
        policy: policy(&[100], |spec| spec.deadline = "30s".to_owned()),
        ..scope("deadline", |_| {})
    });
}

#[test]
fn a_condemned_revision_waits_for_a_person() {
    holds(Scope {
        policy: policy(&[100], |spec| spec.on_failure.action = FailureAction::Pause),
        ..scope("on failure pause", |budget| budget.commands = 1)
    });
}

fn is_caught(rules: Rules, edits: u8) -> String {
    let broken = Scope {
        rules,
        ends: false,
        ..scope("broken", |budget| budget.edits = edits)
    };
    search(broken).expect_err("a shim without a fence does harm")
}

#[test]
fn a_shim_that_writes_the_status_over_any_version_is_caught() {
    let rules = Rules {
        status_version: false,
        ..Rules::REAL
    };
    let told = is_caught(rules, 1);
    search::say(&told);
}

#[test]
fn a_shim_that_writes_objects_over_any_version_is_caught() {
    let rules = Rules {
        object_versions: false,
        ..Rules::REAL
    };
    let told = is_caught(rules, 2);
    search::say(&told);
}

#[test]
fn an_apiserver_that_takes_any_fence_is_caught() {
    let rules = Rules {
        object_versions: false,
        split_fence: false,
        ..Rules::REAL
    };
    let told = is_caught(rules, 1);
    search::say(&told);
}
