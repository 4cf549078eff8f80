//! Istio's metrics under Istio's names, and a few of our own.
//!
//! The series of an endpoint's answers are cached with the endpoint, so that the hot path makes
//! no labels. Their number is bounded: past the bound, requests are counted in one last series.

use std::{
    cell::RefCell,
    fmt::Write as _,
    sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use sluice_xds::metadata::EndpointFacts;

use crate::config::ServiceName;

/// Upper edges in milliseconds, as Istio's.
const EDGES_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Most series of requests.
const MAX_SERIES: usize = 2000;
/// Most series that are cached with one endpoint: it chooses its status codes itself.
const MAX_CACHED: usize = 64;

const UNKNOWN: &str = "unknown";

/// Which end of a request this proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's.
    Source,
    /// The server's.
    Destination,
}

/// What tells the series of one endpoint apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status; 0: none was sent.
    pub code: u16,
    /// gRPC status, of gRPC only.
    pub grpc: Option<u32>,
    /// Whether it is gRPC.
    pub is_grpc: bool,
    /// Envoy's response flags, `-` for none.
    pub flags: &'static str,
    /// Which end this proxy is.
    pub reporter: Reporter,
}

/// Labels of a request, as Istio's dashboards read them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    reporter: &'static str,
    source_workload: String,
    source_workload_namespace: String,
    source_canonical_service: String,
    source_canonical_revision: String,
    source_principal: String,
    source_app: String,
    source_version: String,
    source_cluster: &'static str,
    destination_workload: String,
    destination_workload_namespace: String,
    destination_principal: String,
    destination_app: String,
    destination_version: String,
    destination_service: String,
    destination_service_name: String,
    destination_service_namespace: String,
    destination_canonical_service: String,
    destination_canonical_revision: String,
    destination_cluster: &'static str,
    request_protocol: &'static str,
    response_code: u16,
    grpc_response_status: String,
    response_flags: &'static str,
    connection_security_policy: &'static str,
}

/// One end of a request.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The Service that was called.
    pub service: &'a ServiceName,
    /// The workload that answered; none: nobody did.
    pub destination: Option<&'a EndpointFacts>,
}

type Make = fn() -> Histogram;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    own: EndpointFacts,
    /// How often a series of requests was made, or would have been.
    made: AtomicUsize,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RequestLabels, Histogram, Make>,
    /// Connections to what is no Service, or what nothing was known of.
    pub passthrough: Counter,
    /// Connections to destinations of which nothing was known.
    pub unknown: Counter,
    /// Raw connections that were opened to endpoints.
    pub tcp_opened: Counter,
    /// Those that have ended.
    pub tcp_closed: Counter,
    /// Requests and connections of a reused connection that had died, sent again.
    pub replays: Counter,
    /// Connects that failed.
    pub connect_failures: Counter,
    /// Reports sent to the control plane.
    pub reports: Counter,
    /// Resources that were refused.
    pub refused_resources: Counter,
    /// Writes of the last-good file.
    pub saves: Counter,
    /// Writes of the last-good file that failed.
    pub failed_saves: Counter,
    /// Destinations in force.
    pub listeners: Gauge,
    /// 1 while there is a stream to the control plane.
    pub connected: Gauge,
    /// Unix time at which what is in force was written, while it comes from disk; else 0.
    pub last_good: Gauge,
}

/// Counter and histogram of one set of labels.
#[derive(Debug, Clone)]
pub struct Series {
    requests: Counter,
    durations: Histogram,
}

impl Series {
    /// A request has ended.
    pub fn observe(&self, duration: Duration) {
        self.requests.inc();
        self.durations.observe(duration.as_secs_f64() * 1000.0);
    }
}

/// The series of one endpoint in one worker.
#[derive(Debug, Default)]
pub struct SeriesCache(RefCell<Vec<(Answer, String, Series)>>);

