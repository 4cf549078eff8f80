//! Good releases, whatever else goes on: of a thousand at most one may be condemned.

use super::{
    bound::upper,
    each,
    fleet::{Faults, Fleet},
    percent, rollouts, row,
};
use crate::traffic::{Run, Scene};

const CONFIDENCE: f64 = 0.99;

fn spared(generator: &str, few: u64, condemned: impl Fn(u64) -> bool + Sync) {
    let rollouts = rollouts(few);
    let wrong = each(rollouts, condemned);
    let wrong = wrong
        .into_iter()
        .filter(|is_condemned| *is_condemned)
        .count() as u64;
    let bound = upper(wrong, rollouts, CONFIDENCE);
    row(
        "spared",
        &[
            generator.to_owned(),
            rollouts.to_string(),
            wrong.to_string(),
            format!("{bound:.1e}"),
        ],
    );
    assert!(
        wrong <= (rollouts / 1_000).max(1),
        "{generator}: {wrong} of {rollouts}"
    );
}

/// One rollout that is judged as it goes.
fn lived(seed: u64, life: impl Fn(&mut Run)) -> bool {
    let mut run = Run::new(seed);
    life(&mut run);
    run.condemned()
}

/// Reports of 250 requests, looked at every five seconds.
fn reports(run: &mut Run, scene: Scene, reports: u64) {
    for n in 1..=reports {
        run.report(scene, 250);
        if n % 20 == 0 && run.condemned() {
            return;
        }
    }
}

#[test]
fn at_a_steady_rate() {
    for (weight, rate) in [(0.1, 0.001), (0.05, 0.001), (0.5, 0.001), (0.1, 0.01)] {
        let generator = format!(
            "steady, {} in both arms, weight {}",
            percent(rate),
            percent(weight)
        );
        spared(&generator, 1_000, |seed| {
            lived(seed, |run| reports(run, Scene::same(weight, rate), 400))
        });
    }
}

#[test]
fn at_all_the_weights_of_a_ramp_together() {
    spared("a ramp 1-5-10-25-50-75 % at 1 %", 1_000, |seed| {
        lived(seed, |run| {
            for weight in [0.01, 0.05, 0.1, 0.25, 0.5, 0.75] {
                run.fence += 1;
                reports(run, Scene::same(weight, 0.01), 60);
            }
        })
    });
}

#[test]
fn while_the_rate_drifts_by_the_hour_of_the_day() {
    spared("drift, 0.05 % to 5 % and back, three times", 300, |seed| {
        lived(seed, |run| {
            for n in 0..360 {
                let swing = (f64::from(n) / 360.0 * 3.0 * std::f64::consts::TAU).sin();
                run.report(Scene::same(0.1, 0.005 * 10f64.powf(swing)), 250);
            }
        })
    });
}

/// Both arms fail for so many seconds; as many good ones come before and after.
fn outage(rate: f64, seconds: i64, few: u64, (weight, per_second, proxies): (f64, u64, u64)) {
    let generator = format!(
        "outage of {} for {seconds} s, weight {}, {per_second} requests/s, {proxies} proxies",
        percent(rate),
        percent(weight)
    );
    spared(&generator, few, |seed| {
        lived(seed, |run| {
            for rate in [0.001, rate, 0.001] {
                let scene = Scene::same(weight, rate);
                run.traffic(scene, per_second, proxies, seconds * 1_000);
            }
        })
    });
}

#[test]
fn in_an_outage_of_both_arms() {
    for weight in [0.1, 0.5, 0.75] {
        for (per_second, proxies) in [(1_000, 1), (1_000, 20), (40, 2), (5, 1)] {
            outage(0.3, 3, 100, (weight, per_second, proxies));
        }
    }
}

#[test]
fn in_an_outage_in_front_of_many_proxies() {
    for rate in [0.2, 1.0] {
        for weight in [0.1, 0.5] {
            for proxies in [50, 200] {
                outage(rate, 2, 40, (weight, 1_000, proxies));
            }
        }
    }
}

#[test]
fn in_bursts_of_failures_that_fall_on_either_arm() {
    for (weight, per_second) in [(0.1, 1_000), (0.5, 20), (0.5, 200), (0.9, 20), (0.9, 200)] {
        let generator = format!(
            "40 bursts of 0.2 s in which half fail, weight {}, {per_second} requests/s",
            percent(weight)
        );
        spared(&generator, 60, |seed| {
            lived(seed, |run| {
                for _ in 0..40 {
                    run.traffic(Scene::same(weight, 0.0), per_second, 1, 2_000);
                    run.traffic(Scene::same(weight, 0.5), per_second, 1, 200);
                }
            })
        });
    }
}

#[test]
fn where_stable_itself_breaks_the_promise() {
    spared("1.2 % in both arms, weight 50 %", 100, |seed| {
        lived(seed, |run| reports(run, Scene::same(0.5, 0.012), 2_000))
    });
}

#[test]
fn within_the_tolerance() {
    let scene = Scene::of(0.5, 0.004, 0.006);
    spared(
        "0.6 % against 0.4 %: as much worse as is tolerated",
        100,
        |seed| lived(seed, |run| reports(run, scene, 2_000)),
    );
}

/// A rollout of half a minute a step, at 1 % in both arms.
fn with(faults: Faults) -> impl Fn(u64) -> bool + Sync {
    move |seed| {
        let mut fleet = Fleet::new(seed, 10, faults);
        for weight in [0.1, 0.25, 0.5] {
            fleet.shift(weight);
            fleet.traffic(0.01, 400, 20);
        }
        fleet.condemned()
    }
}

#[test]
fn whatever_happens_to_reports_proxies_leaders_and_requests() {
    let none = Faults::default();
    let restarted = Faults {
        restarted: 0.01,
        ..none
    };
    let lossy = Faults {
        lost: 0.2,
        replayed: 0.2,
        ..none
    };
    let late = Faults { late: 0.3, ..none };
    let leaders = Faults {
        leader_replaced: 0.02,
        ..none
    };
    let hung = Faults { hung: 0.01, ..none };
    let all = Faults {
        restarted: 0.01,
        lost: 0.1,
        replayed: 0.1,
        late: 0.1,
        leader_replaced: 0.02,
        hung: 0.005,
    };
    let rows = [
        (
            "proxies restart: of 100 reports one finds its counters at 0",
            restarted,
        ),
        ("of 10 reports 2 are lost, 2 come twice", lossy),
        ("of 10 proxies 3 still route by the weight before", late),
        ("another leader each 12 s", leaders),
        ("of 100 requests one hangs, in either arm", hung),
        ("all of these", all),
    ];
    for (generator, faults) in rows {
        let generator = format!("{generator}; 10-25-50 % at 1 %, 10 proxies");
        spared(&generator, 60, with(faults));
    }
}
