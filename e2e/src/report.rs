//! The demo's report: one JSON document, and the same as a table.

use serde::{Deserialize, Serialize};

/// What a run of the demo saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// The cluster it ran on.
    pub cluster: Cluster,
    /// One entry a release, in order.
    pub releases: Vec<Release>,
}

/// The cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// Version of its apiserver.
    pub kubernetes: String,
    /// Seconds until v1 served.
    pub ready_seconds: f64,
}

/// One release.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Release {
    /// The commit that brought it.
    pub commit: String,
    /// Its revision, as the operator names it.
    pub revision: String,
    /// `Promoted` or `RolledBack`.
    pub outcome: String,
    /// Syncs of Flux after a rollback during which the revision got no weight.
    pub syncs_without_retry: u32,
    /// Whether the operator's leader was killed with SIGKILL in between.
    pub leader_killed: bool,
    /// From the push to the first weight above 0.
    pub commit_to_first_weight_seconds: f64,
    /// From the first weight to the promotion, or to weight 0 applied everywhere.
    pub first_weight_to_end_seconds: f64,
    /// From the first failed answer of the candidate to weight 0 on every proxy; none where no
    /// answer failed.
    pub first_failure_to_zero_seconds: Option<f64>,
    /// From the first failed answer to the last one that the verdict counts: what no rule could
    /// have done without. None where the verdict counts none.
    #[serde(skip)]
    pub sampling_seconds: Option<f64>,
    /// (seconds since the push, weight of the candidate).
    pub weights: Vec<(f64, i32)>,
    /// The ledger of the release.
    pub requests: Requests,
}

/// The ledger of a release: requests sent from its push to its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Requests {
    /// All.
    pub sent: u64,
    /// Answered well.
    pub ok: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Not answered.
    pub lost: u64,
    /// Answered by the candidate.
    pub candidate: u64,
    /// Answered by the candidate with an error.
    pub candidate_failed: u64,
}

impl Report {
    /// The weights of each release by time, for people.
    #[must_use]
    pub fn timeline(&self) -> String {
        let mut lines = Vec::new();
        for release in &self.releases {
            let killed = if release.leader_killed {
                ", leader killed"
            } else {
                ""
            };
            lines.push(format!(
                "{}: {}{killed}",
                short(&release.revision),
                release.outcome
            ));
            for (seconds, weight) in &release.weights {
                let bar = "#".repeat(usize::try_from(*weight).unwrap_or(0) / 5);
                lines.push(format!("  {seconds:>6.1} s  {weight:>3} %  {bar}"));
            }
        }
        lines.join("\n")
    }

    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<10} {:<12} {:<11} {:>12} {:>11} {:>12} {:>8} {:>7} {:>5} {:>17}",
            "commit",
            "revision",
            "outcome",
            "first weight",
            "to the end",
            "fail to zero",
            "sent",
            "failed",
            "lost",
            "candidate failed"
        )];
        for r in &self.releases {
            lines.push(format!(
                "{:<10} {:<12} {:<11} {:>10.2} s {:>9.1} s {:>12} {:>8} {:>7} {:>5} {:>17}",
                short(&r.commit),
                short(&r.revision),
                r.outcome,
                r.commit_to_first_weight_seconds,
                r.first_weight_to_end_seconds,
                r.first_failure_to_zero_seconds
                    .map_or_else(|| "-".to_owned(), |s| format!("{s:.2} s")),
                r.requests.sent,
                r.requests.failed,
                r.requests.lost,
                format!(
                    "{} of {}",
                    r.requests.candidate_failed, r.requests.candidate
                ),
            ));
        }
        lines.join("\n")
    }
}

impl Report {
    /// What the story must show whatever the machine's speed; each a sentence.
    #[must_use]
    pub fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let outcomes: Vec<&str> = self.releases.iter().map(|r| r.outcome.as_str()).collect();
        if outcomes != ["Promoted", "RolledBack", "Promoted"] {
            broken.push(format!("the releases ended {outcomes:?}"));
        }
        for release in &self.releases {
            let name = short(&release.revision);
            if release.requests.lost > 0 {
                broken.push(format!(
                    "{} requests were lost while {name} came",
                    release.requests.lost
                ));
            }
            let failed_elsewhere = release.requests.failed - release.requests.candidate_failed;
            if failed_elsewhere > 0 {
                broken.push(format!(
                    "{failed_elsewhere} requests failed that {name} did not answer"
                ));
            }
            if release.outcome == "Promoted" {
                broken.extend(broken_promotion(name, release));
            } else if release.syncs_without_retry < 3 {
                broken.push(format!(
                    "a sync of Flux made it try the rejected {name} again"
                ));
            }
        }
        broken
    }
}

fn broken_promotion(name: &str, release: &Release) -> Vec<String> {
    let mut broken = Vec::new();
    let weights: Vec<i32> = release.weights.iter().map(|(_, weight)| *weight).collect();
    let risen: Vec<i32> = weights
        .iter()
        .copied()
        .filter(|weight| *weight > 0)
        .collect();
    if risen != [10, 25, 50, 75, 100] {
        broken.push(format!("{name} was promoted by the weights {weights:?}"));
    }
    if release.requests.candidate_failed > 0 {
        broken.push(format!(
            "{} answers of the good {name} failed",
            release.requests.candidate_failed
        ));
    }
    broken
}

fn short(text: &str) -> &str {
    text.get(..10).unwrap_or(text)
}
