//! How fast bad releases are taken back, whom they hurt, and how long a good one takes beyond its
//! holds: `cargo xtask bench rollback`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::bench::{Bench, Row, median, most, sorted};
use crate::load::{self, Load, Share};
use crate::report::{Release, Report};
use crate::story::{self, Stage, WORKLOAD_FILE};
use crate::teller::{FLUX, Teller};
use crate::world;

const ROLLOUT_FILE: &str = "apps/demo/rollout.yaml";
/// The steps of the demo's MeshRollout.
const STEPS: [i32; 5] = [10, 25, 50, 75, 100];
/// podinfo asks itself whether it has started where a bad version says no.
const PROBE: (&str, &str, &str) = (WORKLOAD_FILE, "path: /readyz", "path: /healthz");
/// Where a bad version answers 503.
const BAD_PATH: &str = "/readyz";
/// Where every version answers 500.
const ERROR_PATH: &str = "/status/500";
/// Good releases, for what they take beyond their holds.
const PROMOTIONS: u32 = 3;
const CONNECTIONS: usize = 48;
/// What today's tools took on such a node, their decision alone: at their fastest, median, failed
/// requests.
const TODAY: &str = "Argo Rollouts, 1 s scrape: 1.7 s, 440 failed; 15 s scrape: 8 s, 2,200. Flagger at 10 s: 23 s, \
                     10,700; at its defaults: 326 s, 81,000";

/// A way of being bad.
struct Scenario {
    name: &'static str,
    /// Of the first step, percent.
    weight: i32,
    path: &'static str,
    others: &'static [(u64, &'static str)],
    /// Goals: seconds to zero, and failed requests.
    seconds: f64,
    failed: Option<f64>,
}

const SCENARIOS: [Scenario; 2] = [
    // All of the candidate's answers fail.
    Scenario {
        name: "a",
        weight: 25,
        path: BAD_PATH,
        others: &[],
        seconds: 0.4,
        failed: Some(100.0),
    },
    // One in twenty fails, and of all answers one in a thousand.
    Scenario {
        name: "b",
        weight: 5,
        path: "/",
        others: &[(50, BAD_PATH), (1, ERROR_PATH)],
        seconds: 2.2,
        failed: None,
    },
];

/// Brings bad releases, one after the other, each reverted, in both ways; then a few good ones.
///
/// # Errors
/// When something does not come about in time; the error says what was seen last.
pub async fn measure(stage: &Stage, runs: u32) -> Result<(Report, Bench)> {
    let (mut teller, cluster) = story::begin(stage, &[PROBE]).await?;
    let mut bench = Bench::new("rollback", &cluster.kubernetes);
    let mut releases = Vec::new();
    let mut steps = STEPS.to_vec();
    for scenario in SCENARIOS {
        change_steps(&mut teller, &mut steps, &[scenario.weight, 100]).await?;
        let load = scenario.load(stage);
        let running = load::start(load, teller.ledger.clone());
        let mut ended = Vec::new();
        for run in 1..=runs {
            let name = format!("{}-{run}", scenario.name);
            // Whatever beats beside the releases, they come at any moment of it.
            let phase = RandomState::new().build_hasher().finish() % 1_000;
            tokio::time::sleep(Duration::from_millis(phase)).await;
            let bad = format!("--ui-message={name}\n            - --unready");
            teller.repo.edit(WORKLOAD_FILE, "--ui-message=v1", &bad)?;
            ended.push(teller.release(&name, None).await?);
            teller.revert().await?;
        }
        running.stop().await;
        scenario.tell(&ended, &mut bench);
        releases.extend(ended);
    }
    change_steps(&mut teller, &mut steps, &STEPS).await?;
    let good = promotions(stage, &mut teller).await?;
    bench.add("promotion_overhead_seconds", overhead(&good));
    let lost: u64 = releases.iter().chain(&good).map(|r| r.requests.lost).sum();
    bench.add(
        "lost_total",
        Row::of(lost as f64, "requests", releases.len() + good.len()),
    );
    releases.extend(good);
    Ok((Report { cluster, releases }, bench))
}

