//! What every MeshRollout of the cluster is at, from a watch.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use sluice_crds::MeshRollout;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Without progress for so long, something is broken: a release of five steps tells of none for
/// almost three minutes.
const PATIENCE: Duration = Duration::from_secs(420);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(10);

/// What a MeshRollout is at.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// `status.phase`.
    pub phase: String,
    /// Condition Ready.
    pub is_ready: bool,
    /// How its last rollout ended; empty before the first.
    pub outcome: String,
}

/// All of them, by `NAMESPACE/NAME`.
#[derive(Clone, Default)]
pub struct Statuses(Arc<Mutex<BTreeMap<String, Standing>>>);

impl Statuses {
    /// Follows them until `tasks` is dropped.
    pub fn follow(client: &Client, tasks: &mut JoinSet<()>) -> Self {
        let statuses = Self::default();
        let (client, kept) = (client.clone(), statuses.clone());
        tasks.spawn(async move {
            let events = watcher(Api::<MeshRollout>::all(client), watcher::Config::default());
            let mut rollouts = events
                .default_backoff()
                .applied_objects()
                .inspect_err(|error| eprintln!("statuses: {error}"))
                .filter_map(async |rollout| rollout.ok())
                .boxed();
            while let Some(rollout) = rollouts.next().await {
                let key = format!(
                    "{}/{}",
                    rollout.namespace().unwrap_or_default(),
                    rollout.name_any()
                );
                kept.0.lock().insert(key, standing(&rollout));
            }
        });
        statuses
    }

    fn count(&self, is_such: impl Fn(&str, &Standing) -> bool) -> usize {
        let all = self.0.lock();
        all.iter()
            .filter(|(key, standing)| is_such(key, standing))
            .count()
    }

    /// Waits until so many are such, and tells how far it is.
    ///
    /// # Errors
    /// There is no progress any more.
    pub async fn until(
        &self,
        what: &str,
        wanted: usize,
        is_such: impl Fn(&str, &Standing) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        let (mut most, mut grown, mut told) = (0, began, began);
        loop {
            let now = self.count(&is_such);
            if now >= wanted {
                println!(
                    "  {now} {what} after {:.0} s",
                    began.elapsed().as_secs_f64()
                );
                return Ok(());
            }
            if now > most {
                (most, grown) = (now, Instant::now());
            }
            if grown.elapsed() > PATIENCE {
                bail!(
                    "only {now} of {wanted} are {what}, and no more for {PATIENCE:?}: see the logs below target/faults"
                );
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                println!(
                    "  {now} of {wanted} {what} ({:.0} s)",
                    began.elapsed().as_secs_f64()
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn standing(rollout: &MeshRollout) -> Standing {
    let status = rollout.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.iter();
    Standing {
        is_ready: conditions.any(|c| c.type_ == "Ready" && c.status == "True"),
        phase: status.phase.unwrap_or_default(),
        outcome: status
            .history
            .into_iter()
            .next()
            .map(|ended| ended.outcome)
            .unwrap_or_default(),
    }
}
