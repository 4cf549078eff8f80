//! A mock proxy: it speaks xDS and evidence as a real one does, over TLS and under its pod's
//! token, and carries no request: it counts such as its traffic says.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use envoy_types::pb::envoy::{
    config::{
        core::v3::Node,
        route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
    },
    service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use parking_lot::Mutex;
use sluice_evidence::v1::{
    AppliedSplit, ArmCounts, ProxyReport, Record, evidence_client::EvidenceClient,
};
use sluice_xds::{ClientSession, Event, Kind, metadata::RouteFacts, names};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// How often requests are counted and reported where nothing else is said.
const TICK: Duration = Duration::from_millis(100);

/// What a proxy's clients ask for, and what they get.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Requests in each tick.
    pub requests: u64,
    /// Of 100 of the candidate's answers, so many are errors.
    pub candidate_errors: u64,
    /// The candidate errs only where it has more than this, percent of the requests.
    pub bears: u64,
    /// The same of stable's answers.
    pub stable_errors: u64,
}

/// What a proxy holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Of the route.
    pub facts: RouteFacts,
    /// The candidate's share, percent.
    pub weight: u64,
}

/// How a proxy reaches its control plane, and who it is.
#[derive(Clone)]
pub struct Access {
    /// Port of xDS and evidence on loopback.
    pub port: u16,
    /// The mesh's root certificate, PEM.
    pub root: String,
    /// The token of its pod.
    pub token: String,
    /// Namespace, name, ClusterIP and port of the Service that it routes.
    pub service: (String, String, std::net::IpAddr, u16),
}

/// A proxy; it ends when the `JoinSet` that it was started in does.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    traffic: Mutex<Traffic>,
    /// How often requests are counted and reported.
    tick: Mutex<Duration>,
    held: Mutex<Held>,
    /// It takes no news of its control plane.
    is_deaf: AtomicBool,
    /// Cumulative, by revision and fence.
    records: Mutex<BTreeMap<(String, i64), Record>>,
}

