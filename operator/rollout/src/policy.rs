//! A MeshRollout's spec, read and checked.

use sluice_crds::units::{self, UnitError};
use sluice_crds::{FailureAction, MeshRolloutSpec, OnNoTraffic, Router, Step, names};

/// What the engine goes by. Made from the spec by [`Policy::from_spec`].
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The pod label that tells arms apart: `pod-template-hash` in mode A.
    pub pod_label: String,
    /// Mode B: (stable, candidate) values of that label.
    pub versions: Option<(String, String)>,
    /// The steps, in order.
    pub steps: Vec<PolicyStep>,
    /// The verdict's rules.
    pub rules: Rules,
    /// What no traffic means.
    pub on_no_traffic: OnNoTraffic,
    /// What is done with a condemned revision.
    pub on_failure: FailureAction,
    /// Pods of it that are kept.
    pub keep_candidate_pods: i32,
    /// How long they are kept, ms.
    pub keep_candidate_ms: i64,
    /// Any new string tries a rejected revision again.
    pub retry: String,
    /// The longest a rollout may take, ms, without paused time.
    pub deadline_ms: i64,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyStep {
    /// Go to this weight and stay at least this long, ms.
    Weight {
        /// Percent.
        weight: i32,
        /// The least time, ms.
        hold_ms: i64,
    },
    /// Wait for a person, or this long, ms.
    Pause {
        /// None: for a person.
        duration_ms: Option<i64>,
    },
}

/// The verdict's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Absolute promise: failures a request, binding while stable keeps it.
    pub max_error_rate: f64,
    /// How many times worse than stable is tolerated.
    pub max_relative_risk: f64,
    /// Chance of a false condemnation over the whole life of a revision: 1 - confidence.
    pub alpha: f64,
    /// 1 - promotionConfidence.
    pub promotion_alpha: f64,
    /// When a request counts as hung, ms.
    pub hung_after_ms: i64,
}

/// Why a spec cannot be gone by. The CRD's rules refuse all of this at admission; an object
/// that was stored before a rule existed is Stalled with the sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A percentage or a duration cannot be read.
    #[error("spec.{field}: {source}")]
    Unit {
        /// Path of the field below spec.
        field: &'static str,
        /// What is wrong with it.
        source: UnitError,
    },
    /// Neither or both of the modes.
    #[error("say either spec.workload or spec.versions, not both and not neither")]
    Mode,
    /// A step without a weight and without a pause.
    #[error("spec.strategy.steps: a step is either {{weight: N}} or {{pause: {{}}}}")]
    Step,
    /// Weights that do not rise to 100.
    #[error("spec.strategy.steps: the weights must rise, and the last one must be 100")]
    Weights,
    /// No request could be served with such a risk.
    #[error("spec.analysis.maxRelativeRisk must be at least 1")]
    Risk,
    /// A CRD of a later version allows what this version would ignore.
    #[error(
        "spec.{0} asks for what this version of the operator does not do, and a later one may: upgrade the operator, or remove it"
    )]
    Unhonoured(&'static str),
}

impl Policy {
    /// Reads a spec.
    ///
    /// # Errors
    /// [`PolicyError`], whose text says which field to change.
    pub fn from_spec(spec: &MeshRolloutSpec) -> Result<Self, PolicyError> {
        if spec.workload.is_some() == spec.versions.is_some() {
            return Err(PolicyError::Mode);
        }
        if let Some(field) = unhonoured(spec) {
            return Err(PolicyError::Unhonoured(field));
        }
        let analysis = &spec.analysis;
        if analysis.max_relative_risk.is_nan() || analysis.max_relative_risk < 1.0 {
            return Err(PolicyError::Risk);
        }
        let hold_ms = millis("analysis.hold", &analysis.hold)?;
        let steps: Vec<PolicyStep> = spec
            .strategy
            .steps
            .iter()
            .map(|step| read_step(step, hold_ms))
            .collect::<Result<_, _>>()?;
        check_weights(&steps)?;
        Ok(Self {
            pod_label: spec
                .versions
                .as_ref()
                .map_or(names::POD_TEMPLATE_HASH, |versions| &versions.label)
                .to_owned(),
            versions: spec
                .versions
                .as_ref()
                .map(|v| (v.stable.clone(), v.candidate.clone())),
            steps,
            rules: Rules {
                max_error_rate: fraction("analysis.maxErrorRate", &analysis.max_error_rate)?,
                max_relative_risk: analysis.max_relative_risk,
                alpha: 1.0 - fraction("analysis.confidence", &analysis.confidence)?,
                promotion_alpha: 1.0
                    - fraction(
                        "analysis.promotionConfidence",
                        &analysis.promotion_confidence,
                    )?,
                hung_after_ms: millis("analysis.hungAfter", &analysis.hung_after)?,
            },
            on_no_traffic: analysis.on_no_traffic,
            on_failure: spec.on_failure.action,
            keep_candidate_pods: spec.on_failure.keep_candidate_pods,
            keep_candidate_ms: millis(
                "onFailure.keepCandidateFor",
                &spec.on_failure.keep_candidate_for,
            )?,
            retry: spec.retry.clone(),
            deadline_ms: millis("deadline", &spec.deadline)?,
        })
    }

    /// The weight that is in force at a step: its own, or that of the last weight before a
    /// pause; 0 for a pause before any weight.
    #[must_use]
    pub fn weight_at(&self, step: usize) -> i32 {
        self.steps
            .iter()
            .take(step + 1)
            .rev()
            .find_map(|step| match step {
                PolicyStep::Weight { weight, .. } => Some(*weight),
                PolicyStep::Pause { .. } => None,
            })
            .unwrap_or(0)
    }

