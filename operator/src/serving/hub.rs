//! What all streams of this replica share: the world, who subscribes to what, and the table of
//! what proxies have said.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use sluice_crds::{CANDIDATE, TrafficSplit};
use sluice_evidence::{
    Identity, Refused, Table,
    relay::{self, ProxyEntry},
    v1::ProxyReport,
};
use sluice_mesh::{Eject, Input, ObjectKey, World};
use sluice_xds::{Kind, ResourceName};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    mailbox::{Batch, Mailbox},
    metrics::Metrics,
};

/// How often compiled resources that nobody wants, and proxies long gone, are let go.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How long the view of a proxy without a stream counts.
const DEPARTED: Duration = Duration::from_secs(60);

/// Services, as `NAMESPACE/NAME`.
pub(super) type View = BTreeSet<String>;

/// Number of an ADS stream within this process.
pub(super) type SessionId = u64;

/// What all streams of this replica share.
pub struct Hub {
    replica: String,
    started: Instant,
    pub(super) world: RwLock<World>,
    streams: Mutex<Streams>,
    table: Mutex<Table>,
    table_changed: watch::Sender<()>,
    /// Services of each split that has a candidate.
    candidates: Mutex<HashMap<ObjectKey, Vec<String>>>,
    pub(super) metrics: Metrics,
}

#[derive(Default)]
struct Streams {
    next: SessionId,
    mailboxes: HashMap<SessionId, Arc<Mailbox>>,
    subscribers: HashMap<ResourceName, HashSet<SessionId>>,
    /// Per pod uid, the services that each of its streams routes.
    views: HashMap<String, HashMap<SessionId, View>>,
    /// The same of pods whose last stream has ended: a proxy that connects again routes them
    /// all the while.
    departed: HashMap<String, (View, Instant)>,
}

impl Hub {
    /// An empty hub of this replica (its pod name).
    #[must_use]
    pub fn new(trust_domain: &str, replica: &str, metrics: Metrics) -> Arc<Self> {
        let started_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        Arc::new(Self {
            replica: replica.to_owned(),
            started: Instant::now(),
            world: RwLock::new(World::new(trust_domain)),
            streams: Mutex::default(),
            table: Mutex::new(Table::new(replica, started_ms)),
            table_changed: watch::channel(()).0,
            candidates: Mutex::default(),
            metrics,
        })
    }

    /// The pod name of this replica.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Changes the world, and wakes the streams that the change concerns.
    pub fn change(&self, change: impl FnOnce(&mut World) -> Vec<ResourceName>) {
        let (touched, is_seen_as_before) = {
            let mut world = self.world.write();
            let before = world.audience_changes();
            (change(&mut world), world.audience_changes() == before)
        };
        if touched.is_empty() {
            return;
        }
        if !is_seen_as_before {
            self.forget_denied();
        }
        let batch: Batch = touched.into();
        let streams = self.streams.lock();
        let woken: HashSet<_> = batch
            .iter()
            .filter_map(|name| streams.subscribers.get(name))
            .flatten()
            .collect();
        for id in woken {
            if let Some(mailbox) = streams.mailboxes.get(id) {
                mailbox.put(&batch);
            }
        }
    }

    /// Proxies without a stream, too, are not waited for by Services that are kept from them.
    fn forget_denied(&self) {
        let world = self.world.read();
        let is_denied = |identity: &Identity, service: &str| {
            world.sight(&identity.namespace).is_denied(service)
        };
        if self.table.lock().forget_services(is_denied) {
            self.table_changed.send_replace(());
        }
    }

    /// Takes in a split: it also says for which services records are wanted often.
    pub fn apply_split(&self, split: &TrafficSplit) {
        let namespace = split.metadata.namespace.clone().unwrap_or_default();
        let name = split.metadata.name.clone().unwrap_or_default();
        let key = ObjectKey::new(namespace.clone(), name);
        let trying = split.spec.arms.iter().any(|arm| arm.name == CANDIDATE);
        if trying {
            let services = split.spec.services.iter();
            let services = services
                .map(|service| format!("{namespace}/{service}"))
                .collect();
            self.candidates.lock().insert(key, services);
        } else {
            self.candidates.lock().remove(&key);
        }
        self.change(|world| world.apply_split(split));
        self.count_ejects();
    }

