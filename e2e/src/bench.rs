//! Figures of repeated runs, in the form that all benchmarks of the project share.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::Report;

/// Rows of figures, ours beside a peer's where there is one.
#[derive(Debug, Serialize)]
pub struct Bench {
    /// Name of the benchmark.
    pub bench: &'static str,
    /// What it ran on.
    pub machine: String,
    /// Name of a figure to the figure.
    pub rows: BTreeMap<&'static str, Row>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Ours.
    pub ours: f64,
    /// The peer's in the same run.
    pub peer: Option<f64>,
    /// Ours through the peer's.
    pub ratio: Option<f64>,
    /// Of `ours` and `peer`.
    pub unit: &'static str,
    /// Runs that it is made of.
    pub runs: usize,
}

impl Bench {
    /// How fast bad releases were taken back, and whom they hurt.
    #[must_use]
    pub fn of_rollbacks(report: &Report) -> Self {
        let releases = &report.releases;
        let each = |value: &dyn Fn(&crate::report::Release) -> Option<f64>| {
            let mut values: Vec<f64> = releases.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let to_zero = each(&|r| r.first_failure_to_zero_seconds);
        let failed = each(&|r| Some(r.requests.candidate_failed as f64));
        let lost = each(&|r| Some(r.requests.lost as f64));
        let first_weight = each(&|r| Some(r.commit_to_first_weight_seconds));
        let rows = [
            (
                "first_failure_to_zero_seconds_median",
                median(&to_zero),
                "s",
                to_zero.len(),
            ),
            (
                "first_failure_to_zero_seconds_max",
                most(&to_zero),
                "s",
                to_zero.len(),
            ),
            (
                "candidate_failed_median",
                median(&failed),
                "requests",
                failed.len(),
            ),
            (
                "candidate_failed_max",
                most(&failed),
                "requests",
                failed.len(),
            ),
            ("lost_total", lost.iter().sum(), "requests", lost.len()),
            (
                "commit_to_first_weight_seconds_median",
                median(&first_weight),
                "s",
                first_weight.len(),
            ),
        ];
        Self {
            bench: "rollback",
            machine: format!("{} cpus, Kubernetes {}", cpus(), report.cluster.kubernetes),
            rows: rows
                .into_iter()
                .map(|(name, ours, unit, runs)| {
                    (
                        name,
                        Row {
                            ours,
                            peer: None,
                            ratio: None,
                            unit,
                            runs,
                        },
                    )
                })
                .collect(),
        }
    }

    /// The figures as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<40} {:>10} {:<10} {:>5}",
            "figure", "ours", "unit", "runs"
        )];
        for (name, row) in &self.rows {
            lines.push(format!(
                "{name:<40} {:>10.2} {:<10} {:>5}",
                row.ours, row.unit, row.runs
            ));
        }
        lines.join("\n")
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The middle of sorted values; 0 of none.
fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn most(sorted: &[f64]) -> f64 {
    sorted.last().copied().unwrap_or(0.0)
}