    /// The weight whose capacity a step needs: that in force, or the first one while it is 0,
    /// so that a pause before any weight is about pods that are there.
    #[must_use]
    pub fn capacity_weight_at(&self, step: usize) -> i32 {
        let weight = self.weight_at(step);
        if weight > 0 {
            return weight;
        }
        (step..self.steps.len())
            .map(|later| self.weight_at(later))
            .find(|w| *w > 0)
            .unwrap_or(100)
    }
}

/// Pods that a weight needs: its share of `replicas`, rounded up, at least one.
#[must_use]
pub fn pods_for(weight: i32, replicas: i32) -> i32 {
    let share = (i64::from(replicas) * i64::from(weight) + 99) / 100;
    let most = replicas.max(1);
    i32::try_from(share).unwrap_or(most).clamp(1, most)
}

/// The first field that asks for what nothing here does. The CRD of this version refuses them;
/// that of a later one, under which this version may run for a while, does not.
fn unhonoured(spec: &MeshRolloutSpec) -> Option<&'static str> {
    let (strategy, analysis) = (&spec.strategy, &spec.analysis);
    let says = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let asked = [
        ("router", spec.router != Router::Sluice),
        ("gates", says(spec.gates.as_ref().map(Vec::len))),
        ("strategy.sticky", strategy.sticky.is_some()),
        (
            "strategy.match",
            says(strategy.matches.as_ref().map(Vec::len)),
        ),
        ("strategy.mirror", strategy.mirror.is_some()),
        (
            "analysis.latency",
            says(analysis.latency.as_ref().map(Vec::len)),
        ),
        (
            "analysis.metrics",
            says(analysis.metrics.as_ref().map(Vec::len)),
        ),
        (
            "analysis.onNoTraffic",
            analysis.on_no_traffic == OnNoTraffic::Later,
        ),
        (
            "onFailure.action",
            spec.on_failure.action == FailureAction::Later,
        ),
    ];
    let mut asked = asked.into_iter().filter(|(_, is_asked)| *is_asked);
    asked.next().map(|(field, _)| field)
}

fn read_step(step: &Step, hold_ms: i64) -> Result<PolicyStep, PolicyError> {
    match (step.weight, &step.pause) {
        (Some(weight), None) => Ok(PolicyStep::Weight {
            weight,
            hold_ms: step
                .hold
                .as_ref()
                .map_or(Ok(hold_ms), |hold| millis("strategy.steps.hold", hold))?,
        }),
        (None, Some(pause)) => Ok(PolicyStep::Pause {
            duration_ms: pause
                .duration
                .as_ref()
                .map(|duration| millis("strategy.steps.pause.duration", duration))
                .transpose()?,
        }),
        _ => Err(PolicyError::Step),
    }
}

fn check_weights(steps: &[PolicyStep]) -> Result<(), PolicyError> {
    let weights: Vec<i32> = steps
        .iter()
        .filter_map(|step| match step {
            PolicyStep::Weight { weight, .. } => Some(*weight),
            PolicyStep::Pause { .. } => None,
        })
        .collect();
    let rising = weights.windows(2).all(|pair| pair[0] < pair[1]);
    let bounded = weights.first().is_some_and(|first| *first >= 1) && weights.last() == Some(&100);
    if rising && bounded {
        Ok(())
    } else {
        Err(PolicyError::Weights)
    }
}

fn millis(field: &'static str, text: &str) -> Result<i64, PolicyError> {
    let duration = units::duration(text).map_err(|source| PolicyError::Unit { field, source })?;
    Ok(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn fraction(field: &'static str, text: &str) -> Result<f64, PolicyError> {
    units::percent(text).map_err(|source| PolicyError::Unit { field, source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn read(more: Value) -> Result<Policy, PolicyError> {
        let mut spec = json!({"workload": {"name": "web"}});
        let fields = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        Policy::from_spec(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn what_a_later_crd_allows_is_refused_by_name_and_not_ignored() {
        assert!(read(json!({"gates": [], "router": "Sluice"})).is_ok());
        for (spec, field) in [
            (json!({"router": "Istio"}), "router"),
            (json!({"router": "Later"}), "router"),
            (json!({"router": "Unheard"}), "router"),
            (json!({"gates": [{}]}), "gates"),
            (json!({"strategy": {"mirror": "10%"}}), "strategy.mirror"),
            (
                json!({"strategy": {"sticky": {"header": "x-user"}}}),
                "strategy.sticky",
            ),
            (
                json!({"strategy": {"match": [{"headers": {}}]}}),
                "strategy.match",
            ),
            (
                json!({"analysis": {"latency": [{"percentile": 99, "max": "1s"}]}}),
                "analysis.latency",
            ),
            (
                json!({"analysis": {"metrics": [{"name": "m", "prometheus": {"query": "q", "max": 1}}]}}),
                "analysis.metrics",
            ),
            (
                json!({"analysis": {"onNoTraffic": "Ask"}}),
                "analysis.onNoTraffic",
            ),
            (
                json!({"onFailure": {"action": "Freeze"}}),
                "onFailure.action",
            ),
        ] {
            assert_eq!(read(spec), Err(PolicyError::Unhonoured(field)));
        }
        let why = PolicyError::Unhonoured("router").to_string();
        assert!(
            why.contains("spec.router") && why.contains("upgrade the operator"),
            "{why}"
        );
    }
}