impl SeriesCache {
    /// The series of this answer of this endpoint.
    pub fn get(&self, metrics: &Metrics, labels: Labels<'_>, answer: &Answer) -> Series {
        let host = &labels.service.host;
        let mut cached = self.0.borrow_mut();
        let found = cached.iter().find(|(a, h, _)| a == answer && h == host);
        if let Some((_, _, series)) = found {
            return series.clone();
        }
        let series = metrics.series(labels, answer);
        if cached.len() < MAX_CACHED {
            cached.push((answer.clone(), host.clone(), series.clone()));
        }
        series
    }
}

fn histogram() -> Histogram {
    Histogram::new(EDGES_MS)
}

fn or_unknown(text: &str) -> String {
    if text.is_empty() { UNKNOWN } else { text }.to_owned()
}

impl Metrics {
    /// Metrics of the proxy of this workload.
    #[must_use]
    pub fn new(own: EndpointFacts) -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<_, _, Make>::new_with_constructor(histogram as Make);
        registry.register("istio_requests", "Requests", requests.clone());
        registry.register(
            "istio_request_duration_milliseconds",
            "Time from a request's first byte to its answer's last",
            durations.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter: Counter<u64, AtomicU64> = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let metrics = Self {
            passthrough: counter(
                "sluice_passthrough_connections",
                "Connections to what is no Service, or what nothing was known of",
            ),
            unknown: counter(
                "sluice_unknown_destinations",
                "Connections to what nothing was known of: a sidecar passes them through, a gateway refuses",
            ),
            tcp_opened: counter("istio_tcp_connections_opened", "Raw connections opened"),
            tcp_closed: counter("istio_tcp_connections_closed", "Raw connections closed"),
            replays: counter("sluice_replays", "Requests that were sent again"),
            connect_failures: counter("sluice_connect_failures", "Connects that failed"),
            reports: counter(
                "sluice_evidence_reports",
                "Reports sent to the control plane",
            ),
            refused_resources: counter("sluice_xds_refused", "Resources that were refused"),
            saves: counter("sluice_last_good_writes", "Writes of the last-good file"),
            failed_saves: counter(
                "sluice_last_good_failures",
                "Writes of the last-good file that failed",
            ),
            listeners: Gauge::default(),
            connected: Gauge::default(),
            last_good: Gauge::default(),
            registry: Registry::default(),
            own,
            made: AtomicUsize::new(0),
            requests,
            durations,
        };
        let mut gauge = |name: &str, help: &str, gauge: &Gauge<i64, AtomicI64>| {
            registry.register(name, help, gauge.clone());
        };
        gauge(
            "sluice_xds_listeners",
            "Destinations in force",
            &metrics.listeners,
        );
        gauge(
            "sluice_xds_connected",
            "1 while there is a stream",
            &metrics.connected,
        );
        gauge(
            "sluice_last_good_timestamp_seconds",
            "When what is in force was written, while it comes from disk; else 0",
            &metrics.last_good,
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// The series of these labels.
    pub fn series(&self, labels: Labels<'_>, answer: &Answer) -> Series {
        let mut labels = self.labels(labels, answer);
        if self.requests.get(&labels).is_none()
            && self.made.fetch_add(1, Ordering::Relaxed) >= MAX_SERIES
        {
            labels = self.overflow(answer);
        }
        Series {
            requests: self.requests.get_or_create_owned(&labels),
            durations: self.durations.get_or_create_owned(&labels),
        }
    }

    /// Everything in the OpenMetrics text form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            let _ = writeln!(text, "# cannot be encoded: {error}");
        }
        text
    }

