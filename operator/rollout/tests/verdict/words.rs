//! What a view says, and what a later leader goes on from.

use sluice_evidence::{ArmDelta, Stratum};
use sluice_rollout::observation::{ClosedEvidence, Counts};
use sluice_rollout::verdict::Analysis;

use crate::traffic::{rules, see};

fn stratum(stable: (u64, u64), candidate: (u64, u64)) -> Stratum {
    let arm = |(failures, requests)| ArmDelta {
        requests,
        failures,
        client_errors: 0,
    };
    Stratum {
        stable: arm(stable),
        candidate: arm(candidate),
    }
}

fn fresh() -> Analysis {
    Analysis::new(&rules(), ClosedEvidence::default())
}

#[test]
fn a_condemnation_says_its_numbers() {
    let mut analysis = fresh();
    see(&mut analysis, 4, &stratum((0, 391), (7, 41)), 1_000);
    let view = analysis.view(4, 1_000);
    assert_eq!(
        view.condemned.unwrap(),
        "the candidate failed 7 of 41 requests (17.1 %), stable 0 of 391 requests (0.0 %) in the \
         same seconds: its odds of failing are more than 1.5 times stable's, error chance below \
         0.1 %"
    );
    assert!(!view.sufficient);
    assert_eq!(view.in_step, 41);
}

#[test]
fn client_errors_condemn_too_but_only_against_stable() {
    let arm = |requests, client_errors| ArmDelta {
        requests,
        failures: 0,
        client_errors,
    };
    let mut bad = fresh();
    let mut same = fresh();
    for _ in 0..50 {
        let stable = arm(90, 9);
        see(
            &mut bad,
            1,
            &Stratum {
                stable,
                candidate: arm(10, 6),
            },
            1_000,
        );
        see(
            &mut same,
            1,
            &Stratum {
                stable,
                candidate: arm(10, 1),
            },
            1_000,
        );
    }
    let words = bad.view(1, 1_000).condemned.unwrap();
    assert!(words.contains("failed or answered 4xx on "), "{words}");
    let view = same.view(1, 1_000);
    assert_eq!((view.condemned, view.candidate.failures), (None, 0));
}

#[test]
fn without_traffic_nothing_is_good_news() {
    let view = fresh().view(3, 1_000);
    assert!(!view.sufficient && view.condemned.is_none());
    assert_eq!((view.needed, view.in_step), (539, 0));
    let mut one_armed = fresh();
    see(&mut one_armed, 3, &stratum((0, 100_000), (0, 0)), 1_000);
    assert!(!one_armed.view(3, 1_000).sufficient);
    see(&mut one_armed, 3, &stratum((0, 0), (0, 100_000)), 1_000);
    assert!(
        one_armed.view(3, 1_000).sufficient,
        "both arms have been seen"
    );
}

#[test]
fn at_full_weight_a_failing_candidate_is_a_breach_and_not_condemned() {
    let mut analysis = fresh();
    see(&mut analysis, 9, &stratum((0, 0), (30, 90)), 1_000);
    let view = analysis.view(9, 1_000);
    assert_eq!(view.condemned, None);
    assert_eq!(
        view.breach.unwrap(),
        "the candidate failed 30 of 90 requests (33.3 %): more than maxErrorRate 1 %, and stable \
         has too few requests to compare: 0 of 0 requests (0.0 %)"
    );
    assert_eq!(analysis.view(10, 1_000).breach, None, "of another fence");
}

