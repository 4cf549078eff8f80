//! The resources as they came, and which of them are in force.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::{
    envoy::config::{
        cluster::v3::Cluster as ClusterMessage, endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener as ListenerMessage, route::v3::RouteConfiguration,
    },
    google::protobuf::Any,
};
use sluice_xds::{Kind, ResourceName, unpack};

use super::{
    parse::{self, ClusterSpec, ListenerSpec, Refused, RouteSpec},
    snapshot::{Branch, Cluster, Endpoint, Listener, Mode, Route, Snapshot, Split},
    usage::Usage,
};
use crate::evidence::{Counters, Key};

/// One change that the control plane sent.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// The resource is this now.
    Set(&'a Any),
    /// There is none of this name.
    Remove,
}

/// Resources of all kinds. Pure: the same changes give the same snapshot.
///
/// **Warming.** A listener, or a new version of its route, comes into force when everything it
/// names is there; until then the former one serves. What the one in force needs is kept,
/// although the control plane may have taken it away.
#[derive(Debug, Default)]
pub struct Store {
    listeners: HashMap<String, ListenerSpec>,
    absent: HashSet<String>,
    routes: HashMap<String, Arc<RouteSpec>>,
    clusters: HashMap<String, ClusterSpec>,
    endpoints: HashMap<String, Arc<[Arc<Endpoint>]>>,
    in_force: HashMap<String, Active>,
}

/// A listener in force.
#[derive(Debug)]
struct Active {
    force: Force,
    usage: Arc<Usage>,
}

/// What serves a listener.
#[derive(Debug, Clone, PartialEq)]
enum Force {
    Http(Arc<RouteSpec>),
    Tcp(Arc<RouteSpec>),
    Detect {
        http: Arc<RouteSpec>,
        tcp: Arc<RouteSpec>,
    },
}

