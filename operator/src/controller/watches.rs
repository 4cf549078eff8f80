//! What the controller knows of the cluster: one watch a kind, kept warm by followers too, so
//! that a new leader decides at once.

use std::sync::Arc;

use futures::{StreamExt, TryStream, TryStreamExt, future};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, Service},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt, watcher},
};
use sluice_crds::{MeshRollout, TrafficSplit};
use tokio::{sync::Notify, task::JoinSet};
use tracing::warn;

use super::{
    cache::Cache,
    facts::{
        DeploymentFacts, Kept, Key, PodFacts, ReplicaSetFacts, RolloutFacts, ServiceFacts,
        SplitFacts,
    },
    mapping,
    queue::Queue,
    seen::{Kind, Seen},
};
use crate::backoff::Backoff;

/// The caches of all kinds.
#[derive(Default)]
pub struct World {
    /// MeshRollouts.
    pub rollouts: Cache<RolloutFacts>,
    /// TrafficSplits.
    pub splits: Cache<SplitFacts>,
    /// Deployments.
    pub deployments: Cache<DeploymentFacts>,
    /// ReplicaSets.
    pub replica_sets: Cache<ReplicaSetFacts>,
    /// Pods.
    pub pods: Cache<PodFacts>,
    /// Services.
    pub services: Cache<ServiceFacts>,
}

/// All objects of one namespace at one moment.
#[derive(Default)]
pub struct Namespace {
    /// MeshRollouts.
    pub rollouts: Vec<Arc<RolloutFacts>>,
    /// Deployments.
    pub deployments: Vec<Arc<DeploymentFacts>>,
    /// ReplicaSets.
    pub replica_sets: Vec<Arc<ReplicaSetFacts>>,
    /// Pods.
    pub pods: Vec<Arc<PodFacts>>,
    /// Services.
    pub services: Vec<Arc<ServiceFacts>>,
}

impl World {
    /// The objects of a namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Namespace {
        Namespace {
            rollouts: self.rollouts.within(namespace),
            deployments: self.deployments.within(namespace),
            replica_sets: self.replica_sets.within(namespace),
            pods: self.pods.within(namespace),
            services: self.services.within(namespace),
        }
    }

    /// The version of an object that the cache holds, with its uid.
    #[must_use]
    pub fn version(&self, kind: Kind, namespace: &str, name: &str) -> Option<(String, String)> {
        fn of<V: Kept>(cache: &Cache<V>, namespace: &str, name: &str) -> Option<(String, String)> {
            let held = cache.get(namespace, name)?;
            Some((held.meta().uid.clone(), held.meta().version.clone()))
        }
        match kind {
            Kind::Rollout => of(&self.rollouts, namespace, name),
            Kind::Split => of(&self.splits, namespace, name),
            Kind::Deployment => of(&self.deployments, namespace, name),
            Kind::ReplicaSet => of(&self.replica_sets, namespace, name),
            Kind::Pod => of(&self.pods, namespace, name),
        }
    }

    /// Returns when every cache has its first whole list.
    pub async fn synced(&self) {
        tokio::join!(
            self.rollouts.synced(),
            self.splits.synced(),
            self.deployments.synced(),
            self.replica_sets.synced(),
            self.pods.synced(),
            self.services.synced(),
        );
    }
}

/// What the watches feed.
#[derive(Clone)]
pub struct Watches {
    /// The caches.
    pub world: Arc<World>,
    /// Which writes have been shown.
    pub seen: Arc<Seen>,
    /// Whom to look at.
    pub queue: Queue,
    /// Told when MeshRollouts come or go: the hold webhook's list may have changed.
    pub rollouts_changed: Arc<Notify>,
    /// Our own namespace, in which the serving replicas run.
    pub own_namespace: String,
}

impl Watches {
    /// Starts one watch a kind; they run until `tasks` is dropped.
    pub fn start(self, client: &Client, tasks: &mut JoinSet<()>) {
        let (deployments, replica_sets) = (
            ApiResource::erase::<Deployment>(&()),
            ApiResource::erase::<ReplicaSet>(&()),
        );
        tasks.spawn(self.clone().rollouts(Api::all(client.clone())));
        tasks.spawn(self.clone().splits(Api::all(client.clone())));
        tasks.spawn(
            self.clone()
                .deployments(Api::all_with(client.clone(), &deployments)),
        );
        tasks.spawn(
            self.clone()
                .replica_sets(Api::all_with(client.clone(), &replica_sets)),
        );
        tasks.spawn(self.clone().pods(Api::all(client.clone())));
        tasks.spawn(self.services(Api::all(client.clone())));
    }

    async fn rollouts(self, api: Api<MeshRollout>) {
        let wake = |rollout: &RolloutFacts| {
            self.rollouts_changed.notify_one();
            mapping::of_rollout(&self.world, &rollout.meta)
        };
        let events = watcher(api, watcher::Config::default());
        self.follow(
            events,
            &self.world.rollouts,
            RolloutFacts::of,
            wake,
            "MeshRollouts",
        )
        .await;
    }

