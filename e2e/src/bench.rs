//! Figures of repeated runs, in the form that all benchmarks of the project share.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

/// Rows of figures, ours beside a peer's where there is one.
#[derive(Debug, Serialize)]
pub struct Bench {
    /// Name of the benchmark.
    pub bench: &'static str,
    /// What it ran on.
    pub machine: String,
    /// Name of a figure to the figure.
    pub rows: BTreeMap<String, Row>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Ours.
    pub ours: f64,
    /// The peer's in the same run; else the goal, or the limit that physics sets.
    pub peer: Option<f64>,
    /// Ours through the peer's; none where that is 0.
    pub ratio: Option<f64>,
    /// Of `ours` and `peer`.
    pub unit: &'static str,
    /// Runs that it is made of.
    pub runs: usize,
    /// What the figure is made of, where one number does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Row {
    /// Ours alone, made of so many runs.
    #[must_use]
    pub fn of(ours: f64, unit: &'static str, runs: usize) -> Self {
        Self {
            ours,
            peer: None,
            ratio: None,
            unit,
            runs,
            detail: None,
        }
    }

    /// Beside a peer, a goal or a limit.
    #[must_use]
    pub fn against(self, peer: f64) -> Self {
        Self {
            peer: Some(peer),
            ratio: (peer != 0.0).then(|| self.ours / peer),
            ..self
        }
    }

    /// With what it is made of.
    #[must_use]
    pub fn with(self, detail: Value) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }
}

impl Bench {
    /// No figures yet; `kubernetes` is the version of the apiserver.
    #[must_use]
    pub fn new(bench: &'static str, kubernetes: &str) -> Self {
        Self {
            bench,
            machine: format!("{} cpus, {} GB, Kubernetes {kubernetes}", cpus(), memory()),
            rows: BTreeMap::new(),
        }
    }

    /// Takes a figure in.
    pub fn add(&mut self, name: impl Into<String>, row: Row) {
        self.rows.insert(name.into(), row);
    }

    /// The figures as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<42} {:>10} {:>10} {:>7} {:<16} {:>5}",
            "figure", "ours", "peer/goal", "ratio", "unit", "runs"
        )];
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        for (name, row) in &self.rows {
            lines.push(format!(
                "{name:<42} {:>10.2} {:>10} {:>7} {:<16} {:>5}",
                row.ours,
                number(row.peer),
                number(row.ratio),
                row.unit,
                row.runs
            ));
        }
        lines.join("\n")
    }
}

/// Writes a report as JSON, if somebody wants it.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(target: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = target else { return Ok(()) };
    std::fs::write(path, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("writing {}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Of the machine, in GB; 0 where it is not told.
fn memory() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = told.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    kib.map_or(0, |kib: u64| (kib * 1024).div_ceil(1_000_000_000))
}

/// The values from the least to the most.
#[must_use]
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values; 0 of none.
#[must_use]
pub fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The last of sorted values; 0 of none.
#[must_use]
pub fn most(sorted: &[f64]) -> f64 {
    sorted.last().copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_it_stands_to_its_peer_and_a_peer_of_none_has_no_ratio() {
        let row = Row::of(50.0, "MB", 1).against(100.0);
        assert_eq!(row.ratio, Some(0.5));
        assert_eq!(Row::of(3.0, "calls", 1).against(0.0).ratio, None);
    }

    #[test]
    fn the_report_has_the_shape_that_all_benchmarks_share() {
        let mut bench = Bench::new("scale", "v1");
        bench.add("some.figure", Row::of(1.0, "s", 2).against(4.0));
        let written = serde_json::to_value(&bench).unwrap_or_default();
        let row =
            serde_json::json!({"ours": 1.0, "peer": 4.0, "ratio": 0.25, "unit": "s", "runs": 2});
        assert_eq!(written["rows"]["some.figure"], row);
        assert_eq!(written["bench"], "scale");
        assert!(written["machine"].is_string());
    }
}
