//! Logs to stderr, and the plain HTTP server behind `/metrics`, `/healthz` and `/readyz`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::gauge::ConstGauge,
    registry::Registry,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use tracing_subscriber::EnvFilter;

use crate::health::Health;

/// Most connections to the telemetry port at one time.
const MAX_CONNECTIONS: usize = 64;

/// The metrics of this process. A clone is the same registry.
#[derive(Clone)]
pub struct Telemetry(Arc<Mutex<Registry>>);

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        Self(Arc::new(Mutex::new(registry)))
    }
}

impl Telemetry {
    /// Adds metrics. Names start with `sluice_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.lock());
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; a collector that does leaves its part out.
        let _ = encode(&mut text, &self.0.lock());
        text
    }
}

/// JSON lines on stderr, filtered by RUST_LOG (default `info`).
pub fn init_logs() {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // It logs each failed request as an error before its caller says what it was for.
    if let Ok(quiet) = "kube_client::client::builder=off".parse() {
        filter = filter.add_directive(quiet);
    }
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Serves until `shutdown`: the last thing that a process stops, so that `/readyz` says so
/// while it drains.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        let (health, telemetry) = (health.clone(), telemetry.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let answer = answer(request.uri().path(), &health, &telemetry);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(path: &str, health: &Health, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let (status, kind, body) = match path {
        "/metrics" => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            telemetry.encode(),
        ),
        "/healthz" => (StatusCode::OK, plain, "ok\n".to_owned()),
        "/readyz" => {
            let (ready, body) = health.ready();
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, plain, body)
        }
        _ => (
            StatusCode::NOT_FOUND,
            plain,
            "there is /metrics, /healthz and /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// The process's own memory, read when asked.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Some(bytes) = resident_bytes() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(bytes);
        let encoder = encoder.encode_descriptor(
            "process_resident_memory_bytes",
            "Resident memory of this process",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

/// Resident memory in bytes; `/proc/self/statm` counts pages of 4 KiB.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readyz_tells_what_is_missing_and_healthz_does_not_care() {
        let health = Arc::new(Health::default());
        let check = health.check("caches");
        let telemetry = Telemetry::default();
        assert_eq!(answer("/readyz", &health, &telemetry).status(), 503);
        assert_eq!(answer("/healthz", &health, &telemetry).status(), 200);
        check.pass();
        assert_eq!(answer("/readyz", &health, &telemetry).status(), 200);
        assert_eq!(answer("/else", &health, &telemetry).status(), 404);
    }

    #[test]
    fn metrics_hold_the_resident_memory() {
        let text = Telemetry::default().encode();
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
