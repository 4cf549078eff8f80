//! A proxy, servers and clients in one process, over real loopback sockets.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod client;
pub mod gateway;
pub mod plane;
pub mod server;
pub mod xds;

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use envoy_types::pb::google::protobuf::Any;

use sluice_evidence::v1::{ArmCounts, Record};
use sluice_proxy::{
    coin::Coin,
    config::{Change, Store},
    shared::Shared,
    worker::{Purpose, Worker, bind, listen},
};
use sluice_xds::{
    Kind,
    metadata::{EndpointFacts, RouteFacts},
};
use tokio::{net::TcpListener, task::LocalSet};

pub const HOST: &str = "cart.shop.svc.cluster.local";
pub const LISTENER: &str = "outbound/cart.shop.svc.cluster.local:80";
pub const ROUTE: &str = "cart.shop.svc.cluster.local:80";
pub const STABLE: &str = "outbound|80|stable|cart.shop.svc.cluster.local";
pub const CANDIDATE: &str = "outbound|80|candidate|cart.shop.svc.cluster.local";

/// Runs a test that spawns local tasks.
pub async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// Waits until something is so; never for long, and never shorter than a slow machine needs.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a Service's port is said to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http,
    Http2,
    Tcp,
    Unknown,
}

/// A proxy with one Service behind it, split into two arms.
pub struct Proxy {
    pub shared: Arc<Shared>,
    pub worker: Rc<Worker>,
    store: Store,
}

/// The split of the Service.
pub struct Split {
    pub speaks: Speaks,
    pub stable: Vec<SocketAddr>,
    pub candidate: Vec<SocketAddr>,
    pub weight: u32,
    pub fence: i64,
    pub leased: bool,
    pub hung_after_ms: i64,
}

impl Default for Split {
    fn default() -> Self {
        Self {
            speaks: Speaks::Http,
            stable: Vec::new(),
            candidate: Vec::new(),
            weight: 0,
            fence: 1,
            leased: false,
            hung_after_ms: 0,
        }
    }
}

impl Split {
    pub fn facts(&self) -> RouteFacts {
        RouteFacts {
            service: "shop/cart".to_owned(),
            revision: "abc".to_owned(),
            fence: self.fence,
            leased: self.leased,
            hung_after_ms: self.hung_after_ms,
        }
    }

    pub fn branches(&self) -> [(&'static str, u32); 2] {
        [(STABLE, 100 - self.weight), (CANDIDATE, self.weight)]
    }

    /// All that the control plane sends of it.
    pub fn resources(&self) -> Vec<(Kind, &'static str, Any)> {
        let (facts, branches) = (self.facts(), self.branches());
        let listener = match self.speaks {
            Speaks::Http | Speaks::Http2 => xds::http_listener(ROUTE),
            Speaks::Tcp => xds::tcp_listener(&branches, Some(&facts)),
            Speaks::Unknown => xds::detect_listener(ROUTE, &branches, Some(&facts)),
        };
        let mut resources = vec![
            (Kind::Listener, LISTENER, listener),
            (Kind::Route, ROUTE, xds::route(&branches, Some(&facts))),
        ];
        for (arm, endpoints) in [(STABLE, &self.stable), (CANDIDATE, &self.candidate)] {
            let cluster = xds::cluster(arm, self.speaks == Speaks::Http2);
            resources.push((Kind::Cluster, arm, cluster));
            resources.push((Kind::Endpoints, arm, xds::endpoints(arm, endpoints)));
        }
        resources
    }
}

impl Proxy {
    pub fn new() -> Self {
        let shared = Shared::new(EndpointFacts {
            workload: "frontend".to_owned(),
            namespace: "shop".to_owned(),
            canonical_name: "frontend".to_owned(),
            ..EndpointFacts::default()
        });
        Self {
            worker: Worker::new(shared.clone(), Coin::seeded(42)),
            shared,
            store: Store::default(),
        }
    }

    /// With this split in force.
    pub fn with(split: &Split) -> Self {
        let mut proxy = Self::new();
        proxy.set(split);
        proxy
    }

    /// All on the stable arm at these addresses.
    pub fn to(stable: &[SocketAddr]) -> Self {
        Self::with(&Split {
            stable: stable.to_vec(),
            ..Split::default()
        })
    }

    pub fn set(&mut self, split: &Split) {
        for (kind, name, body) in &split.resources() {
            self.store.apply(*kind, name, Change::Set(body)).unwrap();
        }
        self.store.settle();
        let evidence = &self.shared.evidence;
        self.shared
            .publish(self.store.snapshot(|key| evidence.counters(key)));
    }

    /// Listens as a gateway for the Service.
    pub fn gateway(&self) -> SocketAddr {
        self.listen(Purpose::Gateway(LISTENER.into()))
    }

    /// Listens as the inbound side of the application at `address`.
    pub fn inbound(&self, address: SocketAddr) -> SocketAddr {
        self.listen(Purpose::InboundTo(address))
    }

    fn listen(&self, purpose: Purpose) -> SocketAddr {
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = TcpListener::from_std(socket).unwrap();
        tokio::task::spawn_local(listen(self.worker.clone(), listener, purpose));
        address
    }

    /// The evidence so far, of one fence.
    pub fn record(&self) -> Record {
        let mut records = self.shared.evidence.changed(&mut BTreeMap::new());
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    pub fn stable(&self) -> ArmCounts {
        self.record().stable.unwrap()
    }

    pub fn candidate(&self) -> ArmCounts {
        self.record().candidate.unwrap()
    }
}

/// An address that refuses connections.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Counts without the durations, which depend on the machine.
pub fn plain(mut counts: ArmCounts) -> ArmCounts {
    counts.duration_buckets.clear();
    counts
}
