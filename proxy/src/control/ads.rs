//! What is subscribed to, what came of it, what is in force. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    },
    google::protobuf::Any,
};
use sluice_evidence::v1::Rejection;
use sluice_xds::{ClientSession, Event, Held, Kind, ProtocolError, Refusal, ResourceName, Update};
use tokio::time::Instant;

use crate::{
    config::{Change, Snapshot, Store},
    evidence::Evidence,
    last_good::{Destination, Saved},
};

/// A name that is no Service is asked for anew after this time; else each address that was ever
/// called would be subscribed to for ever.
const ABSENT: Duration = Duration::from_secs(600);

/// Names that are remembered at most: an application that calls the whole internet must not use
/// up what a server allows one proxy. The oldest that are no Services go first.
const MAX_ASKED: usize = 4096;

/// Each kind before those that its resources name.
const TOP_DOWN: [Kind; 4] = [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];

/// The proxy's end of ADS: the protocol, and what the resources mean.
#[derive(Debug)]
pub struct Ads {
    session: ClientSession,
    store: Store,
    asked: HashMap<String, Asked>,
    refused: BTreeMap<ResourceName, String>,
    /// Listeners with lapsed weights of which nothing was said since.
    doubted: BTreeSet<String>,
}

/// When a name was wanted.
#[derive(Debug)]
struct Asked {
    /// When it was asked for last.
    at: Instant,
    /// When there was last a connection to it, in milliseconds since 1970; none: since that was
    /// last looked at.
    used_ms: Option<u64>,
}

/// What came of a message.
#[derive(Debug)]
pub struct Handled {
    /// Whether anything may be different now.
    pub changed: bool,
    /// What was accepted, as it came.
    pub accepted: Vec<(Kind, Resource)>,
}

