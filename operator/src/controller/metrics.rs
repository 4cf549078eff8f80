//! Metrics of the controller.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{facts::Key, seen::Kind};

/// Counters and gauges; a clone counts into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reconciles: Family<OutcomeLabels, Counter>,
    decisions: Counter,
    writes: Family<WriteLabels, Counter>,
    phase: Family<PhaseLabels, Gauge>,
    weight: Family<RolloutLabels, Gauge>,
    trying: Gauge,
    leader: Gauge,
    /// Candidates taken off traffic while the apiserver did not answer.
    pub ejects: Counter,
    /// Tables taken from serving replicas.
    pub relay_tables: Counter,
    /// Proxy entries that were not taken.
    pub relay_refused: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    object: Kind,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    namespace: String,
    rollout: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    namespace: String,
    rollout: String,
    phase: &'static str,
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Rollout => "MeshRollout",
            Self::Split => "TrafficSplit",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::Pod => "Pod",
            Self::Autoscaler => "HorizontalPodAutoscaler",
        };
        name.encode(encoder)
    }
}

impl Metrics {
    /// Makes them known under names that start with `sluice_`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "sluice_reconciles",
            "Looks at a MeshRollout",
            self.reconciles.clone(),
        );
        registry.register(
            "sluice_decisions",
            "Looks at a MeshRollout that changed its state",
            self.decisions.clone(),
        );
        registry.register(
            "sluice_writes",
            "Writes to the apiserver",
            self.writes.clone(),
        );
        registry.register(
            "sluice_rollout_phase",
            "1 for the phase that a MeshRollout is in",
            self.phase.clone(),
        );
        registry.register(
            "sluice_rollout_weight",
            "Percent of the requests that go to the candidate, as decided",
            self.weight.clone(),
        );
        registry.register(
            "sluice_rollouts_trying",
            "MeshRollouts that try a revision",
            self.trying.clone(),
        );
        registry.register(
            "sluice_leader",
            "1 while this process leads",
            self.leader.clone(),
        );
        registry.register(
            "sluice_ejects",
            "Candidates taken off traffic while the apiserver did not answer",
            self.ejects.clone(),
        );
        registry.register(
            "sluice_relay_tables",
            "Tables of proxies taken from serving replicas",
            self.relay_tables.clone(),
        );
        registry.register(
            "sluice_relay_refused",
            "Entries of proxies that could not be taken",
            self.relay_refused.clone(),
        );
    }

    /// A look ended.
    pub fn reconciled(&self, outcome: &'static str) {
        self.reconciles
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A look changed the state.
    pub fn decided(&self) {
        self.decisions.inc();
    }

    /// A write succeeded or not.
    pub fn write(&self, object: Kind, succeeded: bool) {
        let outcome = if succeeded { "ok" } else { "failed" };
        self.writes
            .get_or_create(&WriteLabels { object, outcome })
            .inc();
    }

    /// What a MeshRollout is at.
    pub fn rollout(
        &self,
        key: &Key,
        before: Option<&'static str>,
        phase: &'static str,
        weight: i32,
    ) {
        if let Some(before) = before.filter(|before| *before != phase) {
            self.phase.remove(&phase_labels(key, before));
        }
        self.count_trying(before, Some(phase));
        self.phase.get_or_create(&phase_labels(key, phase)).set(1);
        self.weight
            .get_or_create(&rollout_labels(key))
            .set(weight.into());
    }

    /// A MeshRollout is gone, or another process follows it.
    pub fn forget(&self, key: &Key, phase: Option<&'static str>) {
        if let Some(phase) = phase {
            self.phase.remove(&phase_labels(key, phase));
        }
        self.count_trying(phase, None);
        self.weight.remove(&rollout_labels(key));
    }

    fn count_trying(&self, before: Option<&'static str>, now: Option<&'static str>) {
        let tries = |phase: Option<&str>| {
            i64::from(phase.is_some_and(|phase| !matches!(phase, "Idle" | "Rejected")))
        };
        self.trying.inc_by(tries(now) - tries(before));
    }

    /// MeshRollouts that try a revision.
    #[must_use]
    pub fn trying(&self) -> u32 {
        u32::try_from(self.trying.get()).unwrap_or_default()
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

fn rollout_labels(key: &Key) -> RolloutLabels {
    RolloutLabels {
        namespace: key.namespace.clone(),
        rollout: key.name.clone(),
    }
}

fn phase_labels(key: &Key, phase: &'static str) -> PhaseLabels {
    PhaseLabels {
        namespace: key.namespace.clone(),
        rollout: key.name.clone(),
        phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_in_one_phase_and_goes_when_it_is_deleted() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let key = Key {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        metrics.rollout(&key, None, "Preparing", 0);
        metrics.rollout(&key, Some("Preparing"), "Observing", 10);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).map(|()| text)
        };
        let shown = text().unwrap_or_default();
        assert!(
            shown.contains("phase=\"Observing\"") && !shown.contains("Preparing"),
            "{shown}"
        );
        assert!(shown.contains("sluice_rollout_weight{namespace=\"shop\",rollout=\"web\"} 10"));
        assert_eq!(metrics.trying(), 1);
        metrics.forget(&key, Some("Observing"));
        assert!(!text().unwrap_or_default().contains("shop"));
        assert_eq!(metrics.trying(), 0);
    }
}
