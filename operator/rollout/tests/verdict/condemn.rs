//! Bad releases are condemned within a few failures.

use crate::traffic::{Run, Scene, quantile};

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
fn a_third_of_failures_is_condemned_within_eight_failures_at_weight_ten() {
    let scene = Scene::of(0.1, 0.0, 0.33);
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
fn a_candidate_that_turns_bad_after_long_service_is_condemned_as_soon() {
    let bad = Scene::of(0.5, 0.001, 0.33);
    let fresh = failures_until_condemned(50, |run| run.traffic(bad, 1_000, 1, 60_000));
    let late = failures_until_condemned(50, |run| {
        for _ in 0..2_000 {
            run.report(Scene::same(0.5, 0.001), 500);
        }
        run.failures = (0, 0);
        run.traffic(bad, 1_000, 1, 60_000);
    });
    println!("turning bad after a million requests: {late:?}, at once: {fresh:?}");
    assert!(late.0 <= 4 * fresh.0, "{late:?} against {fresh:?}");
}

#[test]
fn a_broken_promise_is_condemned_though_stable_is_nearly_as_bad() {
    let scene = Scene::of(0.5, 0.008, 0.02);
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