/// What is to be kept for a start without the control plane.
#[derive(Debug)]
pub struct Keep {
    /// Where applications want to go.
    pub destinations: Vec<Destination>,
    /// What these need, and in which version.
    pub resources: BTreeMap<ResourceName, String>,
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
            doubted: BTreeSet::new(),
        }
    }

    /// Somebody wants to go there.
    pub fn demand(&mut self, listener: &str) {
        if self.asked.len() >= MAX_ASKED && !self.asked.contains_key(listener) {
            let oldest = self.absent().min_by_key(|(_, asked)| asked.at);
            let oldest: Vec<_> = oldest.map(|(name, _)| name.clone()).into_iter().collect();
            self.forget(&oldest);
        }
        let asked = Asked {
            at: Instant::now(),
            used_ms: None,
        };
        self.asked.insert(listener.to_owned(), asked);
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

    /// Takes a message in.
    ///
    /// # Errors
    /// [`ProtocolError`]: the stream is of no use any more.
    pub fn handle(&mut self, response: DeltaDiscoveryResponse) -> Result<Handled, ProtocolError> {
        let Update { events, verdict } = self.session.handle_response(response)?;
        let changed = !events.is_empty();
        let mut accepted = Vec::new();
        let mut refusals = Vec::new();
        for event in events {
            let (id, news) = match event {
                Event::Upsert {
                    kind,
                    name,
                    version,
                    resource,
                } => (ResourceName::new(kind, name), Some((version, resource))),
                Event::Gone { kind, name } => (ResourceName::new(kind, name), None),
            };
            let change = news.as_ref().map(|(_, body)| Change::Set(body));
            let change = change.unwrap_or(Change::Remove);
            if let Err(refused) = self.store.apply(id.kind, &id.name, change) {
                tracing::warn!(resource = %id, %refused, "refused");
                refusals.push(Refusal::new(&id.name, refused.to_string()));
                self.refused.insert(id, refused.to_string());
                continue;
            }
            self.refused.remove(&id);
            accepted
                .extend(news.map(|(version, body)| (id.kind, resource(id.name, version, body))));
        }
        if refusals.is_empty() {
            self.session.ack(verdict);
        } else {
            self.session.nack(verdict, &refusals);
        }
        self.settle();
        Ok(Handled { changed, accepted })
    }

    /// Takes in what a former process kept, as if the control plane had just sent it. What was
    /// not used lately is left out.
    ///
    /// # Errors
    /// [`ProtocolError::UnknownType`]: nothing is taken in.
    pub fn resume(&mut self, saved: Saved, now_ms: u64) -> Result<(), ProtocolError> {
        let mut responses = TOP_DOWN.map(|kind| DeltaDiscoveryResponse {
            type_url: kind.type_url(),
            ..DeltaDiscoveryResponse::default()
        });
        for resource in saved.resources {
            let type_url = resource
                .resource
                .as_ref()
                .map(|body| body.type_url.as_str());
            let kind = Kind::from_type_url(type_url.unwrap_or_default())?;
            let at = TOP_DOWN.iter().position(|one| *one == kind);
            responses[at.unwrap_or_default()].resources.push(resource);
        }
        for destination in saved.destinations {
            if !destination.is_kept(now_ms) {
                continue;
            }
            self.demand(&destination.name);
            if let Some(asked) = self.asked.get_mut(&destination.name) {
                asked.used_ms = Some(destination.used_ms.min(now_ms));
            }
            if destination.absent {
                responses[0].removed_resources.push(destination.name);
            }
        }
        for response in responses {
            self.handle(response)?;
        }
        Ok(())
    }

    /// What a later process would need, at this time of the wall clock.
    pub fn keep(&mut self, now_ms: u64) -> Keep {
        let mut keep = Keep {
            destinations: Vec::new(),
            resources: BTreeMap::new(),
        };
        for (name, asked) in &mut self.asked {
            let used = self.store.take_used(name) || asked.used_ms.is_none();
            let used_ms = asked.used_ms.filter(|_| !used).unwrap_or(now_ms);
            asked.used_ms = Some(used_ms);
            let destination = Destination {
                name: name.clone(),
                used_ms,
                absent: self.session.held(Kind::Listener, name) == Some(&Held::Absent),
            };
            let needs = self.store.needs(name);
            if !destination.is_kept(now_ms) || (needs.is_empty() && !destination.absent) {
                continue;
            }
            for id in needs {
                if let Some(Held::Version(version)) = self.session.held(id.kind, &id.name) {
                    keep.resources.insert(id, version.clone());
                }
            }
            keep.destinations.push(destination);
        }
        keep
    }

    /// Whether anything in force waits to be replaced by what came later.
    #[must_use]
    pub fn is_in_transit(&self) -> bool {
        self.store.is_in_transit() || !self.doubted.is_empty()
    }

    /// Doubts the weights of unpromoted arms: wants them to be sent again.
    pub fn doubt(&mut self) {
        self.doubted = self.store.leased();
        let needs = self.doubted.iter().flat_map(|name| self.store.needs(name));
        let placing: Vec<_> = needs.filter(places).collect();
        self.ask_again(&placing);
    }

    /// Whether there are weights that are doubted and were not sent since.
    pub fn is_in_doubt(&mut self) -> bool {
        let mut doubted = std::mem::take(&mut self.doubted);
        doubted.retain(|name| {
            let mut needs = self.store.needs(name).into_iter().filter(places);
            self.store.is_waiting(name) || needs.any(|id| !self.is_held(&id))
        });
        self.doubted = doubted;
        !self.doubted.is_empty()
    }

    /// Whether there is a version of it.
    #[must_use]
    pub fn is_held(&self, id: &ResourceName) -> bool {
        matches!(self.session.held(id.kind, &id.name), Some(Held::Version(_)))
    }

    /// Wants these to be sent again, whatever version is held.
    pub fn ask_again(&mut self, resources: &[ResourceName]) {
        for id in resources {
            if self.session.held(id.kind, &id.name).is_some() {
                self.session.unsubscribe(id.kind, [&id.name]);
                self.session.subscribe(id.kind, [&id.name]);
            }
        }
    }

    /// Forgets old names that are no Services; whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let old: Vec<String> = self
            .absent()
            .filter(|(_, asked)| now.duration_since(asked.at) >= ABSENT)
            .map(|(name, _)| name.clone())
            .collect();
        self.forget(&old);
        !old.is_empty()
    }

    /// Names that are no Services, and when they were asked for.
    fn absent(&self) -> impl Iterator<Item = (&String, &Asked)> {
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

/// Whether it says where requests go.
fn places(id: &ResourceName) -> bool {
    matches!(id.kind, Kind::Listener | Kind::Route)
}

fn resource(name: String, version: String, body: Any) -> Resource {
    Resource {
        name,
        version,
        resource: Some(body),
        ..Resource::default()
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
            assert!(known.is_ok_and(|handled| handled.changed));
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
