//! Stores of pruned objects, each filled by a watch of its own.

use std::{fmt::Debug, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    api::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};
use tracing::warn;

use crate::backoff::Backoff;

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

/// Fills a store with the names and labels of all namespaces.
pub fn namespaces(
    client: &Client,
    wake: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
) -> Store<PartialObjectMeta<Namespace>> {
    let prune = |namespace: &mut PartialObjectMeta<Namespace>| {
        namespace.metadata.managed_fields = None;
        namespace.metadata.annotations = None;
    };
    let config = watcher::Config::default();
    follow(Api::all(client.clone()), config, prune, wake, tasks)
}
