//! What all threads of the process have in common: the snapshot, and a few atomics around it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderName;
use parking_lot::Mutex;
use sluice_evidence::v1::Rejection;
use sluice_xds::metadata::EndpointFacts;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use crate::{
    config::{Lookup, Snapshot},
    drain::Drain,
    evidence::Evidence,
    last_good,
    lease::Lease,
    metrics::Metrics,
    sources::Sources,
};

/// How long a connection to an unknown destination waits for the control plane's word, and how
/// long the control plane may be away before nobody waits any more.
pub const RESOLVE: Duration = Duration::from_secs(2);

/// Names that may wait to be asked for.
const DEMANDS: usize = 1024;

/// Shared by the control thread and all workers.
#[derive(Debug)]
pub struct Shared {
    /// What is in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// What was seen.
    pub evidence: Evidence,
    /// Who came to the application.
    pub sources: Sources,
    /// Counters for people.
    pub metrics: Metrics,
    /// Whether leased weights hold.
    pub lease: Lease,
    /// Whether we are leaving.
    pub drain: Drain,
    /// Who we are, in metrics.
    pub own: EndpointFacts,
    /// What is not in force, and why.
    pub status: ArcSwap<Status>,
    /// Response header that names the pod that answered; set at start, where asked for.
    pub answered_by: OnceLock<HeaderName>,
    /// When the process started, in milliseconds since 1970.
    pub started_ms: u64,
    contact: watch::Sender<Contact>,
    published: watch::Sender<u64>,
    demands: mpsc::Sender<String>,
    demanded: Mutex<Option<mpsc::Receiver<String>>>,
}

/// What the control plane sent and is not in force.
#[derive(Debug, Default)]
pub struct Status {
    /// Listeners that wait for something they name.
    pub warming: Vec<String>,
    /// What was refused and not accepted since.
    pub refused: Vec<Rejection>,
}

/// Whether the control plane answers.
#[derive(Debug, Clone, Copy)]
pub enum Contact {
    /// There is a stream.
    Present,
    /// There is none, since then.
    Away(Instant),
}

impl Shared {
    /// Nothing in force yet.
    #[must_use]
    pub fn new(own: EndpointFacts) -> Arc<Self> {
        let (demands, demanded) = mpsc::channel(DEMANDS);
        Arc::new(Self {
            snapshot: ArcSwap::default(),
            evidence: Evidence::default(),
            sources: Sources::default(),
            metrics: Metrics::new(own.clone()),
            lease: Lease::default(),
            drain: Drain::default(),
            own,
            status: ArcSwap::default(),
            answered_by: OnceLock::new(),
            started_ms: last_good::now_ms(),
            contact: watch::Sender::new(Contact::Away(Instant::now())),
            published: watch::Sender::new(0),
            demands,
            demanded: Mutex::new(Some(demanded)),
        })
    }

    /// Brings a snapshot into force.
    pub fn publish(&self, snapshot: Snapshot) {
        let listeners = i64::try_from(snapshot.listeners.len());
        self.metrics.listeners.set(listeners.unwrap_or(i64::MAX));
        self.snapshot.store(Arc::new(snapshot));
        self.published.send_modify(|version| *version += 1);
    }

    /// To be told when another snapshot is in force.
    pub fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// The names that are asked for; whoever takes them first has them all.
    pub fn demands(&self) -> Option<mpsc::Receiver<String>> {
        self.demanded.lock().take()
    }

    /// Notes whether the control plane answers.
    pub fn set_contact(&self, present: bool) {
        self.metrics.connected.set(i64::from(present));
        if present {
            // From here on it says what is different.
            self.metrics.last_good.set(0);
        }
        self.contact
            .send_modify(|contact| match (present, *contact) {
                (true, _) => *contact = Contact::Present,
                (false, Contact::Present) => *contact = Contact::Away(Instant::now()),
                (false, Contact::Away(_)) => {}
            });
    }

    /// Notes that what is in force was read from disk, and when it was written.
    pub fn set_last_good(&self, written_ms: u64) {
        let seconds = i64::try_from(written_ms / 1000);
        self.metrics.last_good.set(seconds.unwrap_or(i64::MAX));
    }

    /// While what is in force was read from disk: when that was written, in seconds since 1970.
    #[must_use]
    pub fn last_good(&self) -> Option<i64> {
        Some(self.metrics.last_good.get()).filter(|written| *written != 0)
    }

    /// Resolves once the control plane has answered for the first time.
    pub async fn contacted(&self) {
        let mut contact = self.contact.subscribe();
        let present = |contact: &Contact| matches!(contact, Contact::Present);
        let _ = contact.wait_for(present).await;
    }

    /// What is known of a destination; an unknown one is asked for and waited for, unless the
    /// control plane has been away for too long to hope.
    pub async fn resolve(&self, listener: &str) -> Lookup {
        let mut published = self.published();
        let known = self.snapshot.load().lookup(listener);
        if !matches!(known, Lookup::Unknown) {
            return known;
        }
        self.demand(listener);
        let wait = match *self.contact.borrow() {
            Contact::Present => RESOLVE,
            Contact::Away(since) => RESOLVE.saturating_sub(since.elapsed()),
        };
        let answer = async {
            while published.changed().await.is_ok() {
                let known = self.snapshot.load().lookup(listener);
                if !matches!(known, Lookup::Unknown) {
                    return known;
                }
            }
            Lookup::Unknown
        };
        let found = timeout(wait, answer).await.unwrap_or(Lookup::Unknown);
        if let Lookup::Unknown = found {
            self.metrics.unknown.inc();
        }
        found
    }

    /// Asks for a destination without waiting. With too many waiting already it is asked for
    /// the next time.
    pub fn demand(&self, listener: &str) {
        let _ = self.demands.try_send(listener.to_owned());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NAME: &str = "outbound/10.96.0.1:80";

    #[tokio::test(start_paused = true)]
    async fn an_unknown_destination_is_asked_for_and_waited_for() {
        let shared = Shared::new(EndpointFacts::default());
        shared.set_contact(true);
        let mut demands = shared.demands().unwrap();
        let answer = async {
            assert_eq!(demands.recv().await.unwrap(), NAME);
            shared.publish(Snapshot::default());
            let absent = [NAME.to_owned()].into();
            shared.publish(Snapshot {
                absent,
                ..Snapshot::default()
            });
        };
        let (known, ()) = tokio::join!(shared.resolve(NAME), answer);
        assert!(matches!(known, Lookup::Absent));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_it_stays_unknown_after_two_seconds_and_at_once_when_away() {
        let shared = Shared::new(EndpointFacts::default());
        shared.set_contact(true);
        let start = Instant::now();
        assert!(matches!(shared.resolve(NAME).await, Lookup::Unknown));
        assert_eq!(start.elapsed().as_secs(), 2);

        shared.set_contact(false);
        tokio::time::advance(RESOLVE).await;
        let start = Instant::now();
        assert!(matches!(shared.resolve(NAME).await, Lookup::Unknown));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(shared.metrics.unknown.get(), 2);
    }
}
