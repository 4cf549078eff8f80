//! The watches that keep the world.

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use sluice_crds::{Mesh, TrafficSplit};
use sluice_mesh::{Input, ObjectKey};
use tokio::{sync::watch, task::JoinSet};
use tracing::warn;

use super::hub::Hub;
use crate::backoff::Backoff;

/// Objects per page of a first list: whole Pods are large, and only facts of them are kept.
const PAGE: u32 = 200;

/// Says when every watch has had its first whole list.
pub(super) struct Synced(Vec<watch::Receiver<bool>>);

impl Synced {
    /// Returns when all have, or when the watches are gone.
    pub(super) async fn synced(mut self) {
        for one in &mut self.0 {
            let _ = one.wait_for(|synced| *synced).await;
        }
    }
}

/// Starts one watch a kind; they run until `tasks` is dropped.
pub(super) fn follow(client: &Client, hub: &Arc<Hub>, tasks: &mut JoinSet<()>) -> Synced {
    let mut watches = Watches {
        client,
        hub,
        tasks,
        synced: Vec::new(),
    };
    watches.start::<Mesh>(Input::Mesh, |hub, mesh| {
        hub.change(|world| world.apply_mesh(mesh));
    });
    watches.start::<Service>(Input::Service, |hub, service| {
        hub.change(|world| world.apply_service(service));
    });
    watches.start::<EndpointSlice>(Input::Slice, |hub, slice| {
        hub.change(|world| world.apply_slice(slice));
    });
    watches.start::<Pod>(Input::Pod, |hub, pod| {
        hub.change(|world| world.apply_pod(pod))
    });
    watches.start::<TrafficSplit>(Input::Split, Hub::apply_split);
    Synced(watches.synced)
}

struct Watches<'a> {
    client: &'a Client,
    hub: &'a Arc<Hub>,
    tasks: &'a mut JoinSet<()>,
    synced: Vec<watch::Receiver<bool>>,
}

impl Watches<'_> {
    fn start<K>(&mut self, input: Input, apply: fn(&Hub, &K))
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (sender, receiver) = watch::channel(false);
        self.synced.push(receiver);
        let api = Api::<K>::all(self.client.clone());
        self.tasks
            .spawn(keep(api, self.hub.clone(), input, apply, sender));
    }
}

async fn keep<K>(
    api: Api<K>,
    hub: Arc<Hub>,
    input: Input,
    apply: fn(&Hub, &K),
    synced: watch::Sender<bool>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default().page_size(PAGE))
        .backoff(Backoff::default())
        .inspect_err(|error| {
            let kind = K::kind(&());
            warn!(%error, %kind, "watch failed; it is tried again");
        })
        .filter_map(async |event| event.ok())
        .boxed();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                apply(&hub, &object);
                listed.extend(key(&object));
            }
            watcher::Event::InitDone => {
                let known = hub.world.read().known(input);
                for key in known.iter().filter(|key| !listed.contains(key)) {
                    hub.remove(input, key);
                }
                listed = HashSet::new();
                synced.send_replace(true);
            }
            watcher::Event::Apply(object) => apply(&hub, &object),
            watcher::Event::Delete(object) => {
                if let Some(key) = key(&object) {
                    hub.remove(input, &key);
                }
            }
        }
    }
}

/// The namespace is empty for a kind that has none.
fn key<K: Resource>(object: &K) -> Option<ObjectKey> {
    let meta = object.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, meta.name.clone()?))
}
