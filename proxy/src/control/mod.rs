//! The proxy's talk with the control plane, on the control thread.
//!
//! ```text
//!  demands ─▶ Ads (ClientSession + Store) ◀──ADS stream──▶ serving
//!                 └─▶ Shared.publish                          ▲
//!  Shared.evidence ─▶ report ─────────evidence stream─────────┘
//! ```
//!
//! Both streams share one connection, so that both reach the same replica. What ADS brings is
//! kept in the last-good file, and at a start is in force from there at once: whatever the
//! control plane says later supersedes it, and its silence cannot hold anybody up.

mod ads;
mod backoff;
mod channel;
mod keeper;
mod report;

use std::{
    convert::Infallible,
    future::{Future, pending},
    path::{Path, PathBuf},
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

use crate::{
    last_good::{self, Saved},
    lease,
    shared::{Shared, Status as Standing},
};
use backoff::Backoff;
use keeper::{Keeper, Wake};

/// Requests that wait for the stream.
const QUEUE: usize = 64;
/// Largest message that is taken.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How often names that are no Services are looked through for old ones.
const EXPIRE: Duration = Duration::from_secs(60);
/// How long something that does not become complete may hold up what is kept of the others.
/// Without a control plane nothing can become complete: then what is kept stays as it is.
const TRANSIT: Duration = Duration::from_secs(60);

/// What the talk is about.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane.
    pub target: Target,
    /// Who we are.
    pub node: Node,
    /// Listeners that are wanted whether they are used or not.
    pub always: Vec<String>,
    /// The last-good file; none: nothing is kept.
    pub last_good: Option<PathBuf>,
}

/// One end of the talk.
#[derive(Debug)]
pub struct Control {
    ads: Ads,
    shared: Arc<Shared>,
    target: Target,
    always: Vec<String>,
    keeper: Option<Keeper>,
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
    /// With what the last-good file holds in force. `leaving` turns true when the last evidence
    /// is to be sent. None: somebody else talks already.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        settings: Settings,
        leaving: watch::Receiver<bool>,
    ) -> Option<Self> {
        let mut control = Self {
            demands: shared.demands()?,
            ads: Ads::new(settings.node),
            shared,
            target: settings.target,
            always: settings.always,
            keeper: settings.last_good.clone().map(Keeper::new),
            leaving,
        };
        if let Some(path) = &settings.last_good {
            control.load(path);
        }
        control.want_always();
        Some(control)
    }

    fn load(&mut self, path: &Path) {
        let used = match last_good::read(path) {
            Ok(None) => return,
            Ok(Some(saved)) => self.resume(saved).map_err(|error| error.to_string()),
            Err(unusable) => Err(unusable.to_string()),
        };
        if let Err(reason) = used {
            tracing::warn!(
                "{} {reason}; starting without it: nothing is in force until the control plane answers",
                path.display()
            );
        }
    }

    fn resume(&mut self, saved: Saved) -> Result<(), ProtocolError> {
        let now_ms = last_good::now_ms();
        let (written_ms, contact_ms) = (saved.written_ms, saved.contact_ms);
        self.ads.resume(saved, now_ms)?;
        // A time to come is one of a clock that was wrong: nobody knows how long ago it was.
        let silence = now_ms.checked_sub(contact_ms).map(Duration::from_millis);
        let silence = silence.unwrap_or(lease::TERM);
        self.shared.lease.resume(silence);
        self.shared.set_last_good(written_ms);
        self.publish();
        tracing::info!(
            destinations = self.shared.snapshot.load().listeners.len(),
            written_seconds_ago = now_ms.saturating_sub(written_ms) / 1000,
            control_plane_heard_seconds_ago = silence.as_secs(),
            "what was in force before is in force again, until the control plane answers"
        );
        Ok(())
    }

    fn want_always(&mut self) {
        for name in &self.always {
            self.ads.demand(name);
        }
    }

    /// Talks until the process ends.
    pub async fn run(mut self) {
        self.talk().await;
        self.save_for_the_last_time().await;
    }

    async fn talk(&mut self) {
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
                wake = wake(&mut self.keeper, &self.shared) => self.keep(wake, false),
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
        if self.shared.lease.lapsed() {
            self.ads.doubt();
        }
        self.shared.lease.doubt(self.ads.is_in_doubt());
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
                    let handled = self.ads.handle(message?.ok_or(Ended::Closed)?)?;
                    self.shared.lease.doubt(self.ads.is_in_doubt());
                    if let Some(keeper) = self.keeper.as_mut().filter(|_| handled.changed) {
                        keeper.changed(handled.accepted);
                    }
                    handled.changed
                }
                Some(name) = self.demands.recv() => {
                    self.ads.demand(&name);
                    false
                }
                wake = wake(&mut self.keeper, &self.shared) => {
                    self.keep(wake, true);
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

    /// Does what the keeper wants.
    fn keep(&mut self, wake: Wake, connected: bool) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        match wake {
            Wake::Written(missing) => self.ads.ask_again(&missing),
            Wake::Due if self.ads.is_in_transit() && !(connected && keeper.waiting() > TRANSIT) => {
                keeper.postpone();
            }
            Wake::Due => self.save(),
        }
    }

    fn save(&mut self) {
        self.want_always();
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        let now_ms = last_good::now_ms();
        let silence = u64::try_from(self.shared.lease.silence().as_millis());
        let contact_ms = now_ms.saturating_sub(silence.unwrap_or(u64::MAX));
        keeper.retain(|name| self.ads.is_held(name));
        keeper.start(self.ads.keep(now_ms), now_ms, contact_ms);
    }

    /// With the times of now.
    async fn save_for_the_last_time(&mut self) {
        let shared = self.shared.clone();
        if let Some(keeper) = &mut self.keeper {
            keeper.written(&shared.metrics).await;
        }
        if !self.ads.is_in_transit() {
            self.save();
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.written(&shared.metrics).await;
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

/// Resolves when the keeper wants something; never without one.
async fn wake(keeper: &mut Option<Keeper>, shared: &Shared) -> Wake {
    match keeper {
        Some(keeper) => keeper.wake(&shared.metrics).await,
        None => pending().await,
    }
}

/// Resolves when we leave; never when nobody can say so any more.
async fn left(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|leaving| *leaving).await.is_err() {
        pending::<()>().await;
    }
}
