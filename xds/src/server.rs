//! The serving end of one ADS stream.

use std::collections::{BTreeSet, HashMap, VecDeque};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};
use prost::Message;

use crate::{Kind, ProtocolError, ResourceName, Resources, names, refusal::Nack};

/// Responses of one kind that may be on their way unanswered. Later changes wait, and only
/// their last state is sent: a slow client costs no memory.
const MAX_UNANSWERED: usize = 8;
/// Bytes of resources after which a response is closed and the rest goes into the next one, far
/// below the 4 MiB that gRPC clients take by default.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Most names that one response takes away.
const MAX_REMOVED: usize = MAX_RESPONSE_BYTES / names::MAX_LEN;
/// Most bytes of a version that a client may claim to hold; ours are shorter.
const MAX_VERSION: usize = 64;
/// Most bytes of the node's name that are kept.
const MAX_NODE: usize = 256;

/// What one stream may make the server keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most names subscribed to at a time, all kinds together.
    pub names: usize,
}

impl Default for Limits {
    /// 20,000 names: five for each of 4,000 ports; with all of them refused some 20 MB.
    fn default() -> Self {
        Self { names: 20_000 }
    }
}

/// A resource that the client refused and has not since got another version of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The resource.
    pub resource: ResourceName,
    /// The version refused; none: its removal was.
    pub version: Option<String>,
    /// The client's words.
    pub reason: String,
}

/// One ADS stream, seen from the server.
///
/// The owner calls [`handle_request`](Self::handle_request) for each message of the client and
/// [`changed`](Self::changed) when resources changed; after either, [`poll`](Self::poll) until
/// it has no more responses.
#[derive(Debug)]
pub struct ServerSession {
    limits: Limits,
    node: String,
    kinds: [Subscriptions; 4],
    subscribed: usize,
    nonce: u64,
}

/// State of one kind.
#[derive(Debug, Default)]
struct Subscriptions {
    /// Whether the client has sent a request of this kind.
    open: bool,
    names: HashMap<String, Subscription>,
    /// Names whose state has to be compared with what was told. In order, so that equal calls
    /// make equal messages.
    unchecked: BTreeSet<String>,
    unanswered: VecDeque<Unanswered>,
}

/// A response on its way.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    told: Vec<(String, Told)>,
}

#[derive(Debug, Default)]
struct Subscription {
    told: Told,
    acked: Option<String>,
    /// What was refused, and why.
    refused: Option<(Told, String)>,
}

/// What the client was told of a name last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Removed,
    Version(String),
}

