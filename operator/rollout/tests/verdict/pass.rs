//! Equal candidates pass, worse ones do not.

use crate::traffic::{Run, Scene};

fn passes(seed: u64, scene: Scene, requests: u64) -> bool {
    let mut run = Run::new(seed);
    for _ in 0..requests / 250 {
        run.report(scene, 250);
    }
    run.view().sufficient
}

/// Whether it would pass at any of the moments at which one might look.
fn passes_once(seed: u64, scene: Scene, requests: u64) -> bool {
    let mut run = Run::new(seed);
    (0..requests / 250).any(|_| {
        run.report(scene, 250);
        run.view().sufficient
    })
}

#[test]
fn equal_arms_pass() {
    for (rate, requests) in [(0.0, 7_000), (0.001, 30_000), (0.012, 120_000)] {
        let passed = (1..=100)
            .filter(|&seed| passes(seed, Scene::of(0.1, rate, rate), requests))
            .count();
        println!("equal at {rate}: {passed} of 100 after {requests} requests");
        assert!(passed >= 90);
    }
}

#[test]
fn a_candidate_at_the_margin_passes_at_most_once_in_twenty_at_one_look() {
    let passed = (1..=400)
        .filter(|&seed| passes(seed, Scene::of(0.1, 0.001, 0.006), 20_000))
        .count();
    let looking = (1..=400)
        .filter(|&seed| passes_once(seed, Scene::of(0.1, 0.001, 0.006), 20_000))
        .count();
    println!("at the margin: {passed} of 400 at one look, {looking} at eighty");
    assert!(passed <= 28);
}

#[test]
fn what_is_needed_is_about_what_it_takes() {
    let mut run = Run::new(7);
    for _ in 0..8 {
        run.report(Scene::of(0.1, 0.0, 0.0), 250);
    }
    let before = run.view();
    assert!(!before.sufficient && before.needed > before.candidate.requests);
    while !run.view().sufficient {
        run.report(Scene::of(0.1, 0.0, 0.0), 250);
    }
    let took = run.view().candidate.requests;
    assert!(
        took.abs_diff(before.needed) < 60,
        "{took} {}",
        before.needed
    );
}
