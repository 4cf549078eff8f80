//! `sluice-proxy`: sidecar, gateway, init, wait.

mod cli;
mod commands;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&cli.log))
        .json()
        .with_writer(std::io::stderr)
        .init();
    match cli.command {
        cli::Command::Sidecar(options) => commands::sidecar(options),
        cli::Command::Gateway(options) => commands::gateway(options),
        cli::Command::Init(options) => commands::init(&options),
        cli::Command::Wait(options) => commands::wait(&options),
    }
}
