//! `cargo xtask prove`: the long forms of what `test` takes a share of. What came of them is written into `docs`.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{faults, paths, prerequisites, suites};

/// The long forms of the tests; what came of them is written into `docs`.
#[derive(Args)]
pub(crate) struct Prove {
    /// Only these: faults (every write of every release, cut in every way), cluster (what takes
    /// minutes on a real node)
    #[arg(default_values = ["faults", "cluster"])]
    only: Vec<String>,
}

/// Runs them; the first that fails ends the run.
pub(crate) fn run(prove: &Prove) -> Result<()> {
    prerequisites::ensure_node_packages()?;
    for name in &prove.only {
        let began = Instant::now();
        match name.as_str() {
            "faults" => {
                faults::prove(&paths::workspace().join("docs/faults.md")).context("faults")?
            }
            "cluster" => suites::prove_cluster().context("cluster")?,
            _ => bail!("there is nothing to prove by the name of `{name}`: take faults or cluster"),
        }
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    faults::down()
}
