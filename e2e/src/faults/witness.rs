//! Sees every revision of a scene's objects, on watches that no fault touches, and judges them
//! in the order in which they were made.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Resource, ResourceExt,
    runtime::watcher::{self, watcher},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sluice_crds::{MeshRollout, TrafficSplit, names};
use sluice_rollout::{invariants, policy::Policy, state::State};
use tokio::task::JoinSet;

use super::{
    scene::{APP, REPLICAS, Scene},
    stage::until,
};

/// One revision.
#[derive(Clone)]
enum Revision {
    Rollout(Box<MeshRollout>),
    Split(Box<TrafficSplit>),
    /// A pod that is there.
    Pod(Box<Pod>),
    /// A pod that is gone.
    Gone(String),
}

/// Sees everything from its start on.
pub struct Witness {
    seen: Arc<Mutex<Vec<(u64, Revision)>>>,
    _watches: JoinSet<()>,
}

impl Witness {
    /// Begins with what is there.
    #[must_use]
    pub fn start(scene: &Scene) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut watches = JoinSet::new();
        watches.spawn(follow(scene, &seen, |it: MeshRollout, _| {
            Revision::Rollout(Box::new(it))
        }));
        watches.spawn(follow(scene, &seen, |it: TrafficSplit, _| {
            Revision::Split(Box::new(it))
        }));
        watches.spawn(follow(scene, &seen, |it: Pod, is_there| {
            if is_there {
                Revision::Pod(Box::new(it))
            } else {
                Revision::Gone(it.name_any())
            }
        }));
        Self {
            seen,
            _watches: watches,
        }
    }

    /// Waits until it has seen the rollout and the split as they are, and so all that led there.
    ///
    /// # Errors
    /// It does not come to see them.
    pub async fn has_seen_all(&self, scene: &Scene) -> Result<()> {
        let rollout = scene.api::<MeshRollout>().get(APP).await?;
        let newest = [version(&rollout), version(&scene.split().await?)];
        until("the witness to see the end", async || {
            let seen = self.seen.lock();
            let has = |newest: &u64| seen.iter().any(|(version, _)| version == newest);
            Ok(newest.iter().all(has).then_some(()))
        })
        .await
    }

    /// What was wrong at any revision.
    #[must_use]
    pub fn verdict(&self) -> Vec<String> {
        let mut seen = self.seen.lock().clone();
        seen.sort_by_key(|(version, _)| *version);
        let mut judge = Judge::default();
        for (version, revision) in seen {
            let wrongs = judge.wrongs.len();
            judge.look(revision);
            for wrong in &mut judge.wrongs[wrongs..] {
                *wrong = format!("at revision {version}: {wrong}");
            }
        }
        judge.wrongs.sort();
        judge.wrongs.dedup();
        judge.wrongs
    }
}

fn follow<K>(
    scene: &Scene,
    seen: &Arc<Mutex<Vec<(u64, Revision)>>>,
    of: fn(K, bool) -> Revision,
) -> impl Future<Output = ()> + Send + use<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let (api, seen) = (scene.api::<K>(), seen.clone());
    async move {
        let events = watcher(api, watcher::Config::default());
        let mut events = events
            .inspect_err(|error| eprintln!("witness: {error}"))
            .boxed();
        while let Some(event) = events.next().await {
            let (object, is_there) = match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                    (object, true)
                }
                Ok(watcher::Event::Delete(object)) => (object, false),
                _ => continue,
            };
            seen.lock().push((version(&object), of(object, is_there)));
        }
    }
}

/// The revision of etcd at which an object was written.
fn version(object: &impl ResourceExt) -> u64 {
    let version = object.resource_version();
    { version.and_then(|version| version.parse().ok()) }.unwrap_or_default()
}

/// What is known at one revision.
#[derive(Default)]
struct Judge {
    state: Option<State>,
    /// Weight by fence, as the states have said.
    said: BTreeMap<i64, i32>,
    split: Option<TrafficSplit>,
    pods: BTreeMap<String, Pod>,
    /// All of the Deployment's pods have been ready once.
    was_whole: bool,
    wrongs: Vec<String>,
}

impl Judge {
    fn look(&mut self, revision: Revision) {
        match revision {
            Revision::Rollout(rollout) => self.rollout(&rollout),
            Revision::Split(split) => self.split(*split),
            Revision::Pod(pod) => {
                self.pods.insert(pod.name_any(), *pod);
                self.capacity();
            }
            Revision::Gone(name) => {
                self.pods.remove(&name);
                self.capacity();
            }
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    fn rollout(&mut self, rollout: &MeshRollout) {
        let Some(status) = &rollout.status else {
            return;
        };
        if status.observed_generation > rollout.metadata.generation {
            self.wrong("observedGeneration runs ahead".to_owned());
        }
        // The apiserver gives a new object a status of its own.
        let Some(state) = status.state.clone() else {
            return;
        };
        let state = serde_json::from_value::<State>(state).map_err(|error| error.to_string());
        let policy = Policy::from_spec(&rollout.spec).map_err(|error| error.to_string());
        let (state, policy) = match (state, policy) {
            (Ok(state), Ok(policy)) => (state, policy),
            (Err(error), _) | (_, Err(error)) => {
                self.wrong(format!("the state cannot be read: {error}"));
                return;
            }
        };
        let before = self.state.replace(state.clone());
        if let Some(before) = before
            && let Err(broken) = invariants::check(&policy, &before, &state)
        {
            self.wrong(broken);
        }
        self.said.insert(state.fence, state.weight);
    }

    fn split(&mut self, split: TrafficSplit) {
        let spec = &split.spec;
        let (fence, weight) = (spec.fence, spec.candidate_weight());
        let sum: i32 = spec.arms.iter().map(|arm| arm.weight).sum();
        if sum != 100 {
            self.wrong(format!("the weights sum to {sum}"));
        }
        if self.said.get(&fence) != Some(&weight) {
            let said = self.said.get(&fence).copied();
            self.wrong(format!(
                "the split gives {weight} % under fence {fence}, the states said {said:?}"
            ));
        }
        if let Some(before) = self.split.replace(split.clone())
            && before.spec.fence > fence
        {
            self.wrong(format!(
                "the split's fence fell from {} to {fence}",
                before.spec.fence
            ));
        }
        let mut candidates = self.pods.values().filter(|pod| is_candidate(pod));
        if weight > 0 && !candidates.any(|pod| is(pod, "ContainersReady")) {
            self.wrong(format!("{weight} % and no candidate pod can serve"));
        }
    }

    /// Whoever calls the Service without the mesh always finds all of its pods.
    fn capacity(&mut self) {
        let of_app = self
            .pods
            .values()
            .filter(|pod| pod.labels().get("app").is_some_and(|app| app == APP));
        let ready = of_app.filter(|pod| is(pod, "Ready")).count();
        let ready = i32::try_from(ready).unwrap_or(i32::MAX);
        if ready >= REPLICAS {
            self.was_whole = true;
        } else if self.was_whole {
            self.wrong(format!("{ready} of {REPLICAS} pods are ready"));
        }
    }
}

fn is_candidate(pod: &Pod) -> bool {
    let hash = pod.labels().get(names::POD_TEMPLATE_HASH);
    hash.is_some_and(|hash| hash.starts_with(names::CANDIDATE_HASH_PREFIX))
}

fn is(pod: &Pod, condition: &str) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    { conditions }.any(|c| c.type_ == condition && c.status == "True")
}
