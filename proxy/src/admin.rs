//! The endpoints for people, only on this machine, and those for probes and Prometheus.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    config::{Listener, Mode, Route},
    drain::Phase,
    shared::Shared,
};

/// Content type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a head may take to come.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, as with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Whom a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Probes and Prometheus: readiness and metrics.
    Probes,
    /// Those who are on this machine: the configuration too.
    People,
}

/// What the endpoints tell of.
#[derive(Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    ready: AtomicBool,
}

impl Admin {
    /// Not ready yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            ready: AtomicBool::new(false),
        })
    }

    /// Ready from now on, until we leave.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.shared.drain.phase() == Phase::Serving
    }

    /// Serves on this address, for ever.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub async fn listen(
        self: Arc<Self>,
        address: SocketAddr,
        audience: Audience,
    ) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let admin = self.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let response = admin.answer(&request, audience);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let io = TokioIo::new(client);
                    // A client that breaks off is its own business.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD)
                        .keep_alive(false)
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Ok(())
    }

    fn answer(&self, request: &Request<Incoming>, audience: Audience) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri().path() {
            "/healthz/ready" | "/ready" if self.is_ready() => plain(StatusCode::OK, "ready\n"),
            "/healthz/ready" | "/ready" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            "/metrics" | "/stats/prometheus" => {
                with_type(StatusCode::OK, OPENMETRICS, self.shared.metrics.text())
            }
            _ if audience == Audience::Probes => plain(
                StatusCode::NOT_FOUND,
                "here: /healthz/ready and /metrics; the rest is on 127.0.0.1:15000 of the pod\n",
            ),
            "/stats" => with_type(StatusCode::OK, "text/plain", self.stats()),
            "/config_dump" => as_json(&self.config()),
            "/clusters" => as_json(&self.clusters()),
            _ => plain(
                StatusCode::NOT_FOUND,
                "try /healthz/ready, /stats/prometheus, /stats, /config_dump or /clusters\n",
            ),
        }
    }

    fn stats(&self) -> String {
        format!(
            "open: {}\nphase: {:?}\nlease_lapsed: {}\nsilence_seconds: {}\nlast_good: {}\nlisteners: {}\n",
            self.shared.drain.open_count(),
            self.shared.drain.phase(),
            self.shared.lease.lapsed(),
            self.shared.lease.silence().as_secs(),
            self.shared.last_good().unwrap_or_default(),
            self.shared.snapshot.load().listeners.len(),
        )
    }

    fn config(&self) -> Value {
        let snapshot = self.shared.snapshot.load();
        let status = self.shared.status.load();
        let listeners = snapshot.listeners.iter();
        let listeners: serde_json::Map<_, _> = listeners
            .map(|(name, listener)| (name.clone(), listener_json(listener)))
            .collect();
        let refused: Vec<_> = status
            .refused
            .iter()
            .map(|r| json!({"type": r.type_url, "name": r.name, "reason": r.reason}))
            .collect();
        json!({
            "listeners": listeners,
            "absent": snapshot.absent,
            "applied": snapshot.applied,
            "lastGood": self.shared.last_good(),
            "silenceSeconds": self.shared.lease.silence().as_secs(),
            "leaseLapsed": self.shared.lease.lapsed(),
            "warming": status.warming,
            "refused": refused,
        })
    }

    fn clusters(&self) -> Value {
        let snapshot = self.shared.snapshot.load();
        let routes = snapshot.listeners.values().flat_map(|l| l.routes());
        let clusters: serde_json::Map<_, _> = routes
            .flat_map(|route| &route.branches)
            .map(|branch| {
                let endpoints = branch.cluster.endpoints.iter();
                let endpoints: Vec<_> = endpoints
                    .map(|e| json!({"address": e.address.to_string(), "pod": e.facts.pod}))
                    .collect();
                (branch.cluster.name.clone(), Value::Array(endpoints))
            })
            .collect();
        Value::Object(clusters)
    }
}

fn listener_json(listener: &Listener) -> Value {
    match &listener.mode {
        Mode::Http(http) => json!({"http": route_json(http)}),
        Mode::Tcp(tcp) => json!({"tcp": route_json(tcp)}),
        Mode::Detect { http, tcp } => {
            json!({"http": route_json(http), "tcp": route_json(tcp)})
        }
    }
}

fn route_json(route: &Route) -> Value {
    let branches: Vec<_> = route
        .branches
        .iter()
        .map(|b| json!({"cluster": b.cluster.name, "weight": b.weight}))
        .collect();
    let split = route.split.as_ref().map(|split| {
        let key = split.counters.key();
        json!({
            "service": key.service,
            "revision": key.revision,
            "fence": key.fence,
            "leased": split.leased,
        })
    });
    json!({"branches": branches, "split": split})
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain", text)
}

fn as_json(value: &Value) -> Response<Full<Bytes>> {
    with_type(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn with_type(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
