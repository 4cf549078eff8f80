//! The controller role: the only one that writes workloads and traffic splits.
//!
//! ```text
//!  watches ─▶ World ─▶ mapping ─▶ Queue ─▶ look: observe ─▶ decide ─▶ status ─▶ project ─▶ act
//!     │                             ▲                 ▲                                    │
//!     └─▶ Seen (own writes shown) ──┘                 └── relay::leader::Hub (evidence)    │
//!            ▲─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Invariants**
//! - The state is written before any of its effects, and nothing is decided until the caches
//!   show our own last writes.
//! - One look at one object at a time.
//! - Only the leader writes; each write carries the resourceVersion that was read before the
//!   state was written, or a fence. A leader that wakes up late changes nothing.
//! - Nothing that is kept in memory is needed after a restart.
//! - While the apiserver does not answer, traffic is only ever taken from a condemned candidate.

pub mod act;
mod bypass;
pub mod cache;
mod eject;
pub mod events;
pub mod evidence;
mod exports;
pub mod facts;
#[cfg(test)]
pub mod fixtures;
mod left_held;
pub mod mapping;
pub mod metrics;
pub mod observe;
mod orphans;
pub mod queue;
pub mod reconcile;
pub mod seen;
pub mod status;
pub mod stored;
pub mod watches;
pub mod webhooks;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures::FutureExt;
use kube::{Api, Client, api::ApiResource, core::DynamicObject};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::{
    act::{ActError, REQUEST, answer},
    bypass::Meshed,
    events::Events,
    facts::{Key, PodFacts},
    metrics::Metrics,
    queue::Queue,
    reconcile::Memory,
    seen::{Kind, Seen, Write},
    watches::{Watches, World},
    webhooks::Webhooks,
};
use crate::{
    context::{Context, lost},
    lease::{Elector, Leadership},
    relay::leader::{self, Hub, OnNews},
};

/// Secret with the controller's own certificate.
const CERTIFICATE: &str = "sluice-controller-tls";
/// How many objects are looked at at one time.
const AT_ONCE: usize = 16;
/// When an object is looked at again although its look panicked.
const AFTER_A_PANIC: Duration = Duration::from_secs(5);
/// How often the table is compared with the pods that there are.
const JANITOR: Duration = Duration::from_secs(2);

/// What all looks share.
pub struct Controller {
    client: Client,
    leadership: Leadership,
    world: Arc<World>,
    seen: Arc<Seen>,
    queue: Queue,
    hub: Arc<Hub>,
    webhooks: Arc<Webhooks>,
    events: Events,
    metrics: Metrics,
    own_namespace: String,
    meshed: Meshed,
    memories: Mutex<HashMap<Key, Box<Memory>>>,
}

/// Runs the controller until `shutdown`; then lets running looks end and gives the Lease back.
///
/// # Errors
/// The relay's address cannot be bound.
pub async fn run(context: Context, shutdown: CancellationToken) -> anyhow::Result<()> {
    // Where the Lease says that the relay is, and nowhere else.
    let relay = SocketAddr::new(context.pod.ip, leader::PORT);
    let listener = TcpListener::bind(relay)
        .await
        .with_context(|| format!("{relay}, the relay's address, cannot be bound"))?;
    let caches = context.health.check("caches");
    caches.fail("the first lists are being read");
    let mut tasks = JoinSet::new();
    let certs = context.certs(CERTIFICATE, &mut tasks);
    let metrics = Metrics::default();
    context
        .telemetry
        .register(|registry| metrics.register(registry));

    let pod = &context.pod;
    let (elector, leadership) = Elector::new(
        context.client.clone(),
        &pod.namespace,
        &pod.name,
        &relay.to_string(),
    );
    let (events, events_writer) = Events::new(context.client.clone(), &pod.name);
    let (world, queue) = (Arc::<World>::default(), Queue::default());
    let refused = metrics.relay_refused.clone();
    let hub = Arc::new(Hub::new(
        &pod.name,
        leadership.clone(),
        on_news(world.clone(), queue.clone(), metrics.clone()),
        Box::new(move || {
            refused.inc();
        }),
    ));
    let controller = Arc::new(Controller {
        webhooks: Arc::new(Webhooks::new(
            context.client.clone(),
            leadership.clone(),
            world.clone(),
        )),
        client: context.client.clone(),
        leadership,
        world: world.clone(),
        seen: Arc::default(),
        queue: queue.clone(),
        hub: hub.clone(),
        events,
        metrics,
        own_namespace: pod.namespace.clone(),
        meshed: Meshed::default(),
        memories: Mutex::default(),
    });

    let rollouts_changed = Arc::new(Notify::new());
    Watches {
        world: world.clone(),
        seen: controller.seen.clone(),
        queue,
        rollouts_changed: rollouts_changed.clone(),
        own_namespace: pod.namespace.clone(),
    }
    .start(&context.client, &mut tasks);
    tasks.spawn(events_writer);
    tasks.spawn(controller.webhooks.clone().keep(rollouts_changed));
    tasks.spawn(controller.clone().follow_leadership());
    tasks.spawn(controller.clone().janitor());
    tasks.spawn(controller.clone().free_orphans());
    tasks.spawn(controller.clone().tell_wrong_exports());
    let relay_end = shutdown.clone();
    tasks.spawn(leader::serve(listener, hub, certs, relay_end).map(|ended| {
        if let Err(error) = ended {
            error!(%error, "the relay ended");
        }
    }));

    // Whoever leads decides from whole caches: the campaign begins when they are in.
    tokio::select! {
        () = world.synced() => caches.pass(),
        error = lost(&mut tasks, &shutdown) => return Err(error),
        () = shutdown.cancelled() => return Ok(()),
    }
    info!("caches are in; campaigning for the lease");
    let release = CancellationToken::new();
    let mut election = tokio::spawn(elector.run(release.clone()));
    tokio::select! {
        () = controller.work(&shutdown) => {}
        error = lost(&mut tasks, &shutdown) => return Err(error),
        ended = &mut election => return ended.context("the election panicked"),
    }
    release.cancel();
    election.await.context("the election panicked")
}

