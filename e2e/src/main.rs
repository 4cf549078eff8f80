//! `sluice-e2e`: plays the demo's story on a cluster that is up. Started by `cargo xtask demo`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use sluice_e2e::story::{self, Stage};

#[derive(Parser)]
#[command(about = "Plays Sluice's demo on a cluster that is up")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays the story and writes the report.
    Story {
        /// Of the cluster.
        #[arg(long)]
        kubeconfig: PathBuf,
        /// Address of the gateway, IP:PORT.
        #[arg(long)]
        gateway: SocketAddr,
        /// The bare repository that Flux reads.
        #[arg(long)]
        bare: PathBuf,
        /// The layout to publish.
        #[arg(long)]
        layout: PathBuf,
        /// Where the working clone goes.
        #[arg(long)]
        clone: PathBuf,
        /// Requests a second.
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// Where to write the report as JSON.
        #[arg(long)]
        report: Option<PathBuf>,
        /// Fail where a promise is broken, not only where the story cannot go on.
        #[arg(long)]
        strict: bool,
    },
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let Command::Story {
        kubeconfig,
        gateway,
        bare,
        layout,
        clone,
        rate,
        report: target,
        strict,
    } = Arguments::parse().command;
    let stage = Stage {
        kubeconfig,
        gateway,
        bare,
        layout,
        clone,
        rate,
    };
    let report = story::play(&stage).await?;
    println!("\n{}", report.table());
    if let Some(path) = target {
        std::fs::write(&path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
        println!("report: {}", path.display());
    }
    let broken = report.broken_promises();
    for promise in &broken {
        eprintln!("broken: {promise}");
    }
    if strict && !broken.is_empty() {
        bail!("{} promises of the demo are broken", broken.len());
    }
    Ok(())
}
