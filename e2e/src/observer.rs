//! Records every change of a rollout and its split, on the ledger's clock.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use sluice_crds::{MeshRollout, TrafficSplit};
use tokio::sync::Notify;

use crate::ledger::Ledger;
use crate::world::{Look, look};

/// What was seen, and when.
pub struct Observer {
    ledger: Arc<Ledger>,
    seen: Arc<Mutex<Vec<(Duration, Look)>>>,
    changed: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Observer {
    /// Watches the rollout and the split of this name from now on.
    #[must_use]
    pub fn start(client: Client, namespace: &str, name: &str, ledger: Arc<Ledger>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let changed = Arc::new(Notify::new());
        let task = tokio::spawn(observe(
            client,
            namespace.to_owned(),
            name.to_owned(),
            ledger.clone(),
            seen.clone(),
            changed.clone(),
        ));
        Self {
            ledger,
            seen,
            changed,
            task,
        }
    }

    /// Every change since then.
    #[must_use]
    pub fn since(&self, from: Duration) -> Vec<(Duration, Look)> {
        self.seen
            .lock()
            .iter()
            .filter(|(at, _)| *at >= from)
            .cloned()
            .collect()
    }

    /// The newest look.
    #[must_use]
    pub fn now(&self) -> Look {
        self.seen
            .lock()
            .last()
            .map(|(_, look)| look.clone())
            .unwrap_or_default()
    }

    /// The first look since `from` that matches, with its time; waits for it.
    ///
    /// # Errors
    /// When none comes in time: the error tells the last look.
    pub async fn first(
        &self,
        from: Duration,
        patience: Duration,
        what: &str,
        matches: impl Fn(&Look) -> bool,
    ) -> Result<(Duration, Look)> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let waiter = self.changed.notified();
            if let Some(found) = self.since(from).into_iter().find(|(_, look)| matches(look)) {
                return Ok(found);
            }
            // What was true before `from` and has not changed since counts as well.
            let last = self.now();
            if self.since(from).is_empty() && matches(&last) {
                return Ok((self.ledger.now(), last));
            }
            if tokio::time::timeout_at(deadline, waiter).await.is_err() {
                bail!(
                    "waited {} s for {what}; last seen: {:?}",
                    patience.as_secs(),
                    self.now()
                );
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn observe(
    client: Client,
    namespace: String,
    name: String,
    ledger: Arc<Ledger>,
    seen: Arc<Mutex<Vec<(Duration, Look)>>>,
    changed: Arc<Notify>,
) {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let rollouts: Api<MeshRollout> = Api::namespaced(client.clone(), &namespace);
    let splits: Api<TrafficSplit> = Api::namespaced(client.clone(), &namespace);
    let touched = futures::stream::select(
        watcher(rollouts, only.clone())
            .default_backoff()
            .touched_objects()
            .map_ok(|_| ())
            .boxed(),
        watcher(splits, only)
            .default_backoff()
            .touched_objects()
            .map_ok(|_| ())
            .boxed(),
    );
    let mut touched = touched.boxed();
    while touched.next().await.is_some() {
        let Ok(fresh) = look(&client, &namespace, &name).await else {
            continue;
        };
        let mut seen = seen.lock();
        if seen.last().is_some_and(|(_, last)| *last == fresh) {
            continue;
        }
        seen.push((ledger.now(), fresh));
        changed.notify_waiters();
    }
}
