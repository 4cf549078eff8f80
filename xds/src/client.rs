//! The asking end of an ADS stream. It outlives streams: what it holds is kept over reconnects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    google::{protobuf::Any, rpc::Status},
};

use crate::{Kind, ProtocolError, Refusal, refusal::to_status};

/// What is known of a name that is subscribed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Held {
    /// No accepted answer yet.
    #[default]
    Unknown,
    /// It does not exist.
    Absent,
    /// It was accepted in this version.
    Version(String),
}

/// News of one resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is there, or has another content.
    Upsert {
        /// Its type.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// The message.
        resource: Any,
    },
    /// It does not exist, or does no more.
    Gone {
        /// Its type.
        kind: Kind,
        /// Its name.
        name: String,
    },
}

/// A response, to be judged with [`ClientSession::ack`] or [`ClientSession::nack`].
#[derive(Debug)]
#[must_use = "a response that is never answered holds back removals"]
pub struct Update {
    /// What it brings, only of names that are subscribed to.
    pub events: Vec<Event>,
    /// To be handed back with the judgement.
    pub verdict: Verdict,
}

/// What is being judged. It can be used once.
#[derive(Debug)]
pub struct Verdict {
    kind: Kind,
    stream: u64,
    nonce: String,
    news: Vec<(String, Held)>,
}

/// The subscriptions of one proxy.
///
/// The owner calls [`subscribe`](Self::subscribe) and [`unsubscribe`](Self::unsubscribe) as its
/// needs change, [`handle_response`](Self::handle_response) for each message, then `ack` or
/// `nack`; after any of them, [`poll_request`](Self::poll_request) until it has no more.
#[derive(Debug)]
pub struct ClientSession {
    node: Node,
    /// Whether a request of this stream has carried the node.
    introduced: bool,
    /// Number of this stream, so that a judgement of a former one is known.
    stream: u64,
    kinds: [Subscriptions; 4],
}

/// State of one kind.
#[derive(Debug, Default)]
struct Subscriptions {
    /// Whether this stream has seen the first request of this kind.
    open: bool,
    names: BTreeMap<String, Held>,
    /// Not told yet, besides the first request, which tells everything.
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    answers: VecDeque<(String, Option<Status>)>,
}

