//! Good releases are spared, bad ones are condemned within a few failures.

use crate::traffic::{Run, Scene, quantile};

fn same(weight: f64, rate: f64) -> Scene {
    Scene {
        weight,
        stable: rate,
        candidate: rate,
        ..Scene::default()
    }
}

/// At most one of `runs` good releases, or one in a thousand, may be condemned.
fn spared(what: &str, runs: u64, life: impl Fn(&mut Run)) {
    let runs = runs * times();
    let condemned = |seed: &u64| {
        let mut run = Run::new(*seed);
        life(&mut run);
        run.condemned()
    };
    let wrong = (1..=runs).filter(condemned).count() as u64;
    println!("{what}: {wrong} of {runs} good releases condemned");
    assert!(wrong <= (runs / 1_000).max(1), "{wrong} of {runs}");
}

/// The long form: `SLUICE_SIMULATE_TIMES=100 cargo test -p sluice-rollout --test verdict --
/// --nocapture`.
fn times() -> u64 {
    std::env::var("SLUICE_SIMULATE_TIMES").map_or(1, |times| times.parse().unwrap())
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
fn of_a_thousand_good_releases_at_a_tenth_of_a_percent_at_most_one_is_condemned() {
    spared("0.1 %, weight 10", 1_000, |run| {
        for _ in 0..400 {
            run.report(same(0.1, 0.001), 250);
        }
    });
}

#[test]
fn a_ramp_at_one_percent_condemns_no_good_release_at_all_its_weights_together() {
    spared("ramp at 1 %", 1_000, |run| {
        for weight in [0.01, 0.05, 0.1, 0.25, 0.5, 0.75] {
            run.fence += 1;
            for _ in 0..60 {
                run.report(same(weight, 0.01), 250);
            }
        }
    });
}

#[test]
fn a_shared_outage_condemns_no_good_release() {
    for weight in [0.1, 0.5, 0.75] {
        for (per_second, proxies) in [(1_000, 1), (1_000, 20), (40, 2), (5, 1)] {
            let what = format!("outage, weight {weight}, {per_second}/s, {proxies} proxies");
            spared(&what, 100, |run| {
                run.traffic(same(weight, 0.001), per_second, proxies, 3_000);
                run.traffic(same(weight, 0.3), per_second, proxies, 3_000);
                run.traffic(same(weight, 0.001), per_second, proxies, 3_000);
            });
        }
    }
}

#[test]
fn short_blips_of_both_arms_condemn_no_good_release() {
    for (weight, per_second) in [(0.5, 20), (0.5, 200), (0.9, 20), (0.9, 200)] {
        let what = format!("40 blips, weight {weight}, {per_second}/s");
        spared(&what, 60, |run| {
            for _ in 0..40 {
                run.traffic(same(weight, 0.0), per_second, 1, 2_000);
                run.traffic(same(weight, 0.5), per_second, 1, 200);
            }
        });
    }
}

#[test]
fn a_candidate_as_bad_as_a_stable_that_breaks_the_promise_is_not_condemned() {
    spared("1.2 %, weight 50", 100, |run| {
        for _ in 0..2_000 {
            run.report(same(0.5, 0.012), 250);
        }
    });
}

#[test]
fn a_candidate_within_the_tolerance_is_not_condemned() {
    let scene = Scene {
        weight: 0.5,
        stable: 0.004,
        candidate: 0.006,
        ..Scene::default()
    };
    spared("1.5 times worse, within the promise", 100, |run| {
        for _ in 0..2_000 {
            run.report(scene, 250);
        }
    });
}

#[test]
fn a_third_of_failures_is_condemned_within_eight_failures_at_weight_ten() {
    let scene = Scene {
        weight: 0.1,
        stable: 0.0,
        candidate: 0.33,
        ..Scene::default()
    };
    for (per_second, proxies) in [(1_000, 1), (500, 2), (1_000, 50), (20, 1), (20, 20), (2, 1)] {
        let (median, worst) = failures_until_condemned(200, |run| {
            run.traffic(scene, per_second, proxies, 600_000);
        });
        println!("33 % against 0, {per_second}/s, {proxies} proxies: {median}, p99 {worst}");
        let most = if proxies < 50 { 8 } else { 12 };
        assert!(median <= most && worst <= 30, "{median}, {worst}");
    }
}

#[test]
fn failures_and_client_errors_together_are_condemned_within_half_a_second() {
    // A third of the answers are errors: one in three of them a 500, the others 400 and 409.
    let scene = Scene {
        weight: 0.1,
        candidate: 1.0 / 9.0,
        candidate_4xx: 2.0 / 9.0,
        ..Scene::default()
    };
    let took = (1..=200).map(|seed| {
        let mut run = Run::new(seed);
        let start = run.now;
        run.traffic(scene, 500, 1, 60_000);
        assert!(run.condemned());
        (run.now - start) as u64
    });
    let median = quantile(took.collect(), 0.5);
    println!("a third of errors, most of them 4xx, 500/s: {median} ms");
    assert!(median <= 600);
}

#[test]
fn five_percent_against_a_tenth_is_condemned_in_a_few_hundred_candidate_requests() {
    for (weight, most) in [(0.05, 150), (0.1, 200), (0.25, 300), (0.5, 500)] {
        let scene = Scene {
            weight,
            stable: 0.001,
            candidate: 0.05,
            ..Scene::default()
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
        ..Scene::default()
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
        ..Scene::default()
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
