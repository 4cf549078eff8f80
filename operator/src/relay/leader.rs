//! The leader's end of the relay: takes the tables of all serving replicas into one.
//!
//! Tables are merged whether this process leads or not, so that a new leader lacks nothing that
//! a sender has told before it noticed.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;
use sluice_evidence::{
    Table,
    relay::{
        Ack, Eject, ProxyEntry, Table as TableMessage,
        relay_server::{Relay, RelayServer},
    },
};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tracing::{debug, info, warn};

use super::ejects::{Ejects, Known};
use crate::{
    lease::Leadership,
    tls::{Acceptor, Certs, ClientAuth, PeerInfo},
};

/// Port of the relay.
pub const PORT: u16 = 15013;
/// The service account whose replicas may tell of proxies.
const SENDER: &str = "sluice-serving";
/// The largest message: a whole table of tens of thousands of proxies.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// A sender that says nothing for this long is gone; it keeps alive every second.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a stream must have stood before its table counts as whole: the proxies of a replica
/// that has just started, and those that a dead one has left, first have to come back to it.
/// With a new leader at the same time (an upgrade) nobody else would know of them.
const SETTLE: Duration = Duration::from_secs(2);

/// What is told after each table: the services (`NAMESPACE/NAME`) that it says something new of;
/// none when a replica came or went, which concerns all.
pub type OnNews = Box<dyn Fn(&BTreeSet<String>) + Send + Sync>;

/// The table of all proxies, and who feeds it.
pub struct Hub {
    table: Mutex<Table>,
    /// Open streams that have told their whole table, by replica.
    streams: Mutex<BTreeMap<String, u32>>,
    /// Told to every replica in every answer.
    pub ejects: Ejects,
    started: Instant,
    leadership: Leadership,
    on_news: OnNews,
    on_refused: Box<dyn Fn() + Send + Sync>,
}

impl Hub {
    /// An empty hub of the process with this pod name.
    #[must_use]
    pub fn new(
        pod: &str,
        leadership: Leadership,
        on_news: OnNews,
        on_refused: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let started_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Self {
            table: Mutex::new(Table::new(pod, started_ms)),
            streams: Mutex::default(),
            ejects: Ejects::default(),
            started: Instant::now(),
            leadership,
            on_news,
            on_refused,
        }
    }

    /// Milliseconds on the table's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads or changes the table.
    pub fn with_table<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut self.table.lock())
    }

    /// Whether this replica's stream is open and has told its whole table.
    #[must_use]
    pub fn hears(&self, replica: &str) -> bool {
        self.streams.lock().contains_key(replica)
    }

    fn take(&self, replica: &str, entries: &[ProxyEntry]) {
        let now = self.now_ms();
        let mut news = BTreeSet::new();
        {
            let mut table = self.table.lock();
            for entry in entries {
                if let Err(error) = table.merge(replica, entry, now) {
                    warn!(%error, replica, pod = entry.pod, "entry of a proxy not taken");
                    (self.on_refused)();
                    continue;
                }
                news.extend(services_of(entry).cloned());
            }
        }
        if !news.is_empty() {
            (self.on_news)(&news);
        }
    }

    /// What a replica holds for a leader that may be gone is known to this one from now on.
    fn learn(&self, replica: &str, ejects: Vec<Eject>) {
        for eject in ejects {
            let told = eject.clone();
            if self.ejects.add(eject) {
                let Eject {
                    namespace,
                    rollout,
                    revision,
                    fence,
                    why,
                    ..
                } = told;
                info!(
                    replica,
                    namespace, rollout, revision, fence, why, "a replica holds an eject"
                );
                (self.on_news)(&BTreeSet::new());
            }
        }
    }

    fn ack(&self, ejects: &Known) -> Ack {
        Ack {
            leading: self.leadership.leads() || self.leadership.lapsed().is_some(),
            ejects: ejects.values().cloned().collect(),
        }
    }

    fn opened(&self, replica: &str) {
        *self.streams.lock().entry(replica.to_owned()).or_default() += 1;
        debug!(replica, "relay stands: its whole table is in");
        (self.on_news)(&BTreeSet::new());
    }

    fn closed(&self, replica: &str) {
        {
            let mut streams = self.streams.lock();
            let Some(open) = streams.get_mut(replica) else {
                return;
            };
            *open -= 1;
            if *open > 0 {
                return;
            }
            streams.remove(replica);
        }
        debug!(replica, "relay closed");
        (self.on_news)(&BTreeSet::new());
    }
}

fn services_of(entry: &ProxyEntry) -> impl Iterator<Item = &String> {
    let applied = entry.applied.iter().map(|split| &split.service);
    applied
        .chain(entry.records.iter().map(|record| &record.service))
        .chain(&entry.views)
}

/// One replica's stream.
struct Sharing {
    hub: Arc<Hub>,
    tables: Streaming<TableMessage>,
    ejects: watch::Receiver<Known>,
    began: Instant,
    open: Option<Open>,
}

impl Sharing {
    /// The next answer; none when the replica is silent or gone.
    async fn next(&mut self) -> Option<Ack> {
        tokio::select! {
            message = tokio::time::timeout(SILENCE, self.tables.next()) => {
                self.take(message.ok()??.ok()?);
            }
            changed = self.ejects.changed() => changed.ok()?,
        }
        let ejects = self.ejects.borrow_and_update().clone();
        Some(self.hub.ack(&ejects))
    }