impl ClientSession {
    /// A session that has no subscriptions; `node` goes out in the first request of each stream.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self {
            node,
            introduced: false,
            stream: 0,
            kinds: Default::default(),
        }
    }

    /// Wants these names from now on. Those wanted already change nothing.
    pub fn subscribe<N: Into<String>>(&mut self, kind: Kind, names: impl IntoIterator<Item = N>) {
        let kind = &mut self.kinds[kind.index()];
        for name in names.into_iter().map(Into::into) {
            if kind.names.contains_key(&name) {
                continue;
            }
            // An unsubscription on its way may have made us drop an answer: asked again, the
            // server answers again.
            kind.unsubscribe.remove(&name);
            kind.subscribe.insert(name.clone());
            kind.names.insert(name, Held::Unknown);
        }
    }

    /// Wants these names no more, and forgets them.
    pub fn unsubscribe<N: AsRef<str>>(&mut self, kind: Kind, names: impl IntoIterator<Item = N>) {
        let kind = &mut self.kinds[kind.index()];
        for name in names {
            if kind.names.remove(name.as_ref()).is_some() {
                kind.subscribe.remove(name.as_ref());
                // A new stream's first request names what is wanted, and nothing else.
                if kind.open {
                    kind.unsubscribe.insert(name.as_ref().to_owned());
                }
            }
        }
    }

    /// What is known of a name; none: not subscribed to.
    #[must_use]
    pub fn held(&self, kind: Kind, name: &str) -> Option<&Held> {
        self.kinds[kind.index()].names.get(name)
    }

    /// All names subscribed to, and what is known of them.
    pub fn subscriptions(&self) -> impl Iterator<Item = (Kind, &str, &Held)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let names = self.kinds[kind.index()].names.iter();
            names.map(move |(name, held)| (kind, name.as_str(), held))
        })
    }

    /// Starts over on a new stream: nothing of the former one is answered any more, and what is
    /// held is told, so that only differences come.
    pub fn reconnect(&mut self) {
        self.stream += 1;
        self.introduced = false;
        for kind in &mut self.kinds {
            kind.open = false;
            kind.answers.clear();
        }
    }

    /// Takes in a message of the server.
    ///
    /// # Errors
    /// [`ProtocolError::UnknownType`] when it is about a type that was never asked for: connect
    /// again.
    pub fn handle_response(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> Result<Update, ProtocolError> {
        let kind = Kind::from_type_url(&response.type_url)?;
        let wanted = &self.kinds[kind.index()].names;
        let mut events = Vec::new();
        let mut news = Vec::new();
        for resource in response.resources {
            // Without a body it is the heartbeat of a TTL, which we do not ask for.
            let Some(body) = resource.resource else {
                continue;
            };
            if !wanted.contains_key(&resource.name) {
                continue;
            }
            news.push((
                resource.name.clone(),
                Held::Version(resource.version.clone()),
            ));
            events.push(Event::Upsert {
                kind,
                name: resource.name,
                version: resource.version,
                resource: body,
            });
        }
        for name in response.removed_resources {
            if !wanted.contains_key(&name) {
                continue;
            }
            news.push((name.clone(), Held::Absent));
            events.push(Event::Gone { kind, name });
        }
        let verdict = Verdict {
            kind,
            stream: self.stream,
            nonce: response.nonce,
            news,
        };
        Ok(Update { events, verdict })
    }

    /// Everything of the response is taken.
    pub fn ack(&mut self, verdict: Verdict) {
        self.judge(verdict, &[]);
    }

    /// These resources are refused, what was held of them stays; the others are taken.
    pub fn nack(&mut self, verdict: Verdict, refusals: &[Refusal]) {
        self.judge(verdict, refusals);
    }

    /// The next message for the server, if there is something to be said.
    pub fn poll_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| self.kinds[kind.index()].has_request())?;
        let node = (!self.introduced).then(|| self.node.clone());
        self.introduced = true;
        Some(DeltaDiscoveryRequest {
            node,
            type_url: kind.type_url(),
            ..self.kinds[kind.index()].request()
        })
    }

    fn judge(&mut self, verdict: Verdict, refusals: &[Refusal]) {
        let late = verdict.stream != self.stream;
        let kind = &mut self.kinds[verdict.kind.index()];
        for (name, news) in verdict.news {
            if refusals.iter().any(|refusal| refusal.name == name) {
                continue;
            }
            let Some(held) = kind.names.get_mut(&name) else {
                continue;
            };
            *held = news;
            if late {
                // This stream's server was told what we held before: let it answer anew.
                kind.subscribe.insert(name);
            }
        }
        if late {
            return;
        }
        let error = (!refusals.is_empty()).then(|| to_status(refusals));
        kind.answers.push_back((verdict.nonce, error));
    }
}

impl Subscriptions {
    fn has_request(&self) -> bool {
        if !self.open {
            return !self.names.is_empty();
        }
        !(self.answers.is_empty() && self.subscribe.is_empty() && self.unsubscribe.is_empty())
    }

    fn request(&mut self) -> DeltaDiscoveryRequest {
        let subscribe = std::mem::take(&mut self.subscribe);
        let unsubscribe = std::mem::take(&mut self.unsubscribe);
        if !self.open {
            self.open = true;
            return DeltaDiscoveryRequest {
                resource_names_subscribe: self.names.keys().cloned().collect(),
                initial_resource_versions: self.versions().collect(),
                ..DeltaDiscoveryRequest::default()
            };
        }
        let (response_nonce, error_detail) = self.answers.pop_front().unwrap_or_default();
        DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe.into_iter().collect(),
            resource_names_unsubscribe: unsubscribe.into_iter().collect(),
            response_nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn versions(&self) -> impl Iterator<Item = (String, String)> {
        self.names.iter().filter_map(|(name, held)| match held {
            Held::Version(version) => Some((name.clone(), version.clone())),
            Held::Unknown | Held::Absent => None,
        })
    }
}
