//! `sluice-operator`: one binary, three roles, each with an account of its own.

use std::{net::IpAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use sluice_operator::{
    ca,
    context::{Context, PodRef, listen},
    controller,
    health::Health,
    serving,
    telemetry::{self, Telemetry},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long endpoints and proxies get to notice that we are not ready, before we stop.
const UNREADY_BEFORE_STOP: Duration = Duration::from_secs(2);
/// The longest that a role may take to stop.
const DRAIN: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(
    name = "sluice-operator",
    version,
    about = "The control plane of Sluice"
)]
struct Cli {
    #[command(subcommand)]
    role: Role,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// Name of this pod.
    #[arg(
        long,
        env = "POD_NAME",
        global = true,
        default_value = "sluice-operator"
    )]
    pod_name: String,
    /// Namespace of this pod: the system namespace.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        global = true,
        default_value = "sluice-system"
    )]
    pod_namespace: String,
    /// Address of this pod.
    #[arg(long, env = "POD_IP", global = true, default_value = "127.0.0.1")]
    pod_ip: IpAddr,
    /// Port of /metrics, /healthz and /readyz.
    #[arg(long, global = true, default_value_t = 15014)]
    telemetry_port: u16,
}

#[derive(Subcommand)]
enum Role {
    /// Leads rollouts: the only role that writes workloads and traffic splits.
    Controller,
    /// Serves proxies (xDS, evidence) and the webhooks.
    Serving(serving::Options),
    /// Keeps the certificates.
    Ca(ca::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::init_logs();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(cli))
}

async fn run(cli: Cli) -> Result<()> {
    let client = kube::Client::try_default().await.context(
        "no way to the apiserver: in a pod mount the account's token, elsewhere set KUBECONFIG",
    )?;
    let context = Context {
        client,
        pod: PodRef {
            name: cli.common.pod_name,
            namespace: cli.common.pod_namespace,
            ip: cli.common.pod_ip,
        },
        health: Arc::new(Health::default()),
        telemetry: Telemetry::default(),
    };
    let listener = listen(cli.common.telemetry_port).await?;
    let (shutdown, stopped) = (CancellationToken::new(), CancellationToken::new());
    let telemetry_server = tokio::spawn(telemetry::serve(
        listener,
        context.health.clone(),
        context.telemetry.clone(),
        stopped.clone(),
    ));
    tokio::spawn(on_signal(context.health.clone(), shutdown.clone()));

    info!(
        pod = context.pod.name,
        version = env!("CARGO_PKG_VERSION"),
        "started"
    );
    let role = async {
        match cli.role {
            Role::Controller => controller::run(context, shutdown.clone()).await,
            Role::Serving(options) => serving::run(context, options, shutdown.clone()).await,
            Role::Ca(options) => ca::run(context, options, shutdown.clone()).await,
        }
    };
    let ended = tokio::select! {
        ended = role => ended,
        () = overdue(&shutdown) => {
            error!("still not drained after {DRAIN:?}; stopping all the same");
            Ok(())
        }
    };
    stopped.cancel();
    let _ = telemetry_server.await;
    info!("stopped");
    ended
}

/// Unready first, so that nobody new comes; then stop.
async fn on_signal(health: Arc<Health>, shutdown: CancellationToken) {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        error!("signals cannot be watched");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("asked to stop");
    health.stop();
    tokio::time::sleep(UNREADY_BEFORE_STOP).await;
    shutdown.cancel();
}

async fn overdue(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}
