//! `cargo xtask prove`: the long forms of what `test` takes a share of. What came of them is written into `docs`.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{faults, model, paths, prerequisites, suites, verdict};

/// What needs no cluster.
const PURE: [&str; 2] = ["verdict", "model"];

/// The long forms of the tests; what came of them is written into `docs`.
#[derive(Args)]
pub(crate) struct Prove {
    /// Only these: verdict (its error rates and speeds, by simulation), model (every world that the
    /// rollout machine can come to, in its scopes), faults (every write of every release, cut in
    /// every way), cluster (what takes minutes on a real node)
    #[arg(default_values = ["verdict", "model", "faults", "cluster"])]
    only: Vec<String>,
}

/// Runs them; the first that fails ends the run.
pub(crate) fn run(prove: &Prove) -> Result<()> {
    if prove.only.iter().any(|name| !PURE.contains(&name.as_str())) {
        prerequisites::ensure_node_packages()?;
    }
    for name in &prove.only {
        let began = Instant::now();
        match name.as_str() {
            "verdict" => {
                verdict::prove(&paths::workspace().join("docs/verdict.md")).context("verdict")?
            }
            "model" => model::prove(&paths::workspace().join("docs/model.md")).context("model")?,
            "faults" => {
                faults::prove(&paths::workspace().join("docs/faults.md")).context("faults")?
            }
            "cluster" => suites::prove_cluster().context("cluster")?,
            _ => bail!(
                "there is nothing to prove by the name of `{name}`: take verdict, model, faults or cluster"
            ),
        }
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    faults::down()
}
