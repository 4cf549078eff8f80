//! `cargo xtask bench`: figures of repeated runs, printed and written as JSON.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::{
    cluster::{self, Cluster, Kind, With},
    demo::{self, Story},
    product, tools,
};

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// From the first failed answer of a bad release to weight 0 on every proxy, and whom it hurt
    Rollback {
        /// Bad releases of each kind, one after the other
        #[arg(long, default_value_t = 30)]
        runs: u32,
        /// Requests a second
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// Write the figures as JSON
        #[arg(long)]
        report: Option<PathBuf>,
        /// Name of the cluster
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// What very many rollouts and proxies cost: memory, calls, writes, cores
    Scale(Scale),
}

/// What very many rollouts and proxies cost.
#[derive(Args)]
pub(crate) struct Scale {
    /// MeshRollouts
    #[arg(long, default_value_t = 10_000)]
    rollouts: u32,
    /// Of them, those that release at one time
    #[arg(long, default_value_t = 100)]
    active: u32,
    /// Proxies that the leader hears of
    #[arg(long, default_value_t = 10_000)]
    proxies: u32,
    /// Write the figures as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Name of the cluster, which is removed afterwards
    #[arg(long, default_value = "bench-scale")]
    name: String,
}

/// Measures.
pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Rollback {
            runs,
            rate,
            report,
            name,
        } => {
            let cluster = demo::prepare(&name)?;
            let play = vec![
                "rollbacks".to_owned(),
                "--runs".to_owned(),
                runs.to_string(),
            ];
            demo::story(&cluster, &Story { rate, report, play })
        }
        Bench::Scale(scale) => {
            let measured = prepare(&scale.name).and_then(|cluster| measure(&cluster, &scale));
            // Whatever came of it: nothing on it is worth a look.
            cluster::down(&scale.name).and(measured)
        }
    }
}

/// An apiserver with controllers, and the programs that are measured.
fn prepare(name: &str) -> Result<Cluster> {
    tools::ensure(&[&tools::KUBERNETES, &tools::HELM])?;
    product::build()?;
    let with = With {
        controllers: true,
        ..With::default()
    };
    cluster::up(name, Kind::Api, with)
}

fn measure(cluster: &Cluster, scale: &Scale) -> Result<()> {
    let mut driver = Command::new(product::release("sluice-e2e"));
    driver
        .arg("scale")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .arg("--audit")
        .arg(cluster.file("logs/audit.log"))
        .args(["--rollouts", &scale.rollouts.to_string()])
        .args(["--active", &scale.active.to_string()])
        .args(["--proxies", &scale.proxies.to_string()])
        .env("SLUICE_OPERATOR", product::release("sluice-operator"))
        .env("SLUICE_HELM", tools::HELM.path())
        // What a process logs costs it too: as much as in a cluster.
        .env("RUST_LOG", "info");
    if let Some(report) = &scale.report {
        driver.arg("--report").arg(report);
    }
    let status = driver
        .stdin(Stdio::null())
        .status()
        .context("cannot start the measurement")?;
    if !status.success() {
        bail!("the measurement broke off; why is above");
    }
    Ok(())
}
