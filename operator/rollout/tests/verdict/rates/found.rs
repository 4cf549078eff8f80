//! Bad releases: how many of the candidate's requests it takes to condemn them.

use sluice_rollout::policy::Rules;

use super::{each, percent, rollouts, row};
use crate::traffic::{Run, Scene, quantile, rules};

/// Candidate requests until the verdict: median, 90th and 99th percentile.
struct Took {
    median: u64,
    p90: u64,
    p99: u64,
}

/// At 1,000 requests/s through one proxy.
fn found(tolerance: f64, weight: f64, stable: f64, candidate: f64) -> Took {
    let rules = Rules {
        max_relative_risk: tolerance,
        ..rules()
    };
    let scene = Scene::of(weight, stable, candidate);
    let seen = each(rollouts(200), |seed| {
        let mut run = Run::by(&rules, seed);
        run.traffic(scene, 1_000, 1, 3_600_000);
        assert!(run.condemned(), "seed {seed}");
        (run.requests.1, run.failures.1)
    });
    let (requests, failures): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
    let requests = |p| quantile(requests.clone(), p);
    let took = Took {
        median: requests(0.5),
        p90: requests(0.9),
        p99: requests(0.99),
    };
    let cells = [
        format!("{} -> {}", percent(stable), percent(candidate)),
        tolerance.to_string(),
        percent(weight),
        took.median.to_string(),
        took.p90.to_string(),
        took.p99.to_string(),
        quantile(failures, 0.5).to_string(),
    ];
    row("found", &cells);
    took
}

#[test]
fn five_percent_against_a_tenth_at_weight_five_takes_eighty_candidate_requests() {
    let took = found(1.0, 0.05, 0.001, 0.05);
    assert!(took.median <= 80 && took.p99 <= 250);
    let took = found(1.5, 0.05, 0.001, 0.05);
    assert!(took.median <= 150);
}

#[test]
fn five_percent_against_a_tenth_takes_more_where_the_coin_tells_less() {
    let mut before = 0;
    for (weight, most) in [(0.01, 150), (0.1, 200), (0.25, 300), (0.5, 500)] {
        let tolerant = found(1.5, weight, 0.001, 0.05);
        let strict = found(1.0, weight, 0.001, 0.05);
        assert!(strict.median <= tolerant.median && tolerant.median <= most);
        assert!(tolerant.p90 <= tolerant.p99);
        assert!(tolerant.median >= before, "at weight {weight}");
        before = tolerant.median;
    }
}

#[test]
fn what_is_less_bad_takes_longer_and_is_found_all_the_same() {
    for (weight, stable, candidate, most) in [
        (0.05, 0.0001, 0.05, 150),
        (0.05, 0.01, 0.05, 700),
        (0.05, 0.001, 0.02, 700),
        (0.05, 0.001, 0.01, 2_500),
        (0.1, 0.001, 0.33, 30),
    ] {
        let strict = found(1.0, weight, stable, candidate);
        let tolerant = found(1.5, weight, stable, candidate);
        assert!(strict.median <= most && tolerant.median <= 3 * most);
    }
}
