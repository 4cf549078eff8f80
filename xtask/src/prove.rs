//! `cargo xtask prove`: the long forms of what `test` takes a share of. What came of them is written into `docs`.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{faults, model, paths, prerequisites, suites};

/// The long forms of the tests; what came of them is written into `docs`.
#[derive(Args)]
pub(crate) struct Prove {
    /// Only these: model (every world that the rollout machine can come to, in its scopes), faults
    /// (every write of every release, cut in every way), cluster (what takes minutes on a real
    /// node)
    #[arg(default_values = ["model", "faults", "cluster"])]
    only: Vec<String>,
}

/// Runs them; the first that fails ends the run.
pub(crate) fn run(prove: &Prove) -> Result<()> {
    if prove.only.iter().any(|name| name != "model") {
        prerequisites::ensure_node_packages()?;
    }
    for name in &prove.only {
        let began = Instant::now();
        match name.as_str() {
            "model" => model::prove(&paths::workspace().join("docs/model.md")).context("model")?,
            "faults" => {
                faults::prove(&paths::workspace().join("docs/faults.md")).context("faults")?
            }
            "cluster" => suites::prove_cluster().context("cluster")?,
            _ => bail!(
                "there is nothing to prove by the name of `{name}`: take model, faults or cluster"
            ),
        }
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    faults::down()
}