impl Force {
    fn routes(&self) -> impl Iterator<Item = &Arc<RouteSpec>> {
        let (first, second) = match self {
            Self::Http(route) | Self::Tcp(route) => (route, None),
            Self::Detect { http, tcp } => (http, Some(tcp)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Store {
    /// Takes one change in. It comes into force with [`Self::settle`].
    ///
    /// # Errors
    /// [`Refused`], with the reason; the former version of the resource stays.
    pub fn apply(&mut self, kind: Kind, name: &str, change: Change<'_>) -> Result<(), Refused> {
        match change {
            Change::Set(body) => self.set(kind, name, body),
            Change::Remove => {
                self.remove(kind, name);
                Ok(())
            }
        }
    }

    fn set(&mut self, kind: Kind, name: &str, body: &Any) -> Result<(), Refused> {
        let refused = |error: sluice_xds::UnpackError| Refused(error.to_string());
        match kind {
            Kind::Listener => {
                let message: ListenerMessage = unpack(body).map_err(refused)?;
                let spec = parse::listener(&message)?;
                self.absent.remove(name);
                self.listeners.insert(name.to_owned(), spec);
            }
            Kind::Route => {
                let message: RouteConfiguration = unpack(body).map_err(refused)?;
                let spec = Arc::new(parse::route(&message)?);
                self.routes.insert(name.to_owned(), spec);
            }
            Kind::Cluster => {
                let message: ClusterMessage = unpack(body).map_err(refused)?;
                let spec = parse::cluster(&message)?;
                self.clusters.insert(name.to_owned(), spec);
            }
            Kind::Endpoints => {
                let message: ClusterLoadAssignment = unpack(body).map_err(refused)?;
                let parsed = parse::endpoints(&message)?;
                self.endpoints.insert(name.to_owned(), parsed);
            }
        }
        Ok(())
    }

    /// Only a listener is taken away on demand. The others go when nothing needs them any more,
    /// so that no removal can take the ground from under what is in force.
    fn remove(&mut self, kind: Kind, name: &str) {
        if kind == Kind::Listener {
            self.listeners.remove(name);
            self.absent.insert(name.to_owned());
        }
    }

    /// Forgets what was said of a listener that is not subscribed to any more.
    pub fn forget(&mut self, listener: &str) {
        self.listeners.remove(listener);
        self.absent.remove(listener);
    }

    /// Brings into force what is complete, and drops what nothing needs.
    pub fn settle(&mut self) {
        self.in_force
            .retain(|name, _| self.listeners.contains_key(name));
        let mut changed = Vec::new();
        for (name, spec) in &self.listeners {
            let former = self.in_force.get(name).map(|active| &active.force);
            if let Some(force) = self.force(spec, former)
                && former != Some(&force)
            {
                changed.push((name.clone(), force));
            }
        }
        for (name, force) in changed {
            match self.in_force.get_mut(&name) {
                Some(active) => active.force = force,
                None => {
                    let usage = Arc::default();
                    self.in_force.insert(name, Active { force, usage });
                }
            }
        }

        let routes = self.wanted(Kind::Route);
        self.routes.retain(|name, _| routes.contains(name));
        let clusters = self.wanted(Kind::Cluster);
        self.clusters.retain(|name, _| clusters.contains(name));
        let endpoints = self.wanted(Kind::Endpoints);
        self.endpoints.retain(|name, _| endpoints.contains(name));
    }

    /// What may serve a listener now: of each of its parts the newest that is complete. None
    /// when there is a part of which no version is.
    fn force(&self, spec: &ListenerSpec, former: Option<&Force>) -> Option<Force> {
        let newest = |route: Option<&Arc<RouteSpec>>, former: Option<&Arc<RouteSpec>>| {
            let complete = route.filter(|route| self.is_complete(route));
            complete.or(former).cloned()
        };
        let http = |name: &String, former| newest(self.routes.get(name), former);
        match (spec, former) {
            (ListenerSpec::Http(name), Some(Force::Http(former))) => {
                http(name, Some(former)).map(Force::Http)
            }
            (ListenerSpec::Http(name), _) => http(name, None).map(Force::Http),
            (ListenerSpec::Tcp(tcp), Some(Force::Tcp(former))) => {
                newest(Some(tcp), Some(former)).map(Force::Tcp)
            }
            (ListenerSpec::Tcp(tcp), _) => newest(Some(tcp), None).map(Force::Tcp),
            (ListenerSpec::Detect { http: name, tcp }, former) => {
                let (old_http, old_tcp) = match former {
                    Some(Force::Detect { http, tcp }) => (Some(http), Some(tcp)),
                    _ => (None, None),
                };
                Some(Force::Detect {
                    http: http(name, old_http)?,
                    tcp: newest(Some(tcp), old_tcp)?,
                })
            }
        }
    }

    fn is_complete(&self, route: &RouteSpec) -> bool {
        route.branches.iter().all(|branch| {
            let cluster = self.clusters.get(&branch.cluster);
            cluster.is_some_and(|cluster| self.endpoints.contains_key(&cluster.endpoints))
        })
    }

    /// Names of a kind that are needed, by what is in force or by what waits to be. Of
    /// listeners: those that are known; which are wanted is the caller's business.
    #[must_use]
    pub fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        match kind {
            Kind::Listener => self.listeners.keys().cloned().collect(),
            Kind::Route => self.listeners.values().filter_map(route_name).collect(),
            Kind::Cluster => self.cluster_names(),
            Kind::Endpoints => {
                let names = self.cluster_names().into_iter();
                let endpoints = names.map(|name| {
                    let cluster = self.clusters.get(&name);
                    cluster.map_or(name, |cluster| cluster.endpoints.clone())
                });
                endpoints.collect()
            }
        }
    }

    fn cluster_names(&self) -> BTreeSet<String> {
        let newest = self.listeners.values().flat_map(|spec| self.newest(spec));
        let in_force = self.in_force.values();
        newest
            .chain(in_force.flat_map(|active| active.force.routes()))
            .flat_map(|route| &route.branches)
            .map(|branch| branch.cluster.clone())
            .collect()
    }

    /// What is in force, resolved. `counters` gives the counters of a split; the same ones for
    /// the same key.
    pub fn snapshot(&self, mut counters: impl FnMut(&Key) -> Arc<Counters>) -> Snapshot {
        let mut builder = Builder {
            store: self,
            clusters: HashMap::new(),
            applied: BTreeMap::new(),
            counters: &mut counters,
        };
        let mut listeners = HashMap::new();
        for (name, active) in &self.in_force {
            listeners.insert(name.clone(), Arc::new(builder.listener(active)));
        }
        Snapshot {
            listeners,
            absent: self.absent.clone(),
            applied: builder.applied,
        }
    }

    /// Listeners that wait for something, for people who debug.
    #[must_use]
    pub fn warming(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .listeners
            .iter()
            .filter(|(name, spec)| !self.in_force.contains_key(*name) || self.waits(spec))
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }

    /// Whether the newest version of a listener is not complete.
    fn waits(&self, spec: &ListenerSpec) -> bool {
        let has_route = route_name(spec).is_none_or(|name| self.routes.contains_key(&name));
        !has_route || self.newest(spec).any(|route| !self.is_complete(route))
    }

    /// The newest version of the routes of a listener.
    fn newest<'a>(&'a self, spec: &'a ListenerSpec) -> impl Iterator<Item = &'a Arc<RouteSpec>> {
        let tcp = match spec {
            ListenerSpec::Tcp(tcp) | ListenerSpec::Detect { tcp, .. } => Some(tcp),
            ListenerSpec::Http(_) => None,
        };
        let http = route_name(spec).and_then(|name| self.routes.get(&name));
        tcp.into_iter().chain(http)
    }

    /// Whether anything in force waits to be replaced by what came later.
    #[must_use]
    pub fn is_in_transit(&self) -> bool {
        self.in_force.keys().any(|name| self.is_waiting(name))
    }

    /// Whether a listener waits to be replaced by what came later.
    #[must_use]
    pub fn is_waiting(&self, listener: &str) -> bool {
        let spec = self.listeners.get(listener);
        spec.is_some_and(|spec| self.waits(spec))
    }

    /// Listeners in force that have weight on an unpromoted arm.
    #[must_use]
    pub fn leased(&self) -> BTreeSet<String> {
        let leased = |route: &Arc<RouteSpec>| route.split.as_ref().is_some_and(|s| s.leased);
        let in_force = self.in_force.iter();
        let leased = in_force.filter(|(_, active)| active.force.routes().any(leased));
        leased.map(|(name, _)| name.clone()).collect()
    }

    /// Whether there was a connection to a listener since this was last asked.
    pub fn take_used(&mut self, listener: &str) -> bool {
        let active = self.in_force.get(listener);
        active.is_some_and(|active| active.usage.take())
    }

    /// Everything that a listener in force needs, itself among it; nothing for any other.
    #[must_use]
    pub fn needs(&self, listener: &str) -> Vec<ResourceName> {
        let spec = self.listeners.get(listener);
        let Some(spec) = spec.filter(|_| self.in_force.contains_key(listener)) else {
            return Vec::new();
        };
        let mut needs = vec![ResourceName::new(Kind::Listener, listener)];
        needs.extend(route_name(spec).map(|name| ResourceName::new(Kind::Route, name)));
        for branch in self.newest(spec).flat_map(|route| &route.branches) {
            needs.push(ResourceName::new(Kind::Cluster, &branch.cluster));
            let cluster = self.clusters.get(&branch.cluster);
            needs.extend(cluster.map(|c| ResourceName::new(Kind::Endpoints, &c.endpoints)));
        }
        needs
    }
}

fn route_name(spec: &ListenerSpec) -> Option<String> {
    match spec {
        ListenerSpec::Http(http) | ListenerSpec::Detect { http, .. } => Some(http.clone()),
        ListenerSpec::Tcp(_) => None,
    }
}

/// Resolves names while a snapshot is made; each cluster once.
struct Builder<'a, F> {
    store: &'a Store,
    clusters: HashMap<&'a str, Arc<Cluster>>,
    applied: BTreeMap<String, i64>,
    counters: &'a mut F,
}

impl<'a, F: FnMut(&Key) -> Arc<Counters>> Builder<'a, F> {
    fn listener(&mut self, active: &'a Active) -> Listener {
        let mode = match &active.force {
            Force::Http(http) => Mode::Http(self.route(http)),
            Force::Tcp(tcp) => Mode::Tcp(self.route(tcp)),
            Force::Detect { http, tcp } => Mode::Detect {
                http: self.route(http),
                tcp: self.route(tcp),
            },
        };
        Listener {
            mode,
            usage: active.usage.clone(),
        }
    }

    fn route(&mut self, spec: &'a RouteSpec) -> Arc<Route> {
        let split = spec.split.as_ref().map(|facts| {
            let applied = self.applied.entry(facts.service.clone());
            let smallest = applied.or_insert(facts.fence);
            *smallest = facts.fence.min(*smallest);
            let hung_after = u64::try_from(facts.hung_after_ms).ok().filter(|ms| *ms > 0);
            Split {
                leased: facts.leased,
                hung_after: hung_after.map(Duration::from_millis),
                counters: (self.counters)(&Key {
                    service: facts.service.clone(),
                    revision: facts.revision.clone(),
                    fence: facts.fence,
                }),
            }
        });
        let branches = spec.branches.iter().map(|branch| Branch {
            weight: branch.weight,
            arm: branch.arm,
            cluster: self.cluster(&branch.cluster),
        });
        Arc::new(Route {
            branches: branches.collect(),
            split,
        })
    }

    fn cluster(&mut self, name: &'a str) -> Arc<Cluster> {
        if let Some(cluster) = self.clusters.get(name) {
            return cluster.clone();
        }
        let spec = self.store.clusters.get(name);
        let endpoints = spec.and_then(|spec| self.store.endpoints.get(&spec.endpoints));
        let cluster = Arc::new(Cluster {
            name: name.to_owned(),
            service: spec.map(|spec| spec.service.clone()).unwrap_or_default(),
            http2: spec.is_some_and(|spec| spec.http2),
            endpoints: endpoints.cloned().unwrap_or_default(),
        });
        self.clusters.insert(name, cluster.clone());
        cluster
    }
}
