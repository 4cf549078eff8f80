//! What proxies tell reaches the leader from every serving replica, and outlives the leader.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::DeleteParams,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use sluice_crds::{MeshRollout, TrafficSplit};
use sluice_e2e::world::{self, SYSTEM};
use tokio::task::JoinHandle;

use crate::{
    app::{governing, podinfo, service},
    demo::rolled_out,
    figures::Figures,
    mode_b::call,
    node::{say, wait_until},
    place::{Place, is, is_going, pods, within},
};

const APP: &str = "backend";
/// Selects the callers.
const CALLER: &str = "app=caller";
const CALLERS: i32 = 3;
/// Of the operator's pods.
const TELEMETRY: u16 = 15014;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_in_mid_step_leaves_the_step_to_the_next() {
    within("sluice-relay", true, async |place| {
        rolled_out(&place.client, SYSTEM, "sluice-controller").await;
        let url = format!("--backend-url=http://{APP}:9898/echo");
        place.apply(&podinfo("caller", CALLERS, &[url])).await;
        place.apply(&service(APP)).await;
        place.apply(&podinfo(APP, 1, &version("v1"))).await;
        place.apply(&governing(APP, APP)).await;
        place.wait_until_ready(APP, 1).await;
        place.settled(APP).await;
        both_replicas_serve(place).await;
        let calls = Calls::start(place).await;

        let witness = Witness::start(place).await;
        place.apply(&podinfo(APP, 1, &version("v2"))).await;
        let step = place
            .until(APP, "v2 at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        let expected = place.split(APP).await.status.unwrap_or_default().expected;
        assert_eq!(expected, CALLERS, "every caller counts");

        let decided = |state: &State| state.phase == "Observing" && state.weight == step.weight;
        let before = witness.until("the step", |seen| seen.states.last().is_some_and(decided));
        let before = before.await;
        let made = calls.make(30).await;
        let killed = kill_the_leader(place).await;
        let heir = next_leader(place).await;
        assert_ne!(heir, killed);
        say(&format!(
            "{killed} was killed at {} %, {heir} goes on",
            step.weight
        ));
        let after = witness.seen();
        let since = &after.states[before.states.len()..];
        let same = since
            .iter()
            .all(|state| Some(state) == before.states.last());
        assert!(same, "{before:?}, then {since:?}");
        wait_until("the heir to have all evidence", async || {
            let evidence = place.status(APP).await.evidence.unwrap_or_default();
            Ok(evidence.stable.requests + evidence.candidate.requests >= made)
        })
        .await;

        place.promote(APP, &step.candidate).await;
        let promoted = witness.until("the promotion", |seen| {
            let last = seen.states.last();
            last.is_some_and(|state| {
                state.phase == "Idle" && seen.splits.last() == Some(&(state.fence, 0))
            })
        });
        promoted.await.check();
        calls.end();
    })
    .await;
}

fn version(version: &str) -> [String; 1] {
    [format!("--ui-message={version}")]
}

/// Waits until each serving replica holds streams. Which one a proxy comes to is chance, so
/// callers are replaced until both have some.
async fn both_replicas_serve(place: &Place) {
    wait_until(
        "proxies to be connected to both serving replicas",
        async || {
            place.ready_pods(CALLER, CALLERS).await;
            let mut streams = Vec::new();
            for pod in pods(&place.client, SYSTEM, "app.kubernetes.io/component=serving").await? {
                if is(&pod, "Ready") && !is_going(&pod) {
                    let figures =
                        Figures::of(&place.client, SYSTEM, &pod.name_any(), TELEMETRY).await?;
                    streams.push(figures.sum("sluice_ads_streams", &[]));
                }
            }
            let is_shared = streams.len() == 2 && streams.iter().all(|streams| *streams > 0.0);
            if is_shared {
                say(&format!("streams of the serving replicas: {streams:?}"));
            } else {
                let name = place.ready_pods(CALLER, CALLERS).await.remove(0);
                place.delete_pod(&name).await;
            }
            Ok(is_shared)
        },
    )
    .await;
}

/// SIGKILL, and no second life under the same name: else it would be its own heir.
async fn kill_the_leader(place: &Place) -> String {
    let leader = world::leader(&place.client).await.unwrap();
    world::kill_operator(&leader).unwrap();
    let pods: Api<Pod> = Api::namespaced(place.client.clone(), SYSTEM);
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete(&leader, &at_once).await.unwrap();
    leader
}

/// Waits until a process leads that has taken up the rollout; the killed one tells no more.
async fn next_leader(place: &Place) -> String {
    let mut leader = String::new();
    wait_until("another process to lead", async || {
        let labels = [("namespace", place.namespace.as_str()), ("rollout", APP)];
        for pod in pods(
            &place.client,
            SYSTEM,
            "app.kubernetes.io/component=controller",
        )
        .await?
        {
            let name = pod.name_any();
            let Ok(figures) = Figures::of(&place.client, SYSTEM, &name, TELEMETRY).await else {
                continue; // its container is being started again
            };
            let leads = figures.sum("sluice_leader", &[]) > 0.0;
            if leads && figures.sum("sluice_rollout_weight", &labels) > 0.0 {
                leader = name;
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await;
    leader
}

/// Every caller calls the tier behind, again and again.
struct Calls {
    answered: Arc<AtomicI64>,
    failures: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Calls {
    async fn start(place: &Place) -> Self {
        let callers = place.ready_pods(CALLER, CALLERS).await;
        for caller in &callers {
            call(&place.client, &place.namespace, caller).await.unwrap();
        }
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (client, namespace) = (place.client.clone(), place.namespace.clone());
        let answered = Arc::new(AtomicI64::new(0));
        let (counted, told) = (answered.clone(), failures.clone());
        let task = tokio::spawn(async move {
            for caller in callers.iter().cycle() {
                match call(&client, &namespace, caller).await {
                    Ok(()) => _ = counted.fetch_add(1, Ordering::Relaxed),
                    Err(error) => told.lock().push(format!("{error:#}")),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            answered,
            failures,
            task,
        }
    }

    /// Waits until so many more were answered; how many that really were.
    async fn make(&self, calls: i64) -> i64 {
        let before = self.answered.load(Ordering::Relaxed);
        let more = || self.answered.load(Ordering::Relaxed) - before;
        wait_until(&format!("{calls} calls"), async || Ok(more() >= calls)).await;
        more()
    }

    fn end(self) {
        self.task.abort();
        assert_eq!(*self.failures.lock(), [""; 0]);
    }
}

/// One state of the rollout as its status told it.
#[derive(Clone, Debug, PartialEq)]
struct State {
    fence: i64,
    weight: i32,
    phase: String,
    step: Option<i32>,
}

/// All that was ever written about the rollout.
#[derive(Clone, Debug, Default)]
struct Seen {
    states: Vec<State>,
    /// Fence and weight of the split.
    splits: Vec<(i64, i32)>,
}

/// Sees every write of the status and of the split.
struct Witness {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl Witness {
    /// Begins with what stands there now.
    async fn start(place: &Place) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let states = follow(
            place,
            seen.clone(),
            |seen: &mut Seen, rollout: MeshRollout| {
                let Some(status) = rollout.status else { return };
                seen.states.push(State {
                    fence: status.fence,
                    weight: status.weight,
                    phase: status.phase.unwrap_or_default(),
                    step: status.step,
                });
            },
        );
        let splits = follow(
            place,
            seen.clone(),
            |seen: &mut Seen, split: TrafficSplit| {
                let weight = split.spec.candidate_weight();
                seen.splits.push((split.spec.fence, weight));
            },
        );
        let tasks = [states, splits];
        let witness = Self { seen, tasks };
        let begun = |seen: &Seen| !seen.states.is_empty() && !seen.splits.is_empty();
        witness.until("the beginning", begun).await;
        witness
    }

    fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// What was written until this holds: watches are told a moment after who asks.
    async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        wait_until(&format!("the watches to show {what}"), async || {
            Ok(holds(&self.seen()))
        })
        .await;
        self.seen()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Seen {
    /// Fences never fall, and the split never has a weight that was not decided, and written
    /// down as decided, under its fence.
    fn check(&self) {
        let fences: Vec<i64> = self.states.iter().map(|state| state.fence).collect();
        assert!(fences.is_sorted(), "{self:?}");
        assert!(self.splits.is_sorted_by_key(|(fence, _)| fence), "{self:?}");
        let decided: BTreeMap<i64, i32> = self.states.iter().map(|s| (s.fence, s.weight)).collect();
        for (fence, weight) in &self.splits {
            assert_eq!(decided.get(fence), Some(weight), "fence {fence}: {self:?}");
        }
        let weights: Vec<i32> = self.states.iter().map(|state| state.weight).collect();
        let rising: Vec<i32> = weights
            .iter()
            .copied()
            .filter(|weight| *weight > 0)
            .collect();
        assert!(rising.is_sorted(), "{weights:?}");
    }
}

fn follow<K>(
    place: &Place,
    seen: Arc<Mutex<Seen>>,
    note: impl Fn(&mut Seen, K) + Send + 'static,
) -> JoinHandle<()>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
    K::DynamicType: Default,
{
    let client: Client = place.client.clone();
    let api: Api<K> = Api::namespaced(client, &place.namespace);
    tokio::spawn(async move {
        let objects = watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects();
        let mut objects = objects.into_stream().boxed();
        while let Some(object) = objects.next().await {
            if let Ok(object) = object {
                note(&mut seen.lock(), object);
            }
        }
    })
}