    fn labels(&self, labels: Labels<'_>, answer: &Answer) -> RequestLabels {
        let nobody = EndpointFacts::default();
        let (reporter, source, destination) = match answer.reporter {
            Reporter::Source => ("source", &self.own, labels.destination.unwrap_or(&nobody)),
            Reporter::Destination => ("destination", &nobody, &self.own),
        };
        let grpc = answer.grpc.map(|status| status.to_string());
        RequestLabels {
            reporter,
            source_workload: or_unknown(&source.workload),
            source_workload_namespace: or_unknown(&source.namespace),
            source_canonical_service: or_unknown(&source.canonical_name),
            source_canonical_revision: or_unknown(&source.canonical_revision),
            source_principal: or_unknown(&source.principal),
            source_app: or_unknown(&source.app),
            source_version: or_unknown(&source.version),
            source_cluster: "Kubernetes",
            destination_workload: or_unknown(&destination.workload),
            destination_workload_namespace: or_unknown(&destination.namespace),
            destination_principal: or_unknown(&destination.principal),
            destination_app: or_unknown(&destination.app),
            destination_version: or_unknown(&destination.version),
            destination_service: or_unknown(&labels.service.host),
            destination_service_name: or_unknown(&labels.service.name),
            destination_service_namespace: or_unknown(&labels.service.namespace),
            destination_canonical_service: or_unknown(&destination.canonical_name),
            destination_canonical_revision: or_unknown(&destination.canonical_revision),
            destination_cluster: "Kubernetes",
            request_protocol: if answer.is_grpc { "grpc" } else { "http" },
            response_code: answer.code,
            grpc_response_status: grpc.unwrap_or_default(),
            response_flags: answer.flags,
            connection_security_policy: match answer.reporter {
                Reporter::Source => UNKNOWN,
                Reporter::Destination => "none",
            },
        }
    }

    /// Where requests are counted once there are too many series: by code alone.
    fn overflow(&self, answer: &Answer) -> RequestLabels {
        let service = ServiceName::default();
        let other = Labels {
            service: &service,
            destination: None,
        };
        RequestLabels {
            grpc_response_status: String::new(),
            ..self.labels(other, answer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> EndpointFacts {
        EndpointFacts {
            workload: "frontend".to_owned(),
            namespace: "shop".to_owned(),
            ..EndpointFacts::default()
        }
    }

    fn service(name: &str) -> ServiceName {
        ServiceName {
            host: format!("{name}.shop.svc.cluster.local"),
            name: name.to_owned(),
            namespace: "shop".to_owned(),
        }
    }

    const OK: Answer = Answer {
        code: 200,
        grpc: None,
        is_grpc: false,
        flags: "-",
        reporter: Reporter::Source,
    };

    #[test]
    fn requests_are_counted_under_the_names_and_labels_of_istio() {
        let metrics = Metrics::new(own());
        let service = service("cart");
        let facts = EndpointFacts {
            workload: "cart-v2".to_owned(),
            ..EndpointFacts::default()
        };
        let labels = Labels {
            service: &service,
            destination: Some(&facts),
        };
        let series = SeriesCache::default().get(&metrics, labels, &OK);
        series.observe(Duration::from_millis(3));
        let text = metrics.text();
        let line = text
            .lines()
            .find(|l| l.starts_with("istio_requests_total{"));
        let line = line.unwrap_or_default();
        for label in [
            r#"reporter="source""#,
            r#"source_workload="frontend""#,
            r#"destination_workload="cart-v2""#,
            r#"destination_service="cart.shop.svc.cluster.local""#,
            r#"response_code="200""#,
            r#"response_flags="-""#,
        ] {
            assert!(line.contains(label), "{label} in {text}");
        }
        assert!(line.ends_with(" 1"), "{line}");
        assert!(text.contains("istio_request_duration_milliseconds_bucket{"));
    }

    #[test]
    fn the_number_of_series_is_bounded_and_no_request_is_uncounted() {
        let metrics = Metrics::new(own());
        for n in 0..MAX_SERIES + 50 {
            let service = service(&n.to_string());
            let labels = Labels {
                service: &service,
                destination: None,
            };
            metrics.series(labels, &OK).observe(Duration::ZERO);
        }
        let text = metrics.text();
        let series = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{"));
        let counts: Vec<u64> = series
            .filter_map(|l| l.rsplit_once(' ')?.1.parse().ok())
            .collect();
        assert_eq!(counts.len(), MAX_SERIES + 1);
        assert_eq!(counts.iter().sum::<u64>(), MAX_SERIES as u64 + 50);
    }
}
