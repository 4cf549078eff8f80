//! Good releases are spared, bad ones are condemned within a few failures.

use crate::traffic::{Run, Scene, quantile};

fn same(weight: f64, rate: f64) -> Scene {
    Scene {
        weight,
        stable: rate,
        candidate: rate,
    }
}

/// How many of `runs` good releases were condemned.
fn condemned(runs: u64, life: impl Fn(&mut Run)) -> u64 {
    let condemned = |seed: &u64| {
        let mut run = Run::new(*seed);
        life(&mut run);
        run.condemned()
    };
    (1..=runs).filter(condemned).count() as u64
}

/// (median, 99th percentile) of the candidate's failures until it was condemned.
fn failures_until_condemned(runs: u64, live: impl Fn(&mut Run)) -> (u64, u64) {
    let seen: Vec<_> = (1..=runs)
        .map(|seed| {
            let mut run = Run::new(seed);
            live(&mut run);
            assert!(run.condemned(), "seed {seed}");
            run.failures.1
        })
        .collect();
    (quantile(seen.clone(), 0.5), quantile(seen, 0.99))
}

#[test]
fn of_a_thousand_good_releases_at_a_tenth_of_a_percent_none_or_one_is_condemned() {
    let wrong = condemned(1_000, |run| {
        for _ in 0..400 {
            run.report(same(0.1, 0.001), 250);
        }
    });
    println!("A/A at 0.1 %, weight 10: {wrong} of 1000");
    assert!(wrong <= 1);
}

#[test]
fn a_ramp_at_one_percent_condemns_no_good_release_at_all_its_weights_together() {
    let wrong = condemned(1_000, |run| {
        for weight in [0.01, 0.05, 0.1, 0.25, 0.5, 0.75] {
            run.fence += 1;
            for _ in 0..60 {
                run.report(same(weight, 0.01), 250);
            }
        }
    });
    println!("A/A ramp at 1 %: {wrong} of 1000");
    assert!(wrong <= 1);
}

#[test]
fn a_shared_outage_condemns_no_good_release() {
    let mut all = 0;
    for weight in [0.1, 0.5, 0.75] {
        for (per_second, proxies) in [(1_000, 1), (1_000, 20), (40, 2), (5, 1)] {
            let wrong = condemned(100, |run| {
                run.traffic(same(weight, 0.001), per_second, proxies, 3_000);
                run.traffic(same(weight, 0.3), per_second, proxies, 3_000);
                run.traffic(same(weight, 0.001), per_second, proxies, 3_000);
            });
            println!("outage, weight {weight}, {per_second}/s, {proxies} proxies: {wrong} of 100");
            all += wrong;
        }
    }
    assert!(all <= 2, "{all} of 1200");
}

#[test]
fn a_hundred_short_blips_of_both_arms_condemn_no_good_release() {
    let mut all = 0;
    for (weight, per_second) in [(0.5, 20), (0.5, 200), (0.9, 20), (0.9, 200)] {
        all += condemned(60, |run| {
            for _ in 0..40 {
                run.traffic(same(weight, 0.0), per_second, 1, 2_000);
                run.traffic(same(weight, 0.5), per_second, 1, 200);
            }
        });
    }
    println!("blips: {all} of 240");
    assert!(all <= 1);
}

#[test]
fn a_candidate_as_bad_as_a_stable_that_breaks_the_promise_is_not_condemned() {
    let wrong = condemned(200, |run| {
        for _ in 0..2_000 {
            run.report(same(0.5, 0.012), 250);
        }
    });
    println!("A/A at 1.2 %, weight 50, half a million requests: {wrong} of 200");
    assert!(wrong <= 1);
}

#[test]
fn a_candidate_within_the_tolerance_is_not_condemned() {
    let scene = Scene {
        weight: 0.5,
        stable: 0.004,
        candidate: 0.006,
    };
    let wrong = condemned(200, |run| {
        for _ in 0..2_000 {
            run.report(scene, 250);
        }
    });
    println!("1.5 times worse, within the promise: {wrong} of 200");
    assert!(wrong <= 1);
}

#[test]
fn a_third_of_failures_is_condemned_within_eight_failures_at_weight_ten() {
    let scene = Scene {
        weight: 0.1,
        stable: 0.0,
        candidate: 0.33,
    };
    for (per_second, proxies) in [(1_000, 1), (500, 2), (1_000, 50), (20, 1), (20, 20), (2, 1)] {
        let (median, worst) = failures_until_condemned(200, |run| {
            run.traffic(scene, per_second, proxies, 600_000);
        });
        println!("33 % against 0, {per_second}/s, {proxies} proxies: {median}, p99 {worst}");
        assert!(median <= 8 || proxies >= 50, "{median}");
        assert!(worst <= 30, "{worst}");
    }
}

#[test]
fn five_percent_against_a_tenth_is_condemned_in_a_few_hundred_candidate_requests() {
    for (weight, most) in [(0.05, 150), (0.1, 200), (0.25, 300), (0.5, 500)] {
        let scene = Scene {
            weight,
            stable: 0.001,
            candidate: 0.05,
        };
        let seen = (1..=200).map(|seed| {
            let mut run = Run::new(seed);
            run.traffic(scene, 1_000, 1, 600_000);
            assert!(run.condemned());
            run.requests.1
        });
        let median = quantile(seen.collect(), 0.5);
        println!("5 % against 0.1 %, weight {weight}: {median} candidate requests");
        assert!(median <= most);
    }
}

#[test]
fn a_candidate_that_turns_bad_after_long_service_is_condemned_as_soon() {
    let bad = Scene {
        weight: 0.5,
        stable: 0.001,
        candidate: 0.33,
    };
    let fresh = failures_until_condemned(50, |run| run.traffic(bad, 1_000, 1, 60_000));
    let late = failures_until_condemned(50, |run| {
        for _ in 0..2_000 {
            run.report(same(0.5, 0.001), 500);
        }
        run.failures = (0, 0);
        run.traffic(bad, 1_000, 1, 60_000);
    });
    println!("turning bad after a million requests: {late:?}, at once: {fresh:?}");
    assert!(late.0 <= 4 * fresh.0, "{late:?} against {fresh:?}");
}

#[test]
fn a_broken_promise_is_condemned_though_stable_is_nearly_as_bad() {
    let scene = Scene {
        weight: 0.5,
        stable: 0.008,
        candidate: 0.02,
    };
    let seen = (1..=50).map(|seed| {
        let mut run = Run::new(seed);
        run.traffic(scene, 1_000, 1, 600_000);
        assert!(run.condemned());
        run.requests.1
    });
    let median = quantile(seen.collect(), 0.5);
    println!("2 % against 0.8 %: {median} candidate requests");
    assert!(median <= 8_000);
}
