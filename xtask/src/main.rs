//! The project's own commands: `cargo xtask --help`.

mod bench;
mod cluster;
mod command;
mod demo;
mod document;
mod faults;
mod image;
mod model;
mod paths;
mod prerequisites;
mod product;
mod prove;
mod simulation;
mod suites;
mod tools;
mod verdict;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start, stop and look at a Kubernetes cluster on this machine
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Bring a cluster up with Flux and this Sluice, without playing anything on it
    Install {
        /// Name of the cluster
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Real releases on a real cluster: promoted, taken back, and shown live
    Demo(demo::Demo),
    /// Measure, and print the figures
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Every test that must hold for a commit
    Test(suites::Test),
    /// The long forms of the tests; what came of them is written into `docs`
    Prove(prove::Prove),
    /// Build every program that clusters need: Kubernetes, Flux, Helm and what else is in `e2e/modules`
    Tools,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Cluster(command) => cluster::run(command),
        Command::Install { name } => demo::prepare(&name).map(|_| ()),
        Command::Demo(demo) => demo::run(&demo),
        Command::Bench(bench) => bench::run(bench),
        Command::Test(test) => suites::run(&test),
        Command::Prove(prove) => prove::run(&prove),
        Command::Tools => tools::ensure(&tools::ALL),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
