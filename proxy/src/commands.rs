//! What each subcommand does.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use envoy_types::pb::envoy::config::core::v3::Node;
use sluice_proxy::{
    admin::{Admin, Audience},
    config::Lookup,
    control::{Control, Settings, Target},
    init::{Redirect, rules},
    shared::Shared,
    worker::{self, Purpose, bind},
};
use sluice_xds::metadata::EndpointFacts;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::cli;

/// Readiness does not wait longer for an answer of the control plane.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
/// The same with what was in force before already there: long enough to start with the newest
/// where there is a control plane.
const SHORT_CONTACT: Duration = Duration::from_secs(1);
/// Time that the last evidence gets to leave, and the last-good file to be written.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// Workers' stacks hold no buffers.
const STACK: usize = 512 * 1024;

pub fn sidecar(options: cli::Sidecar) -> anyhow::Result<()> {
    let listen = [
        (options.outbound, Purpose::Outbound),
        (options.inbound, Purpose::Inbound),
    ];
    run(Process {
        kind: "sidecar",
        listen: listen.to_vec(),
        routes: Vec::new(),
        drain_min: Duration::ZERO,
        answered_by: None,
        common: options.common,
    })
}

pub fn gateway(options: cli::Gateway) -> anyhow::Result<()> {
    let listen = options.routes.iter().map(|(port, listener)| {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
        (address, Purpose::Gateway(listener.as_str().into()))
    });
    run(Process {
        kind: "gateway",
        listen: listen.collect(),
        routes: options
            .routes
            .iter()
            .map(|(_, name)| name.clone())
            .collect(),
        drain_min: Duration::from_secs(options.drain_min),
        answered_by: options.answered_by_header,
        common: options.common,
    })
}

struct Process {
    kind: &'static str,
    listen: Vec<(SocketAddr, Purpose)>,
    /// Listeners that readiness waits for.
    routes: Vec<String>,
    drain_min: Duration,
    answered_by: Option<http::HeaderName>,
    common: cli::Common,
}

fn run(process: Process) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    runtime.block_on(run_async(process))
}