#[test]
fn an_outage_of_both_arms_is_neither_breach_nor_condemnation_and_ends_by_itself() {
    let mut analysis = fresh();
    see(&mut analysis, 1, &stratum((75, 250), (225, 750)), 1_000);
    let view = analysis.view(1, 1_000);
    assert_eq!((view.breach, view.condemned), (None, None));
    assert_eq!(
        view.shared_outage.unwrap(),
        "both arms break maxErrorRate 1 % in the same seconds: stable failed 75 of 250 requests \
         (30.0 %), the candidate 225 of 750 requests (30.0 %); waiting until stable keeps it again"
    );
    for second in 2..10 {
        see(
            &mut analysis,
            1,
            &stratum((0, 250), (0, 750)),
            second * 1_000,
        );
    }
    assert_eq!(analysis.view(1, 9_000).shared_outage, None);
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_closed() {
    let mut old = fresh();
    for _ in 0..3 {
        see(&mut old, 5, &stratum((0, 90), (1, 10)), 1_000);
    }
    let closed = old.view(5, 1_000).closed;
    let json = serde_json::to_string(&closed).unwrap();
    let closed: ClosedEvidence = serde_json::from_str(&json).unwrap();
    assert_eq!(closed.through_fence, 5);

    let mut new = Analysis::new(&rules(), closed);
    see(&mut new, 5, &stratum((0, 90), (10, 10)), 2_000);
    let view = new.view(6, 2_000);
    assert_eq!(
        (view.candidate, view.stable.requests, view.in_step),
        (
            Counts {
                requests: 30,
                failures: 3
            },
            270,
            0
        ),
        "records of a closed fence are in it already"
    );
    assert_eq!(view.condemned, None);
    for _ in 0..3 {
        for analysis in [&mut old, &mut new] {
            see(analysis, 6, &stratum((0, 90), (1, 10)), 3_000);
        }
    }
    assert_eq!(old.view(6, 3_000).condemned, new.view(6, 3_000).condemned);
    assert!(new.view(6, 3_000).condemned.is_some());
    assert_eq!(
        old.view(6, 3_000).closed.fences,
        new.view(6, 3_000).closed.fences
    );
}

#[test]
fn evidence_that_was_kept_by_an_older_version_is_gone_on_from() {
    let closed: ClosedEvidence = serde_json::from_str(
        r#"{"throughFence":2,"fences":[[{"requests":900,"failures":1},{"requests":100,"failures":0}]],"logRelative":[0.5]}"#,
    )
    .unwrap();
    let view = Analysis::new(&rules(), closed).view(3, 0);
    assert_eq!((view.candidate.requests, view.condemned), (100, None));
}

#[test]
fn however_many_fences_there_are_the_kept_evidence_is_small_and_no_request_is_lost() {
    let mut analysis = fresh();
    for fence in 1..=1_000 {
        see(
            &mut analysis,
            fence,
            &stratum((1, 900), (0, 100)),
            fence * 1_000,
        );
        see(
            &mut analysis,
            fence,
            &stratum((0, 0), (0, 1)),
            fence * 1_000,
        );
    }
    let view = analysis.view(1_000, 1_000_000);
    assert_eq!(view.candidate.requests, 101_000);
    assert!(view.closed.fences.len() <= 40);
    assert!(serde_json::to_string(&view.closed).unwrap().len() < 8_000);
}

#[test]
fn counters_that_cannot_be_true_do_no_harm() {
    let mut analysis = fresh();
    let all = ArmDelta {
        requests: 1,
        failures: u64::MAX,
        client_errors: u64::MAX,
    };
    let impossible = Stratum {
        stable: all,
        candidate: all,
    };
    for fence in [i64::MIN, 0, 1, i64::MAX, i64::MAX] {
        for at in [i64::MIN, 0, i64::MAX] {
            see(&mut analysis, fence, &impossible, at);
        }
    }
    let view = analysis.view(i64::MAX, i64::MAX);
    assert_eq!(view.condemned, None);
    let mut senseless = rules();
    senseless.max_error_rate = f64::NAN;
    senseless.max_relative_risk = f64::INFINITY;
    senseless.alpha = 0.0;
    senseless.promotion_alpha = 7.0;
    let mut analysis = Analysis::new(&senseless, ClosedEvidence::default());
    see(&mut analysis, 1, &stratum((1, 90), (1, 10)), 0);
    assert_eq!(analysis.view(1, 0).condemned, None);
}