/// From now on these are the steps of a revision.
async fn change_steps(teller: &mut Teller, steps: &mut Vec<i32>, next: &[i32]) -> Result<()> {
    let list = |steps: &[i32]| {
        let lines = steps
            .iter()
            .map(|weight| format!("      - weight: {weight}\n"));
        lines.collect::<String>()
    };
    teller.repo.edit(ROLLOUT_FILE, &list(steps), &list(next))?;
    teller.repo.push(&format!("The steps are {next:?}"))?;
    *steps = next.to_vec();
    world::sync(&teller.client, FLUX).await
}

/// By the demo's steps, none of which fails.
async fn promotions(stage: &Stage, teller: &mut Teller) -> Result<Vec<Release>> {
    let load = Load {
        connections: CONNECTIONS,
        ..story::load(stage.gateway, stage.rate)
    };
    let running = load::start(load, teller.ledger.clone());
    let mut good = Vec::new();
    let mut before = "v1".to_owned();
    for run in 1..=PROMOTIONS {
        let name = format!("good-{run}");
        let message = |version: &str| format!("--ui-message={version}");
        teller
            .repo
            .edit(WORKLOAD_FILE, &message(&before), &message(&name))?;
        good.push(teller.release(&name, None).await?);
        before = name;
    }
    running.stop().await;
    Ok(good)
}

/// What promotions took from their first weight on, beyond five holds of 5 s.
fn overhead(good: &[Release]) -> Row {
    let holds = 25.0;
    let beyond = good.iter().map(|r| r.first_weight_to_end_seconds - holds);
    let beyond = sorted(beyond.collect());
    Row::of(median(&beyond), "s", beyond.len()).with(json!({"holds": holds, "all": beyond}))
}

impl Scenario {
    fn load(&self, stage: &Stage) -> Load {
        let others = self.others.iter().map(|(of_thousand, path)| Share {
            of_thousand: *of_thousand,
            path: (*path).to_owned(),
        });
        Load {
            connections: CONNECTIONS,
            path: self.path.to_owned(),
            others: others.collect(),
            ..story::load(stage.gateway, stage.rate)
        }
    }

    fn tell(&self, releases: &[Release], bench: &mut Bench) {
        let each = |value: &dyn Fn(&Release) -> Option<f64>| {
            sorted(releases.iter().filter_map(value).collect())
        };
        let name = |figure: &str| format!("{}.{figure}", self.name);
        let to_zero = each(&|r| r.first_failure_to_zero_seconds);
        let failed = each(&|r| Some(r.requests.candidate_failed as f64));
        let share = each(&|r| Some(r.sampling_seconds? / r.first_failure_to_zero_seconds?));
        let runs = releases.len();
        let row = Row::of(median(&to_zero), "s", to_zero.len()).against(self.seconds);
        let detail = json!({"peer": "the goal", "today's tools": TODAY, "all": to_zero});
        bench.add(name("seconds_to_zero_median"), row.with(detail));
        let row = Row::of(most(&to_zero), "s", to_zero.len());
        bench.add(name("seconds_to_zero_max"), row);
        let row = Row::of(median(&failed), "requests", runs);
        let row = match self.failed {
            Some(goal) => row.against(goal),
            None => row,
        };
        bench.add(name("failed_requests_median"), row);
        let row = Row::of(most(&failed), "requests", runs);
        bench.add(name("failed_requests_max"), row);
        let row = Row::of(median(&share), "of the time", share.len());
        bench.add(name("sampling_share"), row);
        let outcome = |outcome: &str| releases.iter().filter(|r| r.outcome == outcome).count();
        let row = Row::of(outcome("RolledBack") as f64, "releases", runs);
        bench.add(name("rolled_back"), row);
    }
}