    /// Takes out an object that is no more.
    pub fn remove(&self, input: Input, key: &ObjectKey) {
        if input == Input::Split {
            self.candidates.lock().remove(key);
        }
        self.change(|world| world.remove(input, key));
        if input == Input::Split {
            self.count_ejects();
        }
    }

    /// Takes candidates off traffic by the leader's word, for as long as their splits have no
    /// higher fence: whether that leader lives, and whether we hear of it, or not.
    pub fn eject(&self, ejects: &[relay::Eject]) {
        if ejects.is_empty() {
            return;
        }
        for told in ejects {
            let key = ObjectKey::new(&told.namespace, &told.rollout);
            let eject = Eject {
                revision: told.revision.clone(),
                fence: told.fence,
                since_ms: told.since_ms,
                why: told.why.clone(),
            };
            self.change(|world| world.eject(&key, eject));
        }
        self.count_ejects();
    }

    /// The ejects that hold.
    #[must_use]
    pub fn ejects(&self) -> Vec<relay::Eject> {
        let world = self.world.read();
        let ejects = world.ejects().iter().map(|(split, eject)| relay::Eject {
            namespace: split.namespace.clone(),
            rollout: split.name.clone(),
            revision: eject.revision.clone(),
            fence: eject.fence,
            since_ms: eject.since_ms,
            why: eject.why.clone(),
        });
        ejects.collect()
    }

    /// Says when an eject has come or is over; the leader is told at once.
    fn count_ejects(&self) {
        let now = i64::try_from(self.world.read().ejects().len()).unwrap_or(i64::MAX);
        let before = self.metrics.ejects.set(now);
        if now == before {
            return;
        }
        self.table_changed.send_replace(());
        if now > before {
            warn!(
                ejects = now,
                "the leader has taken a candidate off traffic without the apiserver: until its split has a higher fence"
            );
        } else {
            info!(
                ejects = now,
                "an eject is over: its split has a higher fence or is no more"
            );
        }
    }

    /// Opens a stream.
    pub(super) fn open(&self) -> (SessionId, Arc<Mailbox>) {
        let mut streams = self.streams.lock();
        streams.next += 1;
        let id = streams.next;
        let mailbox = Arc::new(Mailbox::default());
        streams.mailboxes.insert(id, mailbox.clone());
        self.metrics
            .streams
            .set(i64::try_from(streams.mailboxes.len()).unwrap_or(i64::MAX));
        (id, mailbox)
    }

    /// A stream wants to be woken for these names, and for those no more.
    pub(super) fn subscribe(&self, id: SessionId, kind: Kind, add: &[String], remove: &[String]) {
        let mut streams = self.streams.lock();
        for name in remove {
            streams.leave(id, &ResourceName::new(kind, name.as_str()));
        }
        for name in add {
            let name = ResourceName::new(kind, name.as_str());
            streams.subscribers.entry(name).or_default().insert(id);
        }
    }

    /// Recomputes which services a stream's proxy routes.
    pub(super) fn view<'a>(
        &self,
        id: SessionId,
        identity: &Identity,
        subscriptions: impl Iterator<Item = (Kind, &'a str)>,
    ) {
        let pod_uid = &identity.pod_uid;
        let view = {
            let world = self.world.read();
            world
                .sight(&identity.namespace)
                .services_view(subscriptions)
        };
        let mut streams = self.streams.lock();
        let views = streams.views.entry(pod_uid.to_owned()).or_default();
        if views.get(&id) == Some(&view) {
            return;
        }
        views.insert(id, view);
        let all: View = views.values().flatten().cloned().collect();
        let all: Vec<_> = all.into_iter().collect();
        streams.departed.remove(pod_uid);
        drop(streams);
        self.table.lock().set_views(pod_uid, &all);
        self.table_changed.send_replace(());
    }

