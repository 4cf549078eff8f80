//! Stores of pruned objects, each filled by a watch of its own.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        utils, watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};
use tracing::warn;

/// Waits of a watch that failed.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Doubling waits, from 0.2 to 5 s. Shorter than the 30 s that watches usually take: a rollback
/// decided right after an outage of the apiserver must not wait for them.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(BACKOFF_MAX);
        Some(wait)
    }
}

impl utils::Backoff for Backoff {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Fills a store with the objects of one kind. `prune` drops what nobody reads, before the
/// object is kept; `wake` is told after each change. The watch runs until `tasks` is dropped.
/// With `PartialObjectMeta<K>` only metadata is asked for.
pub fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    prune: fn(&mut K),
    wake: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let wake = wake.clone();
    tasks.spawn(async move {
        let events = watcher(api, config)
            .backoff(Backoff::default())
            .modify(prune);
        let mut events = reflector::reflector(writer, events)
            .inspect_err(|error| {
                let kind = K::kind(&());
                warn!(%error, %kind, "watch failed; it is tried again");
            })
            .boxed();
        while let Some(event) = events.next().await {
            let complete = matches!(
                event,
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone)
            );
            if complete {
                wake.notify_one();
            }
        }
    });
    store
}
