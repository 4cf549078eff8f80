//! Promotion: how long a release as good as stable takes to pass, and how often a worse one does.

use super::{bound::upper, each, percent, rollouts, row};
use crate::traffic::{Run, Scene, quantile};

/// A rollout that has not passed after so long waits for somebody.
const SECONDS: u64 = 4 * 3_600;
/// Of every ten requests one is the candidate's.
const WEIGHT: f64 = 0.1;

/// Seconds until it passes, looked at each second; none: it is condemned first, or does not.
fn passes_after(seed: u64, stable: f64, candidate: f64, per_second: u64, most: u64) -> Option<u64> {
    let scene = Scene::of(WEIGHT, stable, candidate);
    let mut run = Run::new(seed);
    for second in 1..=most {
        run.report(scene, per_second);
        let view = run.view();
        if view.condemned.is_some() {
            return None;
        }
        if view.sufficient {
            return Some(second);
        }
    }
    None
}

#[test]
fn a_release_as_good_as_stable_passes_at_any_load_also_where_stable_errs() {
    for rate in [0.0, 0.001, 0.012] {
        for per_second in [10, 100, 1_000] {
            // A hundredth of the rows' rollouts already shows the seconds, and each is long.
            let rollouts = rollouts(20).div_ceil(100).max(20);
            let took = each(rollouts, |seed| {
                passes_after(seed, rate, rate, per_second, SECONDS)
            });
            let passed: Vec<u64> = took.into_iter().flatten().collect();
            let share = passed.len() as f64 / rollouts as f64;
            let cells = [
                percent(rate),
                per_second.to_string(),
                rollouts.to_string(),
                percent(share),
                quantile(passed.clone(), 0.5).to_string(),
                quantile(passed, 0.9).to_string(),
            ];
            row("passed", &cells);
            assert!(share >= 0.95, "{share} at {rate}, {per_second}/s");
        }
    }
}

#[test]
fn of_twenty_releases_that_are_two_points_worse_at_most_one_passes() {
    for stable in [0.0, 0.001, 0.012] {
        let rollouts = rollouts(200);
        let passed = each(rollouts, |seed| {
            passes_after(seed, stable, stable + 0.02, 250, 200).is_some()
        });
        let passed = passed.into_iter().filter(|passed| *passed).count() as u64;
        let cells = [
            format!("{} -> {}", percent(stable), percent(stable + 0.02)),
            rollouts.to_string(),
            passed.to_string(),
            percent(upper(passed, rollouts, 0.99)),
        ];
        row("worse", &cells);
        assert!(passed * 20 <= rollouts, "{passed} of {rollouts}");
    }
}
