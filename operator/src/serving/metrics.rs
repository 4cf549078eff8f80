//! Figures of the serving role.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use sluice_xds::Kind;

use crate::telemetry::Telemetry;

/// Figures of the serving role; a clone counts into the same ones.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Open ADS streams.
    pub streams: Gauge,
    /// Resources sent, by type.
    pub sent: Family<TypeLabel, Counter>,
    /// NACKs, by type.
    pub refused: Family<TypeLabel, Counter>,
    /// Reports of proxies.
    pub reports: Counter,
    /// What proxies said of Services outside of their view.
    pub out_of_view: Counter,
    /// Splits whose candidate is off traffic by the leader's word alone.
    pub ejects: Gauge,
    /// Callers turned away.
    pub unauthenticated: Counter,
}

/// The xDS type, short.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TypeLabel {
    /// `Cluster`, `Listener`, ...
    pub kind: String,
}

impl TypeLabel {
    /// The label of a type URL; whatever is not one of ours is `other`.
    #[must_use]
    pub fn of(type_url: &str) -> Self {
        let kind =
            Kind::from_type_url(type_url).map_or("other".to_owned(), |kind| kind.to_string());
        Self { kind }
    }
}

impl Metrics {
    /// Registered figures.
    #[must_use]
    pub fn new(telemetry: &Telemetry) -> Self {
        let metrics = Self::default();
        telemetry.register(|registry| {
            let it = metrics.clone();
            registry.register("sluice_ads_streams", "Open ADS streams", it.streams);
            registry.register("sluice_ads_sent", "Resources and removals sent", it.sent);
            registry.register("sluice_ads_refused", "NACKs of proxies", it.refused);
            registry.register("sluice_evidence_reports", "Reports of proxies", it.reports);
            registry.register(
                "sluice_evidence_out_of_view",
                "Parts of reports about Services outside of the proxy's view, which were not taken",
                it.out_of_view,
            );
            registry.register(
                "sluice_ejected_splits",
                "Splits whose candidate the leader took off traffic without the apiserver",
                it.ejects,
            );
            registry.register(
                "sluice_unauthenticated",
                "Streams refused because the caller could not be proved",
                it.unauthenticated,
            );
        });
        metrics
    }
}