impl ServerSession {
    /// A new stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            node: String::new(),
            kinds: Default::default(),
            subscribed: 0,
            nonce: 0,
        }
    }

    /// What the client calls itself: for logs, never proof of anything.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Takes in a message of the client.
    ///
    /// # Errors
    /// [`ProtocolError`] when the stream has to be closed.
    pub fn handle_request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), ProtocolError> {
        let kind = Kind::from_type_url(&request.type_url)?;
        if let Some(node) = request.node
            && self.node.is_empty()
        {
            self.node = node.id.chars().take(MAX_NODE).collect();
        }
        let kinds = &mut self.kinds[kind.index()];
        let first = !std::mem::replace(&mut kinds.open, true);
        let subscribe = request.resource_names_subscribe;
        // Empty means everything only in the first request of a kind; `*` always does.
        if (first && subscribe.is_empty()) || subscribe.iter().any(|name| name == "*") {
            return Err(ProtocolError::Wildcard(kind));
        }
        if !request.response_nonce.is_empty() {
            let nack = request.error_detail.as_ref().map(Nack::of);
            kinds.answered(&request.response_nonce, nack.as_ref());
        }
        for name in &request.resource_names_unsubscribe {
            if kinds.names.remove(name).is_some() {
                kinds.unchecked.remove(name);
                self.subscribed -= 1;
            }
        }
        let held = if first {
            request.initial_resource_versions
        } else {
            HashMap::new()
        };
        for name in subscribe {
            if name.len() > names::MAX_LEN {
                return Err(ProtocolError::NameTooLong(name.len()));
            }
            let known = self.kinds[kind.index()].subscribe(name, &held);
            self.subscribed += usize::from(!known);
            if self.subscribed > self.limits.names {
                return Err(ProtocolError::TooManyNames(self.limits.names));
            }
        }
        Ok(())
    }

    /// Says that these resources may have changed. Names nobody subscribed to cost nothing.
    pub fn changed<'a>(&mut self, resources: impl IntoIterator<Item = &'a ResourceName>) {
        for resource in resources {
            let kind = &mut self.kinds[resource.kind.index()];
            if kind.names.contains_key(&resource.name) {
                kind.unchecked.insert(resource.name.clone());
            }
        }
    }

    /// Says that anything may have changed.
    pub fn changed_all(&mut self) {
        for kind in &mut self.kinds {
            kind.unchecked.extend(kind.names.keys().cloned());
        }
    }

    /// The next response, if there is something to be said.
    pub fn poll(&mut self, resources: &impl Resources) -> Option<DeltaDiscoveryResponse> {
        for kind in Kind::ALL {
            if let Some(draft) = self.kinds[kind.index()].make(kind, resources) {
                return Some(self.send(kind, resources, draft));
            }
        }
        // What the client holds may still be named by something whose successor it has not
        // taken yet, or has on its way.
        if self.kinds.iter().any(|kind| !kind.unanswered.is_empty()) {
            return None;
        }
        for kind in Kind::ALL.into_iter().rev() {
            if let Some(draft) = self.kinds[kind.index()].take_away() {
                return Some(self.send(kind, resources, draft));
            }
        }
        None
    }

    /// The names that the client wants, of all kinds.
    pub fn subscriptions(&self) -> impl Iterator<Item = (Kind, &str)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let names = self.kinds[kind.index()].names.keys();
            names.map(move |name| (kind, name.as_str()))
        })
    }

    /// The version that the client has accepted last; none: nothing, or the removal.
    #[must_use]
    pub fn acked(&self, kind: Kind, name: &str) -> Option<&str> {
        self.kinds[kind.index()].names.get(name)?.acked.as_deref()
    }

    /// What the client refuses at present.
    pub fn rejections(&self) -> impl Iterator<Item = Rejection> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let names = self.kinds[kind.index()].names.iter();
            names.filter_map(move |(name, subscription)| {
                let (told, reason) = subscription.refused.as_ref()?;
                Some(Rejection {
                    resource: ResourceName::new(kind, name.as_str()),
                    version: told.version(),
                    reason: reason.clone(),
                })
            })
        })
    }

    /// Whether the client has answered everything that was sent to it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let quiet = |kind: &Subscriptions| kind.unanswered.is_empty() && kind.unchecked.is_empty();
        self.kinds.iter().all(quiet)
    }

    fn send(
        &mut self,
        kind: Kind,
        resources: &impl Resources,
        draft: Draft,
    ) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        self.kinds[kind.index()].sent(&nonce, &draft);
        DeltaDiscoveryResponse {
            system_version_info: resources.system_version(),
            resources: draft.resources,
            type_url: kind.type_url(),
            removed_resources: draft.removed,
            nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

/// A response to be sent; never empty.
#[derive(Debug, Default)]
struct Draft {
    resources: Vec<WireResource>,
    removed: Vec<String>,
}

impl Draft {
    fn filled(self) -> Option<Self> {
        let empty = self.resources.is_empty() && self.removed.is_empty();
        (!empty).then_some(self)
    }
}

impl Told {
    fn version(&self) -> Option<String> {
        match self {
            Self::Version(version) => Some(version.clone()),
            Self::Nothing | Self::Removed => None,
        }
    }
}

impl Subscriptions {
    /// Returns whether the name was subscribed to already. Who subscribes again has lost what
    /// it was sent, and gets an answer again.
    fn subscribe(&mut self, name: String, held: &HashMap<String, String>) -> bool {
        let held = held.get(&name).filter(|v| v.len() <= MAX_VERSION).cloned();
        let subscription = Subscription {
            told: held.clone().map_or(Told::Nothing, Told::Version),
            acked: held,
            refused: None,
        };
        self.unchecked.insert(name.clone());
        self.names.insert(name, subscription).is_some()
    }

    /// Resources that are new to the client, and names that turned out to be none.
    fn make(&mut self, kind: Kind, resources: &impl Resources) -> Option<Draft> {
        if self.unanswered.len() >= MAX_UNANSWERED {
            return None;
        }
        let mut draft = Draft::default();
        let mut bytes = 0;
        let mut checked = Vec::new();
        for name in &self.unchecked {
            let told = self.names.get(name).map(|s| &s.told);
            match (resources.get(kind, name), told) {
                (Some(now), Some(Told::Version(version))) if now.version == *version => {
                    checked.push(name.clone());
                }
                (None, Some(Told::Removed)) => checked.push(name.clone()),
                (None, Some(Told::Version(_))) => {}
                (None, _) => {
                    bytes += name.len();
                    draft.removed.push(name.clone());
                }
                (Some(now), _) => {
                    let resource = WireResource {
                        name: name.clone(),
                        version: now.version.clone(),
                        resource: Some(now.body.clone()),
                        ..WireResource::default()
                    };
                    bytes += resource.encoded_len();
                    draft.resources.push(resource);
                }
            }
            if bytes >= MAX_RESPONSE_BYTES {
                break;
            }
        }
        for name in checked {
            self.unchecked.remove(&name);
        }
        draft.filled()
    }

    /// What the client holds and is there no more. Only called when [`Self::make`] has left
    /// nothing else unchecked.
    fn take_away(&mut self) -> Option<Draft> {
        Draft {
            resources: Vec::new(),
            removed: self.unchecked.iter().take(MAX_REMOVED).cloned().collect(),
        }
        .filled()
    }

    fn sent(&mut self, nonce: &str, draft: &Draft) {
        let made = draft.resources.iter();
        let made = made.map(|r| (r.name.clone(), Told::Version(r.version.clone())));
        let removed = draft.removed.iter().map(|n| (n.clone(), Told::Removed));
        let told: Vec<_> = made.chain(removed).collect();
        for (name, told) in &told {
            self.unchecked.remove(name);
            if let Some(subscription) = self.names.get_mut(name) {
                subscription.told = told.clone();
            }
        }
        self.unanswered.push_back(Unanswered {
            nonce: nonce.to_owned(),
            told,
        });
    }

    /// Takes in an ACK or a NACK. An unknown nonce is one of a former stream: it means nothing.
    fn answered(&mut self, nonce: &str, nack: Option<&Nack>) {
        let Some(at) = self.unanswered.iter().position(|u| u.nonce == nonce) else {
            return;
        };
        let Some(answered) = self.unanswered.remove(at) else {
            return;
        };
        for (name, told) in answered.told {
            let Some(subscription) = self.names.get_mut(&name) else {
                continue;
            };
            match nack.and_then(|nack| nack.reason(&name)) {
                Some(reason) => subscription.refused = Some((told, reason.to_owned())),
                None => {
                    subscription.acked = told.version();
                    subscription.refused = None;
                }
            }
        }
    }
}