    /// Closes a stream with the names that it still subscribes to.
    pub(super) fn close<'a>(
        &self,
        id: SessionId,
        pod_uid: &str,
        subscriptions: impl Iterator<Item = (Kind, &'a str)>,
    ) {
        let mut streams = self.streams.lock();
        streams.mailboxes.remove(&id);
        for (kind, name) in subscriptions {
            streams.leave(id, &ResourceName::new(kind, name));
        }
        if let Some(views) = streams.views.get_mut(pod_uid)
            && let Some(view) = views.remove(&id)
            && views.is_empty()
        {
            streams.views.remove(pod_uid);
            streams
                .departed
                .insert(pod_uid.to_owned(), (view, Instant::now()));
        }
        self.metrics
            .streams
            .set(i64::try_from(streams.mailboxes.len()).unwrap_or(i64::MAX));
    }

    /// The services, as `NAMESPACE/NAME`, that a pod's streams at this replica route, without
    /// those that have been kept from it since.
    pub(super) fn view_of(&self, identity: &Identity) -> View {
        let mut view = self.streams.lock().view_of(&identity.pod_uid);
        let world = self.world.read();
        let sight = world.sight(&identity.namespace);
        view.retain(|service| !sight.is_denied(service));
        view
    }

    /// Whether any of these services has a candidate.
    pub(super) fn is_tried(&self, view: &View) -> bool {
        let candidates = self.candidates.lock();
        candidates
            .values()
            .flatten()
            .any(|service| view.contains(service))
    }

    /// Takes out of a report what it says of Services that are kept from the proxy. Gives how
    /// many parts that were, and the first of those Services.
    pub(super) fn strip(
        &self,
        identity: &Identity,
        report: &mut ProxyReport,
    ) -> Option<(u64, String)> {
        let world = self.world.read();
        let sight = world.sight(&identity.namespace);
        let (mut parts, mut first) = (0, None);
        let mut is_taken = |service: &String| {
            let is_denied = sight.is_denied(service);
            if is_denied {
                parts += 1;
                first.get_or_insert_with(|| service.clone());
            }
            !is_denied
        };
        report.records.retain(|record| is_taken(&record.service));
        report.applied.retain(|split| is_taken(&split.service));
        first.map(|service| (parts, service))
    }

    /// Takes in a report whose records are all of services in `view`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(super) fn report(
        &self,
        identity: &Identity,
        report: &ProxyReport,
        view: &View,
    ) -> Result<(), Refused> {
        let view: Vec<_> = view.iter().cloned().collect();
        let now = self.now_ms();
        self.table.lock().report(identity, report, &view, now)?;
        self.table_changed.send_replace(());
        Ok(())
    }

    /// A proxy's evidence stream ended.
    pub(super) fn disconnected(&self, pod_uid: &str, process_start_ms: u64) {
        self.table.lock().disconnected(pod_uid, process_start_ms);
        self.table_changed.send_replace(());
    }

    /// Told whenever the table has changed.
    #[must_use]
    pub fn table_changes(&self) -> watch::Receiver<()> {
        self.table_changed.subscribe()
    }

    /// What changed in the table after `since` (0: the whole), and what to give as `since` next.
    #[must_use]
    pub fn outgoing(&self, since: u64) -> (Vec<ProxyEntry>, u64) {
        let table = self.table.lock();
        (table.outgoing(since, self.now_ms()), table.sequence())
    }

    /// Lets go of what nobody needs any more, again and again.
    pub async fn housekeeping(self: Arc<Self>) {
        loop {
            tokio::time::sleep(HOUSEKEEPING).await;
            let wanted: HashSet<_> = {
                let mut streams = self.streams.lock();
                streams
                    .departed
                    .retain(|_, (_, since)| since.elapsed() < DEPARTED);
                streams.subscribers.keys().cloned().collect()
            };
            self.world.read().trim(|name| wanted.contains(name));
            let now = self.now_ms();
            self.table.lock().expire(now);
        }
    }

    /// Milliseconds since this process started, on the monotonic clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Streams {
    fn view_of(&self, pod_uid: &str) -> View {
        match (self.views.get(pod_uid), self.departed.get(pod_uid)) {
            (Some(views), _) => views.values().flatten().cloned().collect(),
            (None, Some((view, since))) if since.elapsed() < DEPARTED => view.clone(),
            (None, _) => View::new(),
        }
    }

    fn leave(&mut self, id: SessionId, name: &ResourceName) {
        let Some(subscribers) = self.subscribers.get_mut(name) else {
            return;
        };
        subscribers.remove(&id);
        if subscribers.is_empty() {
            self.subscribers.remove(name);
        }
    }
}
