//! The node that the tests run on.

use std::{
    io::Write,
    net::SocketAddr,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use futures::FutureExt;
use kube::Client;
use sluice_e2e::world;

/// The longest for anything to come about; on a quiet machine most things take a few seconds.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// NodePort of the demo's gateway, as in `examples/gitops`.
const GATEWAY_PORT: u16 = 30080;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests run on a node that has played the demo's story; \
             `cargo xtask test --only cluster` brings it up and sets it"
        )
    })
}

/// The way to the apiserver, as its administrator.
pub async fn client() -> Client {
    let kubeconfig = variable("SLUICE_KUBECONFIG");
    world::client(Path::new(&kubeconfig)).await.unwrap()
}

/// Where the demo's gateway takes requests.
pub fn gateway() -> SocketAddr {
    let address = variable("SLUICE_NODE_ADDRESS");
    format!("{address}:{GATEWAY_PORT}").parse().unwrap()
}

/// The working clone of the repository that Flux syncs.
pub fn clone() -> PathBuf {
    variable("SLUICE_CLONE").into()
}

/// The folder in which all state of the node is.
pub fn folder() -> PathBuf {
    let kubeconfig = PathBuf::from(variable("SLUICE_KUBECONFIG"));
    kubeconfig.parent().unwrap().to_owned()
}

/// The apiserver's audit log, a JSON object to a line.
pub fn audit_log() -> PathBuf {
    variable("SLUICE_AUDIT").into()
}

/// Whether what takes minutes is to run whole.
pub fn runs_long() -> bool {
    std::env::var_os("SLUICE_LONG").is_some()
}

/// Runs `cargo xtask cluster ...` on this node.
pub async fn xtask(arguments: &[&str]) {
    try_xtask(arguments).await.unwrap();
}

/// Runs kubectl as administrator: what it printed, or its complaint.
pub async fn kubectl(arguments: &[&str]) -> Result<String, String> {
    try_xtask(&[&["kubectl", "--"], arguments].concat()).await
}

/// Runs Helm as administrator: what it printed, or its complaint.
pub async fn helm(arguments: &[&str]) -> Result<String, String> {
    try_xtask(&[&["helm", "--"], arguments].concat()).await
}

async fn try_xtask(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(variable("SLUICE_XTASK"));
    command
        .arg("cluster")
        .arg(arguments[0])
        .args(["--name", &variable("SLUICE_CLUSTER")])
        .args(&arguments[1..])
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(format!(
            "{}{complaint}",
            String::from_utf8_lossy(&output.stdout)
        ));
    }
    Err(format!("cargo xtask cluster {arguments:?}: {complaint}"))
}

/// Ends the apiserver, and those that would look for it again after up to half a minute only, if
/// they were left alone.
pub async fn stop_apiserver() {
    for component in ["apiserver", "controller-manager", "scheduler"] {
        xtask(&["stop", component]).await;
    }
}

/// Starts all of them again, and waits until the apiserver answers.
pub async fn start_apiserver(client: &Client) {
    xtask(&["up"]).await;
    wait_until("the apiserver to answer", async || {
        Ok(client.apiserver_version().await.is_ok())
    })
    .await;
}

/// Waits until something holds.
pub async fn wait_until(what: &str, holds: impl AsyncFnMut() -> anyhow::Result<bool>) {
    let waited = world::wait_until(PATIENCE, what, holds).await;
    waited.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Does the second whatever becomes of the first.
pub async fn afterwards(body: impl Future<Output = ()>, cleanup: impl Future<Output = ()>) {
    let ended = AssertUnwindSafe(body).catch_unwind().await;
    cleanup.await;
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

/// A line for the log of every run, passed or failed: the test harness keeps `println!` back.
pub fn say(line: &str) {
    // Where nobody reads, nobody misses it.
    let _ = writeln!(std::io::stdout(), "  {line}");
}
