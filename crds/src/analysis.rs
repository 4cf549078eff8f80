//! What a release must keep, and how sure a verdict must be.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// What a release must keep, and how sure a verdict must be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::not_yet("!has(self.latency) || self.latency.size() == 0", "spec.analysis.latency", "remove it"))]
#[x_kube(validation = rules::not_yet("!has(self.metrics) || self.metrics.size() == 0", "spec.analysis.metrics", "remove it"))]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Absolute promise, binding while stable keeps it.
    #[serde(default = "default_max_error_rate")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::percent("spec.analysis.maxErrorRate"))]
    pub max_error_rate: String,
    /// How many times worse than stable, in the same seconds, is tolerated.
    #[serde(default = "default_max_relative_risk")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub max_relative_risk: f64,
    /// Latency promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    pub latency: Option<Vec<LatencyPromise>>,
    /// How sure a condemnation must be, over the whole life of a revision.
    #[serde(default = "default_confidence")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::confidence("spec.analysis.confidence"))]
    pub confidence: String,
    /// How sure a promotion must be that the candidate is not worse.
    #[serde(default = "default_promotion_confidence")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::confidence("spec.analysis.promotionConfidence"))]
    pub promotion_confidence: String,
    /// A request that runs longer counts as failed when it crosses this line; default 10 s.
    #[serde(default = "default_hung_after")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration_between("spec.analysis.hungAfter", "100ms", "1h"))]
    pub hung_after: String,
    /// The least time at each step.
    #[serde(default = "default_hold")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration("spec.analysis.hold"))]
    pub hold: String,
    /// Metrics of other systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub metrics: Option<Vec<Metric>>,
    /// What no traffic means.
    #[serde(default)]
    pub on_no_traffic: OnNoTraffic,
}

/// A latency promise.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LatencyPromise {
    /// The percentile, 50 to 99.9.
    #[schemars(range(min = 50.0, max = 99.9))]
    pub percentile: f64,
    /// Its highest value.
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::duration("spec.analysis.latency[].max"))]
    pub max: String,
}

/// A metric of another system.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Its name, for messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A Prometheus instant query.
    pub prometheus: PrometheusQuery,
}

/// A Prometheus instant query.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// The query.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The highest value that passes.
    pub max: f64,
}

/// What no traffic means.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema,
)]
pub enum OnNoTraffic {
    /// Nothing: the step waits.
    #[default]
    Hold,
    /// A step whose hold is over passes although no request was seen.
    Advance,
    /// A step whose hold is over without a request rolls the candidate back.
    Rollback,
    /// A value that a later CRD allows. It keeps one object's novelty from hiding all others: a list
    /// with a value that cannot be read is not read at all.
    #[serde(other)]
    #[schemars(skip)]
    Later,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            max_error_rate: default_max_error_rate(),
            max_relative_risk: default_max_relative_risk(),
            latency: None,
            confidence: default_confidence(),
            promotion_confidence: default_promotion_confidence(),
            hung_after: default_hung_after(),
            hold: default_hold(),
            metrics: None,
            on_no_traffic: OnNoTraffic::Hold,
        }
    }
}

fn default_max_error_rate() -> String {
    "1%".to_owned()
}

fn default_max_relative_risk() -> f64 {
    1.5
}

fn default_confidence() -> String {
    "99.9%".to_owned()
}

fn default_promotion_confidence() -> String {
    "95%".to_owned()
}

fn default_hung_after() -> String {
    "10s".to_owned()
}

fn default_hold() -> String {
    "30s".to_owned()
}
