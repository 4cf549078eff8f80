//! `sluice-e2e`: plays the demo's story on a cluster that is up, and measures. Started by `cargo
//! xtask demo` and `cargo xtask bench`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use sluice_e2e::bench::write_json;
use sluice_e2e::report::Report;
use sluice_e2e::rollbacks;
use sluice_e2e::scale;
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
        #[command(flatten)]
        place: Place,
        /// Where to write the report as JSON.
        #[arg(long)]
        report: Option<PathBuf>,
        /// Fail where a promise is broken, not only where the story cannot go on.
        #[arg(long)]
        strict: bool,
    },
    /// Brings bad releases and a few good ones, and writes how fast they came to their ends.
    Rollbacks {
        #[command(flatten)]
        place: Place,
        /// How many of each kind.
        #[arg(long, default_value_t = 30)]
        runs: u32,
        /// Where to write the figures as JSON.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Measures what very many rollouts and proxies cost.
    Scale {
        #[command(flatten)]
        options: scale::Options,
        /// Where to write the figures as JSON.
        #[arg(long)]
        report: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Place {
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
}

impl From<Place> for Stage {
    fn from(place: Place) -> Self {
        let Place {
            kubeconfig,
            gateway,
            bare,
            layout,
            clone,
            rate,
        } = place;
        Self {
            kubeconfig,
            gateway,
            bare,
            layout,
            clone,
            rate,
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Story {
            place,
            report,
            strict,
        } => {
            let told = story::play(&place.into()).await?;
            println!("\n{}\n\n{}", told.timeline(), told.table());
            write_json(report.as_deref(), &told)?;
            judge(&told, strict)
        }
        Command::Rollbacks {
            place,
            runs,
            report,
        } => {
            let (told, bench) = rollbacks::measure(&place.into(), runs).await?;
            println!("\n{}", told.table());
            println!("\n{}", bench.table());
            write_json(report.as_deref(), &bench)
        }
        Command::Scale { options, report } => {
            let bench = scale::run(&options).await?;
            println!("\n{}", bench.table());
            write_json(report.as_deref(), &bench)
        }
    }
}

fn judge(report: &Report, strict: bool) -> Result<()> {
    let broken = report.broken_promises();
    for promise in &broken {
        eprintln!("broken: {promise}");
    }
    if strict && !broken.is_empty() {
        bail!("{} promises of the demo are broken", broken.len());
    }
    Ok(())
}