/// Wakes those whose services a table tells of.
fn on_news(world: Arc<World>, queue: Queue, metrics: Metrics) -> OnNews {
    Box::new(move |services: &BTreeSet<String>| {
        metrics.relay_tables.inc();
        if services.is_empty() {
            world
                .rollouts
                .keys()
                .into_iter()
                .for_each(|key| queue.wake(key));
            return;
        }
        for key in mapping::of_services(&world, services) {
            queue.wake_for_evidence(key);
        }
    })
}

impl Controller {
    /// Looks at what the queue gives, until `shutdown`; then waits for the looks that run.
    async fn work(self: &Arc<Self>, shutdown: &CancellationToken) {
        let mut looks = JoinSet::new();
        loop {
            while looks.len() >= AT_ONCE {
                ended(looks.join_next().await);
            }
            let key = tokio::select! {
                key = self.queue.next() => key,
                () = shutdown.cancelled() => break,
                look = looks.join_next(), if !looks.is_empty() => {
                    ended(look);
                    continue;
                }
            };
            let controller = self.clone();
            looks.spawn(async move {
                let mut turn = Turn {
                    queue: &controller.queue,
                    key: &key,
                    again: Some(Instant::now() + AFTER_A_PANIC),
                };
                let mut memory = controller.memories.lock().remove(&key).unwrap_or_default();
                turn.again = controller.look(&key, &mut memory).await;
                if controller
                    .world
                    .rollouts
                    .get(&key.namespace, &key.name)
                    .is_some()
                {
                    controller.memories.lock().insert(key.clone(), memory);
                }
            });
        }
        while let Some(look) = looks.join_next().await {
            ended(Some(look));
        }
    }

    /// A new leader looks at everything; one that leads no more forgets what it remembered.
    async fn follow_leadership(self: Arc<Self>) {
        let mut leadership = self.leadership.clone();
        let mut term = None;
        loop {
            let now = leadership.term();
            if now != term {
                term = now;
                self.metrics.leads(term.is_some());
                self.world
                    .rollouts
                    .keys()
                    .into_iter()
                    .for_each(|key| self.queue.wake(key));
            }
            leadership.changed().await;
        }
    }

    /// Nothing is expected of proxies whose pods are gone, nor of ejects that are over. A pod must
    /// be missed twice: its proxy may report before the watch shows the pod.
    async fn janitor(self: Arc<Self>) {
        self.world.synced().await;
        let mut ticks = tokio::time::interval(JANITOR);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = BTreeSet::<String>::new();
        loop {
            ticks.tick().await;
            let known = self.world.pods.uids();
            let now = self.hub.now_ms();
            let gone: BTreeSet<String> = self.hub.with_table(|table| {
                table.expire(now);
                let gone = table.pod_uids().filter(|uid| !known.contains(*uid));
                gone.map(str::to_owned).collect()
            });
            let certain: Vec<&String> = gone.intersection(&missed).collect();
            if !certain.is_empty() {
                self.hub
                    .with_table(|table| certain.iter().for_each(|uid| table.forget(uid, now)));
                self.world
                    .rollouts
                    .keys()
                    .into_iter()
                    .for_each(|key| self.queue.wake(key));
            }
            missed = gone;
            self.forget_ejects();
            self.survey();
        }
    }

    /// Whether every Ready replica that serves proxies has told its whole table; not while there
    /// is none. A replica that goes is not waited for: its proxies come to another, or are away.
    fn relay_is_complete(&self) -> bool {
        let pods = self.world.pods.within(&self.own_namespace);
        let serving = |pod: &&Arc<PodFacts>| {
            mapping::is_serving(&self.own_namespace, &pod.meta) && pod.ready && pod.lives()
        };
        let mut serving = pods.iter().filter(serving).peekable();
        serving.peek().is_some() && serving.all(|pod| self.hub.hears(&pod.meta.name))
    }

    /// uid and version of an object as the apiserver has it now.
    async fn current_version(&self, write: &Write) -> Result<Option<(String, String)>, ActError> {
        let resource = match write.kind {
            Kind::Rollout => ApiResource::erase::<sluice_crds::MeshRollout>(&()),
            Kind::Split => ApiResource::erase::<sluice_crds::TrafficSplit>(&()),
            Kind::Deployment => ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()),
            Kind::ReplicaSet => ApiResource::erase::<k8s_openapi::api::apps::v1::ReplicaSet>(&()),
            Kind::Pod => ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
            Kind::Autoscaler => {
                ApiResource::erase::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(&())
            }
        };
        let api =
            Api::<DynamicObject>::namespaced_with(self.client.clone(), &write.namespace, &resource);
        let what = format!("reading {:?} {}", write.kind, write.name);
        let found = answer(what, REQUEST, api.get_metadata_opt(&write.name)).await?;
        Ok(found.and_then(|o| Some((o.metadata.uid?, o.metadata.resource_version?))))
    }
}

/// Gives an object's turn back to the queue, however the look ends: or the object would never be
/// looked at again.
struct Turn<'a> {
    queue: &'a Queue,
    key: &'a Key,
    again: Option<Instant>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.again {
            self.queue.wake_at(self.key.clone(), at);
        }
        self.queue.done(self.key);
    }
}

fn ended(look: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = look {
        error!(%error, "a look at a MeshRollout panicked: report this");
    }
}