    async fn splits(self, api: Api<TrafficSplit>) {
        let events = watcher(api, watcher::Config::default());
        let wake = |split: &SplitFacts| vec![split.meta.key()];
        self.follow(
            events,
            &self.world.splits,
            SplitFacts::of,
            wake,
            "TrafficSplits",
        )
        .await;
    }

    async fn deployments(self, api: Api<DynamicObject>) {
        let events = watcher(api, watcher::Config::default());
        let keep = |object| DeploymentFacts::of(&object);
        let wake = |deployment: &DeploymentFacts| {
            mapping::of_workload(
                &self.world,
                &deployment.meta.namespace,
                &deployment.meta.name,
            )
        };
        self.follow(events, &self.world.deployments, keep, wake, "Deployments")
            .await;
    }

    async fn replica_sets(self, api: Api<DynamicObject>) {
        let events = watcher(api, watcher::Config::default());
        let keep = |object| ReplicaSetFacts::of(&object);
        let wake = |set: &ReplicaSetFacts| mapping::of_replica_set(&self.world, &set.meta);
        self.follow(events, &self.world.replica_sets, keep, wake, "ReplicaSets")
            .await;
    }

    async fn pods(self, api: Api<Pod>) {
        let events = watcher(api, watcher::Config::default());
        let keep = |object| PodFacts::of(&object);
        let wake = |pod: &PodFacts| mapping::of_pod(&self.world, &self.own_namespace, pod);
        self.follow(events, &self.world.pods, keep, wake, "Pods")
            .await;
    }

    async fn services(self, api: Api<Service>) {
        let events = watcher(api, watcher::Config::default());
        let keep = |object| ServiceFacts::of(&object);
        let wake =
            |service: &ServiceFacts| mapping::of_namespace(&self.world, &service.meta.namespace);
        self.follow(events, &self.world.services, keep, wake, "Services")
            .await;
    }

    /// Keeps a cache as the watch tells it, and wakes whom a change concerns. The cache is
    /// always written before the version is told to [`Seen`].
    async fn follow<K: Send, V: Kept>(
        &self,
        events: impl TryStream<Ok = watcher::Event<K>, Error = watcher::Error> + Send,
        cache: &Cache<V>,
        keep: impl Fn(K) -> V,
        wake: impl Fn(&V) -> Vec<Key>,
        what: &str,
    ) {
        let mut patient = true;
        let mut events = events
            .into_stream()
            .filter(|event| future::ready(!relists_at_once(event, &mut patient)))
            .backoff(Backoff::default())
            .inspect_err(|error| warn!(%error, what, "watch failed; it is tried again"))
            .filter_map(async |event| event.ok())
            .boxed();
        let mut list = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                watcher::Event::Init => list = Vec::new(),
                watcher::Event::InitApply(object) => list.push(keep(object)),
                watcher::Event::InitDone => {
                    let versions: Vec<_> = list
                        .iter()
                        .map(|object: &V| {
                            (object.meta().uid.clone(), object.meta().version.clone())
                        })
                        .collect();
                    let mut keys = self.world.rollouts.keys();
                    cache.replace(std::mem::take(&mut list));
                    for (uid, version) in versions {
                        self.seen.shown(&uid, Some(&version));
                    }
                    keys.extend(self.world.rollouts.keys());
                    keys.into_iter().for_each(|key| self.queue.wake(key));
                    self.rollouts_changed.notify_one();
                }
                watcher::Event::Apply(object) => {
                    let (object, before) = cache.put(keep(object));
                    self.seen
                        .shown(&object.meta().uid, Some(&object.meta().version));
                    wake(&object)
                        .into_iter()
                        .for_each(|key| self.queue.wake(key));
                    if let Some(before) = before {
                        wake(&before)
                            .into_iter()
                            .for_each(|key| self.queue.wake(key));
                    }
                }
                watcher::Event::Delete(object) => {
                    let object = keep(object);
                    cache.remove(&object.meta().namespace, &object.meta().name);
                    self.seen.shown(&object.meta().uid, None);
                    wake(&object)
                        .into_iter()
                        .for_each(|key| self.queue.wake(key));
                }
            }
        }
    }
}

/// Whether a watch failed only because it slept through too many changes: the list that follows
/// mends it, so nothing is waited for. Once; a watch that has not worked since waits like any.
fn relists_at_once<K>(
    event: &Result<watcher::Event<K>, watcher::Error>,
    patient: &mut bool,
) -> bool {
    match event {
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => *patient = true,
        Err(watcher::Error::WatchError(status)) if status.code == 410 => {
            return std::mem::take(patient);
        }
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn expired() -> Result<watcher::Event<()>, watcher::Error> {
        let status = Status::failure("too old resource version", "Expired").with_code(410);
        Err(watcher::Error::WatchError(status.boxed()))
    }

    #[test]
    fn a_watch_that_fell_behind_lists_anew_at_once_but_not_again_and_again() {
        let mut patient = true;
        assert!(relists_at_once(&expired(), &mut patient));
        assert!(!relists_at_once(
            &Ok(watcher::Event::<()>::InitDone),
            &mut patient
        ));
        assert!(!relists_at_once(&expired(), &mut patient));
        relists_at_once(&Ok(watcher::Event::Apply(())), &mut patient);
        assert!(
            relists_at_once(&expired(), &mut patient),
            "it has worked since"
        );
    }
}
