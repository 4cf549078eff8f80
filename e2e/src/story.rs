//! The demo's story: real commits, real Flux, steady traffic, and what became of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;

use crate::ledger::{Entry, Ledger, Outcome};
use crate::load::{self, Load};
use crate::observer::Observer;
use crate::repo::Repo;
use crate::report::{Cluster, Release, Report, Requests};
use crate::view::View;
use crate::world::{self, Look};

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
/// Name of the GitRepository and the Kustomization.
const FLUX: &str = "demo";
const WORKLOAD_FILE: &str = "apps/demo/frontend.yaml";
/// Longest wait for the end of one release.
const RELEASE: Duration = Duration::from_secs(300);

/// Plays the story.
///
/// # Errors
/// When something does not come about in time; the error says what was seen last.
pub async fn play(stage: &Stage) -> Result<Report> {
    let client = world::client(&stage.kubeconfig).await?;
    let ledger = Arc::new(Ledger::default());
    let observer = Observer::start(client.clone(), NAMESPACE, ROLLOUT, ledger.clone());
    let mut view = View::new(ledger.clone());
    view.say("publishing the repository; Flux brings v1");
    let repo = Repo::publish(&stage.clone, &stage.layout, &stage.bare)?;
    observer
        .first(Duration::ZERO, RELEASE, "v1 to be Ready", |look| {
            look.phase == "Idle" && look.ready == "True" && !look.stable.is_empty()
        })
        .await?;
    serves(stage.gateway).await?;
    let ready_seconds = ledger.now().as_secs_f64();
    view.say(&format!(
        "v1 serves after {ready_seconds:.1} s; {} requests/s from now on",
        stage.rate
    ));
    let running = load::start(
        Load {
            gateway: stage.gateway,
            host: "demo.local".to_owned(),
            rate: stage.rate,
            connections: 48,
            two_tier_every: 5,
        },
        ledger.clone(),
    );
    let mut teller = Teller {
        client: client.clone(),
        ledger,
        observer,
        repo,
        view,
    };
    let mut releases = Vec::new();

    teller.view.say("a commit brings v2, a good one");
    teller
        .repo
        .edit(WORKLOAD_FILE, "--ui-message=v1", "--ui-message=v2")?;
    releases.push(teller.release("v2", None).await?);

    teller
        .view
        .say("a commit brings v3: a third of its answers are errors");
    let bad = "--ui-message=v3\n            - --random-error";
    teller.repo.edit(WORKLOAD_FILE, "--ui-message=v2", bad)?;
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
    let version = client.apiserver_version().await?;
    Ok(Report {
        cluster: Cluster {
            kubernetes: version.git_version,
            ready_seconds,
        },
        releases,
    })
}

