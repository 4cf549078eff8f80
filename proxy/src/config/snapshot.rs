//! What the hot path reads: everything resolved, nothing left to look up but by listener name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use sluice_xds::{metadata::EndpointFacts, names::Arm};

use super::Usage;
use crate::evidence::Counters;

/// The configuration in force. Immutable: a change makes another one.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// By name, `outbound/HOST:PORT`.
    pub listeners: HashMap<String, Arc<Listener>>,
    /// Listeners that the control plane said do not exist.
    pub absent: HashSet<String>,
    /// `NAMESPACE/NAME` of each Service with a split, and the smallest fence that any of its
    /// ports routes by.
    pub applied: BTreeMap<String, i64>,
}

/// What is known of a destination.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// It is in force.
    Found(Arc<Listener>),
    /// It is no port of a Service.
    Absent,
    /// Nothing was said of it yet.
    Unknown,
}

impl Snapshot {
    /// What is known of the listener of this name.
    #[must_use]
    pub fn lookup(&self, listener: &str) -> Lookup {
        if let Some(found) = self.listeners.get(listener) {
            return Lookup::Found(found.clone());
        }
        if self.absent.contains(listener) {
            return Lookup::Absent;
        }
        Lookup::Unknown
    }

    /// Every endpoint address in use.
    #[must_use]
    pub fn addresses(&self) -> HashSet<SocketAddr> {
        self.listeners
            .values()
            .flat_map(|listener| listener.routes())
            .flat_map(|route| &route.branches)
            .flat_map(|branch| branch.cluster.endpoints.iter())
            .map(|endpoint| endpoint.address)
            .collect()
    }
}

/// One destination.
#[derive(Debug)]
pub struct Listener {
    /// How connections to it are served.
    pub mode: Mode,
    /// Whether there are any.
    pub usage: Arc<Usage>,
}

/// How connections to one destination are served.
#[derive(Debug)]
pub enum Mode {
    /// Every connection is HTTP.
    Http(Arc<Route>),
    /// Every connection is bytes.
    Tcp(Arc<Route>),
    /// The first bytes tell.
    Detect {
        /// For HTTP/1 and HTTP/2.
        http: Arc<Route>,
        /// For everything else, and for servers that speak first.
        tcp: Arc<Route>,
    },
}

impl Listener {
    /// The route for requests; none where only bytes are passed.
    #[must_use]
    pub fn http(&self) -> Option<&Arc<Route>> {
        match &self.mode {
            Mode::Http(http) | Mode::Detect { http, .. } => Some(http),
            Mode::Tcp(_) => None,
        }
    }

    /// The route for raw connections.
    #[must_use]
    pub fn tcp(&self) -> Option<&Arc<Route>> {
        match &self.mode {
            Mode::Tcp(tcp) | Mode::Detect { tcp, .. } => Some(tcp),
            Mode::Http(_) => None,
        }
    }

    /// All of them.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.http().into_iter().chain(self.tcp())
    }
}

/// Where requests or connections go.
#[derive(Debug)]
pub struct Route {
    /// One, or one for each arm. Never empty, and never all of weight 0.
    pub branches: Vec<Branch>,
    /// The split that the branches carry out.
    pub split: Option<Split>,
}

/// A weighted cluster of a route.
#[derive(Debug)]
pub struct Branch {
    /// Its share, relative to the sum over the route; 0 gets nothing.
    pub weight: u32,
    /// The arm of the split that it is.
    pub arm: Option<Arm>,
    /// Its endpoints.
    pub cluster: Arc<Cluster>,
}

/// The TrafficSplit that a route carries out.
#[derive(Debug)]
pub struct Split {
    /// Whether the candidate's weight ends when the control plane is out of reach.
    pub leased: bool,
    /// A request that runs longer is hung.
    pub hung_after: Option<Duration>,
    /// Where its requests are counted, under (service, revision, fence).
    pub counters: Arc<Counters>,
}

/// A set of endpoints of which any may answer.
#[derive(Debug)]
pub struct Cluster {
    /// Resource name.
    pub name: String,
    /// Host name, name and namespace of the Service, for metrics.
    pub service: ServiceName,
    /// HTTP/2 whatever the client speaks.
    pub http2: bool,
    /// Those that may get requests.
    pub endpoints: Arc<[Arc<Endpoint>]>,
}

/// The Service of a cluster in the words of Istio's labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// `NAME.NAMESPACE.svc.cluster.local`.
    pub host: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// One address that serves.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: SocketAddr,
    /// Whose it is.
    pub facts: EndpointFacts,
}
