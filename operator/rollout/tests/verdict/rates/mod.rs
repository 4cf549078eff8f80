//! The error rates and speeds that `docs/verdict.md` states, one row a test or several.
//!
//! Here in short. `cargo xtask prove verdict` asks for many rollouts a row
//! (`SLUICE_VERDICT_ROLLOUTS`) and writes the rows that are printed into the document.

mod bound;
mod fleet;
mod found;
mod passed;
mod spared;

use std::thread;

/// Rollouts of a row: so many as are asked for, else a few.
fn rollouts(few: u64) -> u64 {
    std::env::var("SLUICE_VERDICT_ROLLOUTS").map_or(few, |all| all.parse().unwrap())
}

/// What came of each rollout, by its seed.
fn each<T: Send>(rollouts: u64, live: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = |first: u64| (first..=rollouts).step_by(workers).map(&live).collect();
    thread::scope(|scope| {
        let running: Vec<_> = (1..=workers as u64)
            .map(|first| scope.spawn(move || share(first)))
            .collect();
        let ended = running.into_iter().map(|worker| worker.join().unwrap());
        ended
            .collect::<Vec<Vec<T>>>()
            .into_iter()
            .flatten()
            .collect()
    })
}

/// One row of one of the document's tables.
fn row(table: &str, cells: &[String]) {
    println!("row of {table}: | {} |", cells.join(" | "));
}

fn percent(rate: f64) -> String {
    format!("{} %", (rate * 1e6).round() / 1e4)
}