    fn take(&mut self, message: TableMessage) {
        self.hub.take(&message.replica, &message.proxies);
        self.hub.learn(&message.replica, message.ejects);
        // The sender keeps alive each second, so this is seen in time.
        if self.open.is_none() && self.began.elapsed() >= SETTLE {
            self.hub.opened(&message.replica);
            self.open = Some(Open {
                hub: self.hub.clone(),
                replica: message.replica,
            });
        }
    }
}

/// Counts a stream as open while it lives.
struct Open {
    hub: Arc<Hub>,
    replica: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hub.closed(&self.replica);
    }
}

/// The gRPC service.
struct Service {
    hub: Arc<Hub>,
    certs: watch::Receiver<Option<Arc<Certs>>>,
}

impl Service {
    /// The peer's certificate must be that of the serving account of our own namespace.
    fn check(&self, peer: Option<&PeerInfo>) -> Result<(), Status> {
        let certs = self.certs.borrow();
        let own = certs
            .as_ref()
            .map(|certs| certs.spiffe_id().to_owned())
            .unwrap_or_default();
        let expected = sender_id(&own);
        let ids = peer.map(|peer| peer.spiffe_ids.clone()).unwrap_or_default();
        if expected.is_some_and(|expected| ids.contains(&expected)) {
            return Ok(());
        }
        let shown = ids.join(", ");
        warn!(
            shown,
            "somebody else than a serving replica came to the relay"
        );
        Err(Status::permission_denied(
            "the relay takes tables from sluice-serving only",
        ))
    }
}

/// The id of the serving account beside ours.
fn sender_id(own: &str) -> Option<String> {
    let (prefix, _account) = own.rsplit_once("/sa/")?;
    Some(format!("{prefix}/sa/{SENDER}"))
}

#[tonic::async_trait]
impl Relay for Service {
    type ShareStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn share(
        &self,
        request: Request<Streaming<TableMessage>>,
    ) -> Result<Response<Self::ShareStream>, Status> {
        self.check(request.extensions().get::<PeerInfo>())?;
        let stream = Sharing {
            ejects: self.hub.ejects.subscribe(),
            hub: self.hub.clone(),
            tables: request.into_inner(),
            began: Instant::now(),
            open: None,
        };
        let acks = futures::stream::unfold(stream, async |mut stream| {
            let ack = stream.next().await?;
            Some((Ok(ack), stream))
        });
        Ok(Response::new(acks.boxed()))
    }
}

/// Serves the relay until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    hub: Arc<Hub>,
    certs: watch::Receiver<Option<Arc<Certs>>>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = Acceptor::new(listener, certs.clone(), ClientAuth::Required).incoming();
    let service = RelayServer::new(Service { hub, certs }).max_decoding_message_size(MAX_MESSAGE);
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
        .add_service(service);
    // Streams never end by themselves: at shutdown they are cut, and senders look for the
    // leader anew.
    tokio::select! {
        ended = router.serve_with_incoming(incoming) => ended,
        () = shutdown.cancelled() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_evidence::v1::{AppliedSplit, ArmCounts, Record};

    fn entry(pod_uid: &str, sequence: u64, coined: u64) -> ProxyEntry {
        let counts = ArmCounts {
            coined,
            ..ArmCounts::default()
        };
        ProxyEntry {
            pod_uid: pod_uid.to_owned(),
            sequence,
            connected: true,
            applied: vec![AppliedSplit {
                service: "shop/web".to_owned(),
                fence: 3,
            }],
            records: vec![Record {
                service: "shop/web".to_owned(),
                revision: "r2".to_owned(),
                fence: 3,
                stable: Some(counts.clone()),
                candidate: Some(counts),
                ..Record::default()
            }],
            views: vec!["shop/web".to_owned()],
            ..ProxyEntry::default()
        }
    }

    type Told = Arc<Mutex<Vec<BTreeSet<String>>>>;

    fn hub() -> (Arc<Hub>, Told) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let hub = Hub::new(
            "leader",
            Leadership::always(),
            Box::new(move |news| sink.lock().push(news.clone())),
            Box::new(|| ()),
        );
        (Arc::new(hub), told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_wakes_the_services_it_is_about_and_a_keep_alive_nobody() {
        let (hub, told) = hub();
        hub.take("serving-1", &[]);
        assert!(told.lock().is_empty());
        hub.take("serving-1", &[entry("p", 1, 5)]);
        assert_eq!(
            told.lock().as_slice(),
            [BTreeSet::from(["shop/web".to_owned()])]
        );
        let standing = hub.with_table(|table| table.standing("shop/web", 3, hub.now_ms()));
        assert_eq!((standing.expected, standing.applied), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_heard_until_its_last_stream_ends() {
        let (hub, _) = hub();
        assert!(!hub.hears("serving-1"));
        hub.opened("serving-1");
        let old = Open {
            hub: hub.clone(),
            replica: "serving-1".to_owned(),
        };
        hub.opened("serving-1");
        drop(old);
        assert!(
            hub.hears("serving-1"),
            "the new stream of a sender that came again"
        );
        hub.closed("serving-1");
        assert!(!hub.hears("serving-1"));
    }

    #[test]
    fn only_the_serving_account_beside_us_may_send() {
        assert_eq!(
            sender_id("spiffe://cluster.local/ns/sluice-system/sa/sluice-controller").as_deref(),
            Some("spiffe://cluster.local/ns/sluice-system/sa/sluice-serving")
        );
        assert_eq!(sender_id(""), None);
    }
}
