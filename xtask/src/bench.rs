//! `cargo xtask bench`: figures of repeated runs, printed and written as JSON.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::demo::{self, Story};

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// From the first failed answer of a bad release to weight 0 on every proxy, and whom it hurt
    Rollback {
        /// Bad releases, one after the other
        #[arg(long, default_value_t = 10)]
        runs: u32,
        /// Requests a second
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// Write the figures as JSON
        #[arg(long)]
        report: Option<PathBuf>,
        /// Name of the cluster
        #[arg(long, default_value = "demo")]
        name: String,
    },
}

/// Measures.
pub(crate) fn run(bench: Bench) -> Result<()> {
    let Bench::Rollback {
        runs,
        rate,
        report,
        name,
    } = bench;
    let cluster = demo::prepare(&name)?;
    let play = vec![
        "rollbacks".to_owned(),
        "--runs".to_owned(),
        runs.to_string(),
    ];
    demo::story(&cluster, &Story { rate, report, play })
}