impl Proxy {
    /// Starts a proxy.
    pub fn start(access: Access, tasks: &mut JoinSet<()>) -> Self {
        let proxy = Self(Arc::new(Shared {
            traffic: Mutex::default(),
            tick: Mutex::new(TICK),
            held: Mutex::default(),
            is_deaf: AtomicBool::default(),
            records: Mutex::default(),
        }));
        let running = proxy.clone();
        let started = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        tasks.spawn(async move {
            let (namespace, service, ..) = &access.service;
            let host = names::fqdn(namespace, service);
            let mut session = ClientSession::new(Node::default());
            let (vip, port) = (access.service.2, access.service.3);
            session.subscribe(Kind::Listener, [names::vip_listener(vip, port)]);
            session.subscribe(Kind::Route, [names::route(&host, port)]);
            loop {
                session.reconnect();
                // Why a stream ended is in the serving role's log.
                let _ = running.connected(&access, &mut session, started).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        proxy
    }

    /// From now on its clients ask for this.
    pub fn serve(&self, traffic: Traffic) {
        *self.0.traffic.lock() = traffic;
    }

    /// From now on it counts and reports this often.
    pub fn pace(&self, tick: Duration) {
        *self.0.tick.lock() = tick;
    }

    /// Whether it takes no news of its control plane; it goes on to report.
    pub fn be_deaf(&self, is_deaf: bool) {
        self.0.is_deaf.store(is_deaf, Ordering::Relaxed);
    }

    /// What it routes by.
    #[must_use]
    pub fn held(&self) -> Held {
        self.0.held.lock().clone()
    }

    async fn connected(
        &self,
        access: &Access,
        session: &mut ClientSession,
        started: u64,
    ) -> Result<()> {
        let channel = access.connect().await?;
        let (ads, receiver) = mpsc::channel(16);
        while let Some(request) = session.poll_request() {
            ads.send(request).await?;
        }
        let request = access.request(ReceiverStream::new(receiver))?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let mut responses = client
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        let (reports, receiver) = mpsc::channel(16);
        reports.send(self.report(started)).await?;
        let request = access.request(ReceiverStream::new(receiver))?;
        let mut notes = EvidenceClient::new(channel)
            .report(request)
            .await?
            .into_inner();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                response = responses.message(), if !self.0.is_deaf.load(Ordering::Relaxed) => {
                    let update = session.handle_response(response?.context("ended")?)?;
                    update.events.iter().for_each(|event| self.take_in(event));
                    session.ack(update.verdict);
                    while let Some(request) = session.poll_request() {
                        ads.send(request).await?;
                    }
                }
                note = notes.message() => {
                    note?.context("ended")?;
                    continue;
                }
                () = sleep_until(due) => {
                    due = Instant::now() + *self.0.tick.lock();
                    self.count();
                }
            }
            reports.send(self.report(started)).await?;
        }
    }

    fn take_in(&self, event: &Event) {
        let Event::Upsert {
            kind: Kind::Route,
            resource,
            ..
        } = event
        else {
            return;
        };
        let Ok(route) = sluice_xds::unpack::<RouteConfiguration>(resource) else {
            return;
        };
        let host = route.virtual_hosts.into_iter().next();
        let Some(route) = host.and_then(|host| host.routes.into_iter().next()) else {
            return;
        };
        let facts = route.metadata.as_ref().map(RouteFacts::from_metadata);
        let weighted = match route.action {
            Some(Action::Route(action)) => match action.cluster_specifier {
                Some(ClusterSpecifier::WeightedClusters(clusters)) => clusters.clusters,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let is_candidate = |name: &str| {
            let name = names::ClusterName::parse(name);
            name.is_some_and(|name| name.arm == Some(names::Arm::Candidate))
        };
        let weights = weighted
            .iter()
            .filter(|cluster| is_candidate(&cluster.name));
        let weight = weights
            .map(|cluster| cluster.weight.as_ref().map_or(0, |w| u64::from(w.value)))
            .sum();
        if let Some(Ok(facts)) = facts {
            *self.0.held.lock() = Held { facts, weight };
        }
    }

    /// The requests of one tick, by the weight in force.
    fn count(&self) {
        let (held, traffic) = (self.held(), *self.0.traffic.lock());
        if held.facts.revision.is_empty() || traffic.requests == 0 {
            return;
        }
        let key = (held.facts.revision.clone(), held.facts.fence);
        let mut records = self.0.records.lock();
        let record = records.entry(key).or_insert_with(|| Record {
            service: held.facts.service.clone(),
            revision: held.facts.revision.clone(),
            fence: held.facts.fence,
            stable: Some(ArmCounts::default()),
            candidate: Some(ArmCounts::default()),
            ..Record::default()
        });
        let candidate = traffic.requests * held.weight / 100;
        let add = |arm: &mut Option<ArmCounts>, requests: u64, errors: u64| {
            let arm = arm.get_or_insert_default();
            arm.coined += requests;
            arm.server_errors += requests * errors / 100;
        };
        let errs = held.weight > traffic.bears;
        let errors = if errs { traffic.candidate_errors } else { 0 };
        add(&mut record.candidate, candidate, errors);
        add(
            &mut record.stable,
            traffic.requests - candidate,
            traffic.stable_errors,
        );
    }

    fn report(&self, started: u64) -> ProxyReport {
        let held = self.held();
        let applied = (!held.facts.service.is_empty()).then(|| AppliedSplit {
            service: held.facts.service.clone(),
            fence: held.facts.fence,
        });
        ProxyReport {
            process_start_ms: started,
            version: "mock".to_owned(),
            applied: applied.into_iter().collect(),
            records: self.0.records.lock().values().cloned().collect(),
            ..ProxyReport::default()
        }
    }
}

impl Access {
    async fn connect(&self) -> Result<Channel> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.root))
            .domain_name("sluice-serving.sluice-system.svc");
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.port))?;
        Ok(endpoint.tls_config(tls)?.connect().await?)
    }

    fn request<T>(&self, body: T) -> Result<Request<T>> {
        let mut request = Request::new(body);
        let token = format!("Bearer {}", self.token).parse()?;
        request.metadata_mut().insert("authorization", token);
        Ok(request)
    }
}