/// Waits until the gateway answers.
async fn serves(gateway: SocketAddr) -> Result<()> {
    let probe = Arc::new(Ledger::default());
    world::wait_until(
        Duration::from_secs(60),
        "the gateway to answer",
        async || {
            let load = Load {
                gateway,
                host: "demo.local".to_owned(),
                rate: 50,
                connections: 1,
                two_tier_every: 2,
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

struct Teller {
    client: Client,
    ledger: Arc<Ledger>,
    observer: Observer,
    repo: Repo,
    view: View,
}

impl Teller {
    /// Pushes what was edited, and follows the release to its end.
    async fn release(&mut self, name: &str, kill_at: Option<i32>) -> Result<Release> {
        let before = self.observer.now();
        let began = self.ledger.now();
        let commit = self.repo.push(name)?;
        let (first, look) = self
            .watch(began, &format!("{name} to get its first weight"), |look| {
                look.weight > 0
            })
            .await?;
        let revision = look.candidate.clone();
        if let Some(weight) = kill_at {
            self.watch(first, &format!("{name} at {weight} %"), |look| {
                look.weight == weight
            })
            .await?;
            let leader = world::leader(&self.client).await?;
            world::kill_operator(&leader)?;
            self.view
                .say(&format!("killed {leader}, the leader, with SIGKILL"));
        }
        let (end, last) = self
            .watch(first, &format!("{name} to end"), |look| {
                ended(look, &before, &revision)
            })
            .await?;
        let promoted = last.phase == "Idle";
        let outcome = if promoted { "Promoted" } else { "RolledBack" };
        self.view
            .say(&format!("{name} ({revision}): {outcome}. {}", last.verdict));
        let mut release = self.account(began, first, end, &revision).await;
        release.commit = commit;
        release.outcome = outcome.to_owned();
        release.leader_killed = kill_at.is_some();
        Ok(release)
    }

    async fn watch(
        &mut self,
        from: Duration,
        what: &str,
        matches: impl Fn(&Look) -> bool,
    ) -> Result<(Duration, Look)> {
        let waiting = self.observer.first(from, RELEASE, what, matches);
        self.view.follow(&self.observer, waiting).await
    }

    /// Everything that the report says of one release.
    async fn account(
        &self,
        began: Duration,
        first: Duration,
        end: Duration,
        revision: &str,
    ) -> Release {
        // Requests of the span may still be on their way; each ends within the load's patience.
        let settle = self.ledger.now();
        while self.ledger.entries(began, settle, |_| true).len() < self.ledger.opened(began, settle)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let looks = self.observer.since(began);
        let candidate = self
            .ledger
            .entries(began, settle, |e| answered_by(e, revision));
        let failed: Vec<&Entry> = candidate
            .iter()
            .filter(|e| matches!(e.outcome, Outcome::Failed { .. }))
            .collect();
        let totals = self.ledger.totals(began, settle);
        Release {
            revision: revision.to_owned(),
            commit_to_first_weight_seconds: (first - began).as_secs_f64(),
            first_weight_to_end_seconds: (end - first).as_secs_f64(),
            first_failure_to_zero_seconds: failure_to_zero(&looks, &candidate, &failed),
            weights: weights(&looks, began),
            requests: Requests {
                sent: totals.sent,
                ok: totals.ok,
                failed: totals.failed,
                lost: totals.lost,
                candidate: candidate.len() as u64,
                candidate_failed: failed.len() as u64,
            },
            ..Release::default()
        }
    }

    /// Syncs Flux so many times; returns how many passed without weight for the revision.
    async fn syncs_without_retry(&mut self, wanted: u32) -> Result<u32> {
        let from = self.ledger.now();
        for sync in 1..=wanted {
            world::sync(&self.client, FLUX).await?;
            let tried = self
                .observer
                .since(from)
                .iter()
                .any(|(_, look)| look.weight > 0);
            if tried {
                self.view.say(&format!(
                    "sync {sync} of Flux made it try the revision again"
                ));
                return Ok(sync - 1);
            }
        }
        self.view.say(&format!(
            "{wanted} syncs of Flux later: still rejected, v2 serves"
        ));
        Ok(wanted)
    }

    async fn revert(&mut self) -> Result<()> {
        let from = self.ledger.now();
        self.repo.revert()?;
        world::sync(&self.client, FLUX).await?;
        self.watch(
            from,
            "the rollout to be Idle and Ready after the revert",
            |look| look.phase == "Idle" && look.ready == "True" && look.stalled.is_none(),
        )
        .await
        .context("after git revert")?;
        self.view.say("reverted: Idle and Ready");
        Ok(())
    }
}

fn ended(look: &Look, before: &Look, revision: &str) -> bool {
    let promoted = look.phase == "Idle" && look.stable == revision && look.stable != before.stable;
    let rolled_back = look.phase == "Rejected" && look.weight == 0 && look.applied;
    promoted || rolled_back
}

/// Candidate pods carry the first ten digits of their revision in their name.
fn answered_by(entry: &Entry, revision: &str) -> bool {
    let mark = format!("-sluice-{}", revision.get(..10).unwrap_or(revision));
    entry.pod.as_ref().is_some_and(|pod| pod.contains(&mark))
}

fn weights(looks: &[(Duration, Look)], began: Duration) -> Vec<(f64, i32)> {
    let mut weights: Vec<(f64, i32)> = Vec::new();
    for (at, look) in looks {
        if weights
            .last()
            .is_some_and(|(_, weight)| *weight == look.weight)
        {
            continue;
        }
        weights.push(((*at - began).as_secs_f64(), look.weight));
    }
    weights
}

/// From the first failed answer to the later of: weight 0 reported applied by every proxy, and
/// the last request that the candidate answered.
fn failure_to_zero(
    looks: &[(Duration, Look)],
    candidate: &[Entry],
    failed: &[&Entry],
) -> Option<f64> {
    let first = failed.iter().map(|e| e.ended).min()?;
    let applied = looks
        .iter()
        .find(|(at, look)| *at > first && look.weight == 0 && look.applied)?
        .0;
    let last = candidate.iter().map(|e| e.sent).max().unwrap_or(applied);
    Some((applied.max(last) - first).as_secs_f64())
}
