//! Tells the leader what this replica's proxies said, and hears of its ejects.
//!
//! ```text
//!  Lease ──watch──▶ address ─▶ dial (mTLS) ─▶ whole table, then changes at once, else each second
//!                      ▲                          │
//!                      └──── backoff ◀── leading: false, error, or another address
//! ```

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use sluice_evidence::relay::{Table, relay_client::RelayClient};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::{info, warn};

use crate::{
    backoff::Backoff,
    context::Context,
    lease,
    serving::Hub,
    tls::{self, Certs},
};

/// An empty message at least this often, so that the leader knows that we are there.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Least time between two messages; a change that comes alone does not wait.
const GAP: Duration = Duration::from_millis(10);
/// The longest wait before the leader is looked for again.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Why a stream to a leader ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it does not lead any more")]
    NotLeading,
    #[error("the Lease names another address")]
    Moved,
    #[error("it closed the stream")]
    Closed,
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Failed(#[from] tonic::Status),
}

/// How a leader is reached.
pub trait Dial: Send + 'static {
    /// A channel to the leader at this address.
    fn dial(&self, address: SocketAddr) -> impl Future<Output = Result<Channel, String>> + Send;
}

/// Mutual TLS with the role's own certificate.
pub struct MutualTls {
    certs: watch::Receiver<Option<Arc<Certs>>>,
    name: String,
}

impl MutualTls {
    /// The leader's certificate must carry the controller's name of this namespace.
    #[must_use]
    pub fn new(certs: watch::Receiver<Option<Arc<Certs>>>, namespace: &str) -> Self {
        Self {
            certs,
            name: format!("sluice-controller.{namespace}.svc"),
        }
    }
}

impl Dial for MutualTls {
    async fn dial(&self, address: SocketAddr) -> Result<Channel, String> {
        let config = self
            .certs
            .borrow()
            .as_ref()
            .map(|certs| certs.client_config());
        let config = config.ok_or("our own certificate is not there yet")?;
        tls::connect(address, &self.name, config)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Follows the leader's address in the Lease's annotation.
#[must_use]
pub fn find_leader(
    context: &Context,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Option<SocketAddr>> {
    let (publish, receiver) = watch::channel(None);
    let api = Api::<Lease>::namespaced(context.client.clone(), &context.pod.namespace);
    tasks.spawn(async move {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", lease::NAME));
        let mut leases = watcher(api, config)
            .backoff(Backoff::default())
            .touched_objects()
            .inspect_err(|error| warn!(%error, "watch of the Lease failed; it is tried again"))
            .filter_map(async |lease| lease.ok())
            .boxed();
        while let Some(lease) = leases.next().await {
            let address = lease.annotations().get(lease::RELAY_ADDRESS);
            let address = address.and_then(|address| address.parse().ok());
            publish.send_if_modified(|held| {
                let moved = *held != address;
                *held = address;
                moved
            });
        }
    });
    receiver
}

/// Shares the hub's table with whoever leads, for ever.
pub async fn run(hub: Arc<Hub>, mut leader: watch::Receiver<Option<SocketAddr>>, dial: impl Dial) {
    let mut backoff = Backoff::up_to(LONGEST_WAIT);
    loop {
        let Some(address) = *leader.borrow_and_update() else {
            if leader.changed().await.is_err() {
                return;
            }
            continue;
        };
        let started = Instant::now();
        let ended = share(&hub, address, &mut leader, &dial).await;
        info!(%address, reason = %ended, "relay to the leader ended");
        // Whoever served for a while is worth a quick try.
        if started.elapsed() > LONGEST_WAIT {
            backoff.reset();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            moved = leader.changed() => {
                if moved.is_err() {
                    return;
                }
                backoff.reset();
            }
        }
    }
}

async fn share(
    hub: &Hub,
    address: SocketAddr,
    leader: &mut watch::Receiver<Option<SocketAddr>>,
    dial: &impl Dial,
) -> Ended {
    let channel = match dial.dial(address).await {
        Ok(channel) => channel,
        Err(why) => return Ended::Unreachable(why),
    };
    let (tables, receiver) = mpsc::channel(4);
    let mut changes = hub.table_changes();
    let mut told = 0;
    let mut client = RelayClient::new(channel);
    // The whole table goes out while the leader's first word is waited for.
    let (first, acks) = tokio::join!(
        send(hub, &tables, &mut told),
        client.share(ReceiverStream::new(receiver)),
    );
    let mut acks = match (first, acks) {
        (_, Err(status)) => return status.into(),
        (Err(ended), _) => return ended,
        (Ok(()), Ok(acks)) => acks.into_inner(),
    };
    info!(%address, "relay to the leader stands");
    let mut sent = Instant::now();
    loop {
        tokio::select! {
            ack = acks.message() => match ack {
                Ok(Some(ack)) => {
                    // Whoever told them: they only take weight away, up to their fence.
                    hub.eject(&ack.ejects);
                    if !ack.leading {
                        return Ended::NotLeading;
                    }
                }
                Ok(None) => return Ended::Closed,
                Err(status) => return status.into(),
            },
            () = next(&mut changes, sent) => {
                if let Err(ended) = send(hub, &tables, &mut told).await {
                    return ended;
                }
                sent = Instant::now();
            }
            _ = leader.changed() => return Ended::Moved,
        }
    }
}

/// Returns when the next message is due: at a change, but not too close to the last message; at
/// the latest when a keep-alive is.
async fn next(changes: &mut watch::Receiver<()>, sent: Instant) {
    tokio::select! {
        _ = changes.changed() => tokio::time::sleep_until(sent + GAP).await,
        () = tokio::time::sleep_until(sent + KEEPALIVE) => {}
    }
}

/// Sends what changed since `told` (0: the whole, and in one message: the leader counts the
/// first as such); an empty one when nothing did.
async fn send(hub: &Hub, tables: &mpsc::Sender<Table>, told: &mut u64) -> Result<(), Ended> {
    let (proxies, sequence) = hub.outgoing(*told);
    let table = Table {
        replica: hub.replica().to_owned(),
        proxies,
        ejects: hub.ejects(),
    };
    tables.send(table).await.map_err(|_| Ended::Closed)?;
    *told = sequence;
    Ok(())
}