async fn run_async(process: Process) -> anyhow::Result<()> {
    let common = &process.common;
    let shared = Shared::new(own(common));
    if let Some(name) = &process.answered_by {
        // The process sets it once, here.
        let _ = shared.answered_by.set(name.clone());
    }
    let admin = Admin::new(shared.clone());
    let people = std::iter::once((common.admin, Audience::People));
    let probes = common
        .status
        .iter()
        .map(|status| (*status, Audience::Probes));
    for (address, audience) in people.chain(probes) {
        let listen = admin.clone().listen(address, audience).await;
        listen.with_context(|| format!("cannot listen on {address}"))?;
    }
    let (leaving, left) = watch::channel(false);
    let control = Control::new(shared.clone(), settings(&process), left);
    let control = control.context("the control plane is talked to already")?;
    let mut failed = start_workers(&process, &shared)?;
    let control = tokio::spawn(control.run());
    let leased = shared.clone();
    tokio::spawn(async move { leased.lease.watch().await });

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ready = async {
        known(&shared, &process.routes).await;
        admin.set_ready();
        tracing::info!(kind = process.kind, "ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = ready => {}
        Some(error) = failed.recv() => return Err(error).context("a worker cannot run"),
    }
    let maximum = Duration::from_secs(common.drain_max);
    let open = shared.drain.run(process.drain_min, maximum).await;
    leaving.send_replace(true);
    let _ = timeout(LAST_WORDS, control).await;
    tracing::info!(open, "left");
    Ok(())
}

/// Resolves when the control plane has answered, and what must be there is, or does not come. A
/// sidecar can pass connections through without it; a gateway could only refuse requests, which
/// another gateway may be able to answer. From the last-good file either can serve.
async fn known(shared: &Shared, routes: &[String]) {
    let snapshot = shared.snapshot.load();
    let can_serve = routes
        .iter()
        .all(|route| !matches!(snapshot.lookup(route), Lookup::Unknown));
    drop(snapshot);
    if can_serve {
        let patience = match shared.last_good() {
            Some(_) => SHORT_CONTACT,
            None => FIRST_CONTACT,
        };
        let _ = timeout(patience, shared.contacted()).await;
        return;
    }
    shared.contacted().await;
    let _ = timeout(FIRST_CONTACT, routed(shared, routes)).await;
}

/// Resolves when something is known of each of these listeners.
async fn routed(shared: &Shared, routes: &[String]) {
    let mut published = shared.published();
    for route in routes {
        while matches!(shared.snapshot.load().lookup(route), Lookup::Unknown) {
            if published.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What comes out of it is the end of a worker, which none should have.
fn start_workers(
    process: &Process,
    shared: &Arc<Shared>,
) -> anyhow::Result<mpsc::UnboundedReceiver<std::io::Error>> {
    let (failures, failed) = mpsc::unbounded_channel();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let workers = process.common.concurrency.unwrap_or(cpus.min(2)).max(1);
    for number in 0..workers {
        let mut sockets = Vec::new();
        for (address, purpose) in &process.listen {
            let socket = bind(*address).with_context(|| format!("cannot listen on {address}"))?;
            sockets.push((socket, purpose.clone()));
        }
        let (shared, failures) = (shared.clone(), failures.clone());
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                if let Err(error) = worker::run(shared, sockets) {
                    let _ = failures.send(error);
                }
            })?;
    }
    Ok(failed)
}

fn settings(process: &Process) -> Settings {
    let common = &process.common;
    Settings {
        target: Target {
            url: common.control_plane.clone(),
            token_file: common.token_file.clone(),
            root_file: common.root_file.clone(),
        },
        node: node(process),
        always: process.routes.clone(),
        last_good: last_good(&common.last_good),
    }
}

/// The file, where there is a place for it.
fn last_good(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    if !folder.is_dir() {
        tracing::warn!(
            "{} is not there: after a restart nothing is in force until the control plane answers; mount a volume, or say so with an empty --last-good",
            folder.display()
        );
        return None;
    }
    Some(path.to_owned())
}

fn own(common: &cli::Common) -> EndpointFacts {
    let named = |text: &String| {
        if text.is_empty() {
            &common.workload
        } else {
            text
        }
        .clone()
    };
    EndpointFacts {
        pod: common.pod_name.clone(),
        namespace: common.pod_namespace.clone(),
        workload: common.workload.clone(),
        app: common.app.clone(),
        version: common.version.clone(),
        canonical_name: named(&common.app),
        canonical_revision: if common.version.is_empty() {
            "latest".to_owned()
        } else {
            common.version.clone()
        },
        principal: String::new(),
    }
}

fn node(process: &Process) -> Node {
    let common = &process.common;
    Node {
        id: format!(
            "{}~{}.{}",
            process.kind, common.pod_name, common.pod_namespace
        ),
        user_agent_name: "sluice-proxy".to_owned(),
        ..Node::default()
    }
}

pub fn init(options: &cli::Init) -> anyhow::Result<()> {
    let rules = rules(&Redirect {
        proxy_uid: options.proxy_uid,
        outbound_port: 15001,
        inbound_port: 15006,
        exclude_inbound_ports: options.exclude_inbound_ports.clone(),
        exclude_outbound_ports: options.exclude_outbound_ports.clone(),
        exclude_outbound_ranges: options.exclude_outbound_ranges.clone(),
    });
    if options.dry_run {
        print!("{rules}");
        return Ok(());
    }
    let mut nft = std::process::Command::new(&options.nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", options.nft.display()))?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let status = nft.wait()?;
    if !status.success() {
        bail!(
            "nft refused the rules ({status}): the container needs NET_ADMIN and the kernel nf_tables with nat"
        );
    }
    Ok(())
}

pub fn wait(options: &cli::Wait) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(options.timeout);
    while Instant::now() < end {
        if is_ready(options.address).unwrap_or(false) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!(
        "the proxy at {} was not ready within {} s: look at the log of container istio-proxy",
        options.address,
        options.timeout
    );
}

fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}
