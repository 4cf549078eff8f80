//! What is subscribed to, what came of it, what is in force. No I/O.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use sluice_evidence::v1::Rejection;
use sluice_xds::{ClientSession, Event, Held, Kind, ProtocolError, Refusal, ResourceName};
use tokio::time::Instant;

use crate::{
    config::{Change, Snapshot, Store},
    evidence::Evidence,
};

/// A name that is no Service is asked for anew after this time; else each address that was ever
/// called would be subscribed to for ever.
const ABSENT: Duration = Duration::from_secs(600);

/// Names that are remembered at most: an application that calls the whole internet must not use
/// up what a server allows one proxy. The oldest that are no Services go first.
const MAX_ASKED: usize = 4096;

/// The proxy's end of ADS: the protocol, and what the resources mean.
#[derive(Debug)]
pub struct Ads {
    session: ClientSession,
    store: Store,
    asked: HashMap<String, Instant>,
    refused: BTreeMap<ResourceName, String>,
}

impl Ads {
    /// Knows nothing and wants nothing.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self {
            session: ClientSession::new(node),
            store: Store::default(),
            asked: HashMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Somebody wants to go there.
    pub fn demand(&mut self, listener: &str) {
        if self.asked.len() >= MAX_ASKED && !self.asked.contains_key(listener) {
            let oldest = self.absent().min_by_key(|(_, asked)| **asked);
            let oldest: Vec<_> = oldest.map(|(name, _)| name.clone()).into_iter().collect();
            self.forget(&oldest);
        }
        self.asked.insert(listener.to_owned(), Instant::now());
        self.session.subscribe(Kind::Listener, [listener]);
    }

    /// Starts over on a new stream.
    pub fn reconnect(&mut self) {
        self.session.reconnect();
    }

    /// The next message for the server.
    pub fn poll_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.session.poll_request()
    }

    /// Takes a message in; whether anything may be different now.
    ///
    /// # Errors
    /// [`ProtocolError`]: the stream is of no use any more.
    pub fn handle(&mut self, response: DeltaDiscoveryResponse) -> Result<bool, ProtocolError> {
        let update = self.session.handle_response(response)?;
        let mut refusals = Vec::new();
        for event in &update.events {
            let (kind, name, change) = match event {
                Event::Upsert {
                    kind,
                    name,
                    resource,
                    ..
                } => (*kind, name, Change::Set(resource)),
                Event::Gone { kind, name } => (*kind, name, Change::Remove),
            };
            let id = ResourceName::new(kind, name);
            match self.store.apply(kind, name, change) {
                Ok(()) => {
                    self.refused.remove(&id);
                }
                Err(refused) => {
                    tracing::warn!(resource = %id, %refused, "refused");
                    refusals.push(Refusal::new(name, refused.to_string()));
                    self.refused.insert(id, refused.to_string());
                }
            }
        }
        if refusals.is_empty() {
            self.session.ack(update.verdict);
        } else {
            self.session.nack(update.verdict, &refusals);
        }
        self.settle();
        Ok(!update.events.is_empty())
    }

    /// Forgets old names that are no Services; whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let old: Vec<String> = self
            .absent()
            .filter(|(_, asked)| now.duration_since(**asked) >= ABSENT)
            .map(|(name, _)| name.clone())
            .collect();
        self.forget(&old);
        !old.is_empty()
    }

    /// Names that are no Services, and when they were asked for.
    fn absent(&self) -> impl Iterator<Item = (&String, &Instant)> {
        let is_absent = |name: &str| self.session.held(Kind::Listener, name) == Some(&Held::Absent);
        self.asked.iter().filter(move |(name, _)| is_absent(name))
    }

    fn forget(&mut self, listeners: &[String]) {
        for name in listeners {
            self.asked.remove(name);
            self.store.forget(name);
        }
        self.session.unsubscribe(Kind::Listener, listeners);
    }

    /// Brings into force what is complete, and wants what that needs.
    fn settle(&mut self) {
        self.store.settle();
        for kind in [Kind::Route, Kind::Cluster, Kind::Endpoints] {
            let wanted = self.store.wanted(kind);
            let unwanted: Vec<String> = self
                .session
                .subscriptions()
                .filter(|(of, name, _)| *of == kind && !wanted.contains(*name))
                .map(|(_, name, _)| name.to_owned())
                .collect();
            self.session.unsubscribe(kind, &unwanted);
            self.session.subscribe(kind, wanted);
        }
        let session = &self.session;
        self.refused
            .retain(|id, _| session.held(id.kind, &id.name).is_some());
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self, evidence: &Evidence) -> Snapshot {
        self.store.snapshot(|key| evidence.counters(key))
    }

    /// Listeners that wait for something.
    #[must_use]
    pub fn warming(&self) -> Vec<String> {
        self.store.warming()
    }

    /// What was refused and not accepted since.
    #[must_use]
    pub fn refused(&self) -> Vec<Rejection> {
        let refused = self.refused.iter().map(|(id, reason)| Rejection {
            type_url: id.kind.type_url(),
            name: id.name.clone(),
            reason: reason.clone(),
        });
        refused.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_application_that_calls_the_whole_internet_keeps_a_bounded_number_of_names() {
        let mut ads = Ads::new(Node::default());
        for number in 0..MAX_ASKED + 100 {
            let name = format!("outbound/203.0.113.9:{number}");
            ads.demand(&name);
            let known = ads.handle(DeltaDiscoveryResponse {
                type_url: Kind::Listener.type_url(),
                removed_resources: vec![name],
                nonce: number.to_string(),
                ..DeltaDiscoveryResponse::default()
            });
            assert!(known.is_ok_and(|changed| changed));
            while ads.poll_request().is_some() {}
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let snapshot = ads.snapshot(&Evidence::default());
        assert_eq!(snapshot.absent.len(), MAX_ASKED);
        let newest = format!("outbound/203.0.113.9:{}", MAX_ASKED + 99);
        assert!(snapshot.absent.contains(&newest));
        assert!(!snapshot.absent.contains("outbound/203.0.113.9:0"));
    }
}
