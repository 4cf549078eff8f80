//! The demo's story: real commits, real Flux, steady traffic, and what became of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::ledger::Ledger;
use crate::load::{self, Load};
use crate::observer::Observer;
use crate::repo::Repo;
use crate::report::{Cluster, Report};
use crate::teller::{RELEASE, Teller};
use crate::view::View;
use crate::world;

/// Where the story plays.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Of the cluster.
    pub kubeconfig: PathBuf,
    /// The gateway, reached at the node's address.
    pub gateway: SocketAddr,
    /// The bare repository that Flux reads.
    pub bare: PathBuf,
    /// Files to publish in it.
    pub layout: PathBuf,
    /// Where the working clone goes.
    pub clone: PathBuf,
    /// Requests a second.
    pub rate: u32,
}

const NAMESPACE: &str = "demo";
const ROLLOUT: &str = "frontend";
const HOST: &str = "demo.local";
pub(crate) const WORKLOAD_FILE: &str = "apps/demo/frontend.yaml";

/// Plays the story.
///
/// # Errors
/// When something does not come about in time; the error says what was seen last.
pub async fn play(stage: &Stage) -> Result<Report> {
    let (mut teller, cluster) = begin(stage, &[]).await?;
    let rate = stage.rate;
    teller.view.say(&format!("{rate} requests/s from now on"));
    let load = Load {
        connections: 48,
        two_tier_every: 5,
        ..load(stage.gateway, rate)
    };
    let running = load::start(load, teller.ledger.clone());
    let mut releases = Vec::new();

    teller.view.say("a commit brings v2, a good one");
    teller
        .repo
        .edit(WORKLOAD_FILE, "--ui-message=v1", "--ui-message=v2")?;
    releases.push(teller.release("v2", None).await?);

    teller
        .view
        .say("a commit brings v3: a third of its answers are errors");
    teller
        .repo
        .edit(WORKLOAD_FILE, "--ui-message=v2", &bad("v3"))?;
    let mut rejected = teller.release("v3", None).await?;
    rejected.syncs_without_retry = teller.syncs_without_retry(3).await?;
    releases.push(rejected);

    teller.view.say("git revert: back to v2 in git as well");
    teller.revert().await?;

    teller
        .view
        .say("a commit brings v4, the fix; the leader is killed at the 50 % step");
    teller
        .repo
        .edit(WORKLOAD_FILE, "--ui-message=v2", "--ui-message=v4")?;
    releases.push(teller.release("v4", Some(50)).await?);

    running.stop().await;
    Ok(Report { cluster, releases })
}

/// The arguments of a version of which a third of the answers are errors.
fn bad(name: &str) -> String {
    format!("--ui-message={name}\n            - --random-error")
}

/// Requests for the page that the client-facing tier answers itself, on one connection.
pub(crate) fn load(gateway: SocketAddr, rate: u32) -> Load {
    Load {
        gateway,
        host: HOST.to_owned(),
        rate,
        connections: 1,
        path: "/".to_owned(),
        others: Vec::new(),
        two_tier_every: 0,
    }
}

/// Publishes v1, with these edits (file, from, to), and waits until it serves.
pub(crate) async fn begin(
    stage: &Stage,
    edits: &[(&str, &str, &str)],
) -> Result<(Teller, Cluster)> {
    let client = world::client(&stage.kubeconfig).await?;
    let ledger = Arc::new(Ledger::default());
    let observer = Observer::start(client.clone(), NAMESPACE, ROLLOUT, ledger.clone());
    let mut view = View::new(ledger.clone());
    view.say("publishing the repository; Flux brings v1");
    let repo = Repo::publish(&stage.clone, &stage.layout, &stage.bare, edits)?;
    observer
        .first(Duration::ZERO, RELEASE, "v1 to be Ready", |look| {
            look.phase == "Idle" && look.ready == "True" && !look.stable.is_empty()
        })
        .await?;
    serves(stage.gateway).await?;
    let ready_seconds = ledger.now().as_secs_f64();
    view.say(&format!("v1 serves after {ready_seconds:.1} s"));
    let kubernetes = client.apiserver_version().await?.git_version;
    let teller = Teller {
        client,
        ledger,
        observer,
        repo,
        view,
    };
    let cluster = Cluster {
        kubernetes,
        ready_seconds,
    };
    Ok((teller, cluster))
}

/// Waits until the gateway answers.
async fn serves(gateway: SocketAddr) -> Result<()> {
    let probe = Arc::new(Ledger::default());
    world::wait_until(
        Duration::from_secs(60),
        "the gateway to answer",
        async || {
            let load = Load {
                two_tier_every: 2,
                ..load(gateway, 50)
            };
            let from = probe.now();
            let running = load::start(load, probe.clone());
            tokio::time::sleep(Duration::from_millis(200)).await;
            running.stop().await;
            let seen = probe.totals(from, Duration::MAX);
            Ok(seen.ok > 4 && seen.ok == seen.sent)
        },
    )
    .await
}
