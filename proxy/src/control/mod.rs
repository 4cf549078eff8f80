//! The proxy's talk with the control plane, on the control thread.
//!
//! ```text
//!  demands ─▶ Ads (ClientSession + Store) ◀──ADS stream──▶ serving
//!                 └─▶ Shared.publish                          ▲
//!  Shared.evidence ─▶ report ─────────evidence stream─────────┘
//! ```
//!
//! Both streams share one connection, so that both reach the same replica.

mod ads;
mod backoff;
mod channel;
mod report;

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use sluice_xds::ProtocolError;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub use ads::Ads;
pub use channel::{ConnectError, Target};
pub use report::Reporter;

use crate::shared::{Shared, Status as Standing};
use backoff::Backoff;

/// Requests that wait for the stream.
const QUEUE: usize = 64;
/// Largest message that is taken.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How often names that are no Services are looked through for old ones.
const EXPIRE: Duration = Duration::from_secs(60);

/// Talks until the process ends. `leaving` turns true when the last evidence is to be sent.
pub async fn run(shared: Arc<Shared>, target: Target, node: Node, leaving: watch::Receiver<bool>) {
    let Some(demands) = shared.demands() else {
        return;
    };
    let control = Control {
        ads: Ads::new(node),
        shared,
        target,
        demands,
        leaving,
    };
    control.run().await;
}

struct Control {
    ads: Ads,
    shared: Arc<Shared>,
    target: Target,
    demands: mpsc::Receiver<String>,
    leaving: watch::Receiver<bool>,
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane has closed the stream")]
    Closed,
    #[error("the stream broke: {0}")]
    Stream(#[from] Status),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("leaving")]
    Left,
}

/// Ends a task with its owner.
struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Control {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let start = Instant::now();
            let Err(ended) = self.session().await;
            self.shared.set_contact(false);
            if let Ended::Left = ended {
                return;
            }
            tracing::warn!(error = %ended, "no control plane; what is in force goes on serving");
            if start.elapsed() > backoff::STEADY {
                backoff.reset();
            }
            if self.meanwhile(sleep(backoff.next())).await.is_err() {
                return;
            }
        }
    }

    /// Waits for something while demands are still taken in.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Result<F::Output, Ended> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Ok(output),
                Some(name) = self.demands.recv() => self.ads.demand(&name),
                () = left(&mut self.leaving) => return Err(Ended::Left),
            }
        }
    }

    /// One connection, until it breaks.
    async fn session(&mut self) -> Result<Infallible, Ended> {
        let (channel, token) = self.meanwhile(self.target.clone().connect()).await??;
        let (requests, queue) = mpsc::channel(QUEUE);
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let opening = token.request(ReceiverStream::new(queue));
        self.ads.reconnect();
        let opening = client.delta_aggregated_resources(opening);
        let mut responses = self.meanwhile(opening).await??.into_inner();
        self.shared.set_contact(true);
        let reporter = report::run(self.shared.clone(), channel, token, self.leaving.clone());
        let mut reporter = Guard(tokio::spawn(reporter));
        let mut expire = interval(EXPIRE);
        expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(request) = self.ads.poll_request() {
                requests.send(request).await.map_err(|_| Ended::Closed)?;
            }
            let changed = tokio::select! {
                message = responses.message() => {
                    self.ads.handle(message?.ok_or(Ended::Closed)?)?
                }
                Some(name) = self.demands.recv() => {
                    self.ads.demand(&name);
                    false
                }
                _ = expire.tick() => self.ads.expire(Instant::now()),
                _ = &mut reporter.0 => return Err(Ended::Left),
            };
            if changed {
                self.publish();
            }
        }
    }

    fn publish(&self) {
        self.shared.status.store(Arc::new(Standing {
            warming: self.ads.warming(),
            refused: self.ads.refused(),
        }));
        self.shared
            .publish(self.ads.snapshot(&self.shared.evidence));
    }
}

/// Resolves when we leave; never when nobody can say so any more.
async fn left(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|leaving| *leaving).await.is_err() {
        pending::<()>().await;
    }
}
