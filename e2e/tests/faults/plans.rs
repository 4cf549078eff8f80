//! Every write of every story, cut in every way.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    time::{Duration, Instant},
};

use futures::future::{join_all, try_join_all};
use parking_lot::Mutex;
use sluice_e2e::faults::{
    clusters,
    lane::{Lane, Reference},
    plan::{Cut, Plan, share},
    story::Story,
};

use crate::report;

/// What came of the plans.
pub type Results = Vec<(Plan, Vec<String>, Duration)>;

/// The cases that every run takes, whatever the seed.
const ALWAYS: [(Story, &str, Cut); 5] = [
    (
        Story::Promotion,
        "trafficsplit: stable 50 candidate 50, fence +2",
        Cut::KilledBefore,
    ),
    (
        Story::Promotion,
        "trafficsplit: stable 50 candidate 50, fence +2",
        Cut::KilledAfter,
    ),
    (
        Story::Promotion,
        "replicaset: made with 1 pods",
        Cut::ReplyLost,
    ),
    (Story::Promotion, "replicaset: given away", Cut::KilledAfter),
    (
        Story::Rollback,
        "meshrollout: RollingBack at 0 %, fence +3",
        Cut::KilledAfter,
    ),
];

/// The tenth that is taken unless SLUICE_SEED says otherwise: the same for everybody, so that nobody's
/// commit waits for what another has broken. `cargo xtask prove faults` takes all.
const SEED: u64 = 1;

/// A tenth of the plans by the seed SLUICE_SEED; all of them with SLUICE_PLANS=all. Only those
/// whose text contains SLUICE_PLAN, where that is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_write_is_cut_the_release_ends_as_it_would_have() {
    let began = Instant::now();
    let lanes = try_join_all(clusters::all().iter().map(|_| Lane::start()))
        .await
        .unwrap();
    let references = references(&lanes).await;
    let plans = all(&references);
    let number = plans.len();
    let chosen = chosen(plans);
    println!(
        "{} of {number} plans, the first after {:.0?}",
        chosen.len(),
        began.elapsed()
    );

    let results = run(&lanes, chosen, &references).await;
    println!("{} plans in {:.0?}", results.len(), began.elapsed());
    let is_part = std::env::var_os("SLUICE_PLAN").is_some();
    if let Some(document) = std::env::var_os("SLUICE_RESULTS").filter(|_| !is_part) {
        report::write(Path::new(&document), &results);
    }
    let failed = failures(&results);
    assert!(failed.is_empty(), "plans failed:\n{failed}");
}

/// The plans that failed, each with what was wrong: said once more at the end, because a runner of
/// tests may keep no more than that.
fn failures(results: &Results) -> String {
    let failed = results.iter().filter(|(_, wrongs, _)| !wrongs.is_empty());
    let lines =
        failed.map(|(plan, wrongs, _)| format!("{plan}\n        {}\n", wrongs.join("\n        ")));
    lines.collect()
}

/// Each story without faults.
async fn references(lanes: &[Lane]) -> BTreeMap<Story, Reference> {
    let stories = Mutex::new(VecDeque::from(Story::ALL));
    let references = Mutex::new(BTreeMap::new());
    let learn = async |lane: &Lane| {
        loop {
            let Some(story) = stories.lock().pop_front() else {
                return;
            };
            let reference = lane.learn(story).await.unwrap();
            references.lock().insert(story, reference);
        }
    };
    join_all(lanes.iter().map(learn)).await;
    references.into_inner()
}

async fn run(lanes: &[Lane], plans: Vec<Plan>, references: &BTreeMap<Story, Reference>) -> Results {
    let queue = Mutex::new(VecDeque::from(plans));
    let results = Mutex::new(Results::new());
    let work = async |lane: &Lane| {
        loop {
            let Some(plan) = queue.lock().pop_front() else {
                return;
            };
            let (wrongs, took) = lane.run(&plan, &references[&plan.story]).await;
            println!(
                "{:>4.1} s  {plan}{}",
                took.as_secs_f32(),
                if wrongs.is_empty() { "" } else { ": WRONG" }
            );
            for wrong in &wrongs {
                println!("        {wrong}");
            }
            results.lock().push((plan, wrongs, took));
        }
    };
    join_all(lanes.iter().map(work)).await;
    results.into_inner()
}

fn all(references: &BTreeMap<Story, Reference>) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (&story, reference) in references {
        for point in &reference.points {
            plans.extend(Cut::ALL.map(|cut| Plan {
                story,
                point: point.clone(),
                cut,
            }));
        }
    }
    plans
}

fn chosen(mut plans: Vec<Plan>) -> Vec<Plan> {
    if let Ok(text) = std::env::var("SLUICE_PLAN") {
        plans.retain(|plan| plan.to_string().contains(&text));
        return plans;
    }
    if std::env::var("SLUICE_PLANS").is_ok_and(|plans| plans == "all") {
        return plans;
    }
    let seed = std::env::var("SLUICE_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    println!("SLUICE_SEED={seed}");
    let always = ALWAYS.map(|(story, deed, cut)| {
        let is_it = |plan: &&Plan| {
            plan.story == story && plan.cut == cut && plan.point.deed.to_string() == deed
        };
        plans
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no write `{deed}`"))
            .clone()
    });
    let mut chosen = share(plans, 10, seed);
    chosen.extend(always);
    chosen.sort();
    chosen.dedup();
    chosen
}
