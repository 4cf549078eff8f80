//! What a MeshRollout may not say, and what the answer tells to write instead.

use crate::{bare_rollout, place::Place, refused, rollout};

#[tokio::test]
async fn a_contradictory_rollout_is_refused_with_a_sentence_that_says_what_to_write() {
    let place = Place::new("crds-bad").await;
    let percentage = "must be a percentage between 0% and 100%: write it like 1% or 0.5%";
    let confidence = "must be at least 50% and below 100%: write it like 99.9%";
    let duration = "must be a duration: write it like 30s, 2m or 1h30m";
    let mode = "say either spec.workload (a canary of one Deployment) or spec.versions (two label subsets), not both and not neither";
    let bad = [
        (bare_rollout("{}"), mode),
        (
            rollout("versions: {stable: v1, candidate: v2}\n  services: [reviews]"),
            mode,
        ),
        (
            bare_rollout("{versions: {stable: v1, candidate: v2}}"),
            "with spec.versions, spec.services must name the Services whose traffic is split",
        ),
        (
            bare_rollout("{versions: {stable: v1, candidate: v2}, services: []}"),
            "with spec.versions, spec.services must name the Services",
        ),
        (
            bare_rollout("{versions: {stable: v1, candidate: v1}, services: [reviews]}"),
            "spec.versions.stable and spec.versions.candidate must differ",
        ),
        (
            bare_rollout("{versions: {stable: v1, candidate: 'v 2'}, services: [reviews]}"),
            "spec.versions.candidate must be the value of a label",
        ),
        (
            bare_rollout("{workload: {name: reviews, namespace: other}}"),
            "a MeshRollout governs a workload of its own namespace",
        ),
        (
            bare_rollout("{workload: {name: reviews, kind: StatefulSet}}"),
            "spec.workload.kind must be Deployment",
        ),
        (
            rollout("services: [reviews.bookinfo]"),
            "spec.services takes bare names of Services of this namespace: write reviews, not reviews.bookinfo",
        ),
        (
            rollout("services: [bookinfo/reviews]"),
            "spec.services takes bare names of Services of this namespace",
        ),
        (
            rollout("services: [reviews, reviews]"),
            "spec.services may name each of them only once",
        ),
        (
            rollout("strategy: {steps: []}"),
            "should have at least 1 items",
        ),
        (
            rollout("strategy: {steps: [{pause: {}}]}"),
            "spec.strategy.steps needs at least one {weight: N}",
        ),
        (
            rollout("strategy: {steps: [{weight: 50}, {weight: 25}, {weight: 100}]}"),
            "the weights of spec.strategy.steps must rise",
        ),
        (
            rollout("strategy: {steps: [{weight: 50}, {pause: {}}, {weight: 50}, {weight: 100}]}"),
            "each weight may stand only once in spec.strategy.steps: use hold to stay longer",
        ),
        (
            rollout("strategy: {steps: [{weight: 10}, {weight: 50}]}"),
            "the last weight of spec.strategy.steps must be 100",
        ),
        (
            rollout("strategy: {steps: [{weight: 0}, {weight: 100}]}"),
            "should be greater than or equal to 1",
        ),
        (
            rollout("strategy: {steps: [{weight: 100}, {weight: 101}]}"),
            "should be less than or equal to 100",
        ),
        (
            rollout("strategy: {steps: [{weight: 50, pause: {}}, {weight: 100}]}"),
            "a step is either {weight: N} or {pause: {}}",
        ),
        (
            rollout("strategy: {steps: [{}, {weight: 100}]}"),
            "a step is either {weight: N} or {pause: {}}",
        ),
        (
            rollout("strategy: {steps: [{pause: {}, hold: 5m}, {weight: 100}]}"),
            "for a pause of fixed length write {pause: {duration: 5m}}",
        ),
        (
            rollout("strategy: {steps: [{weight: 100, hold: two minutes}]}"),
            duration,
        ),
        (
            rollout("strategy: {steps: [{pause: {duration: 5}}, {weight: 100}]}"),
            "expected string",
        ),
        (rollout("analysis: {maxErrorRate: '1'}"), percentage),
        (rollout("analysis: {maxErrorRate: 101%}"), percentage),
        (rollout("analysis: {maxErrorRate: -1%}"), percentage),
        (rollout("analysis: {maxErrorRate: 1.%}"), percentage),
        (rollout("analysis: {maxErrorRate: 1x5%}"), percentage),
        (rollout("analysis: {maxErrorRate: 0.01}"), "expected string"),
        (
            rollout("analysis: {maxRelativeRisk: 0.5}"),
            "should be greater than or equal to 1",
        ),
        (rollout("analysis: {confidence: 0%}"), confidence),
        (rollout("analysis: {confidence: 100%}"), confidence),
        (rollout("analysis: {confidence: 99x9%}"), confidence),
        (
            rollout("analysis: {promotionConfidence: 49.9%}"),
            confidence,
        ),
        (rollout("analysis: {hold: 30}"), "expected string"),
        (rollout("analysis: {hold: 1d}"), duration),
        (
            rollout("analysis: {hungAfter: soon}"),
            "spec.analysis.hungAfter must be a duration between 100ms and 1h",
        ),
        (
            rollout("analysis: {hungAfter: 99ms}"),
            "spec.analysis.hungAfter must be a duration between 100ms and 1h",
        ),
        (
            rollout("analysis: {hungAfter: 61m}"),
            "spec.analysis.hungAfter must be a duration between 100ms and 1h",
        ),
        (
            rollout("analysis: {onNoTraffic: Promote}"),
            "supported values: \"Hold\", \"Advance\", \"Rollback\"",
        ),
        (
            rollout("onFailure: {action: Delete}"),
            "supported values: \"Rollback\", \"Pause\"",
        ),
        (
            rollout("onFailure: {keepCandidatePods: 11}"),
            "should be less than or equal to 10",
        ),
        (rollout("onFailure: {keepCandidateFor: forever}"), duration),
        (
            rollout("deadline: 0s"),
            "spec.deadline must be a duration between 1s and 8760h",
        ),
    ];
    refused(&place, bad).await;
}

#[tokio::test]
async fn what_is_not_in_force_yet_is_refused_by_name() {
    let place = Place::new("crds-not-yet").await;
    let bad = [
        (
            "router: Istio",
            "spec.router Istio or GatewayAPI is not in force yet: leave spec.router out",
        ),
        (
            "router: GatewayAPI",
            "spec.router Istio or GatewayAPI is not in force yet",
        ),
        (
            "strategy: {sticky: {header: x-user}}",
            "spec.strategy.sticky is not in force yet: remove it",
        ),
        (
            "strategy: {match: [{headers: {x-canary: {exact: '1'}}}]}",
            "spec.strategy.match is not in force yet: remove it",
        ),
        (
            "strategy: {mirror: 10%}",
            "spec.strategy.mirror is not in force yet: remove it",
        ),
        (
            "analysis: {latency: [{percentile: 99, max: 300ms}]}",
            "spec.analysis.latency is not in force yet: remove it",
        ),
        (
            "analysis: {metrics: [{name: errors, prometheus: {query: up, max: 0.01}}]}",
            "spec.analysis.metrics is not in force yet: remove it",
        ),
        (
            "gates: [{webhook: {url: 'https://example.com'}}]",
            "spec.gates is not in force yet: remove it, and use a step {pause: {}}",
        ),
    ];
    refused(
        &place,
        bad.map(|(spec, sentence)| (rollout(spec), sentence)),
    )
    .await;
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name_under_strict_validation() {
    let place = Place::new("crds-unknown").await;
    let bad = [
        (rollout("stategy: {}"), "spec.stategy"),
        (
            rollout("analysis: {maxErrors: 1%}"),
            "spec.analysis.maxErrors",
        ),
        (
            rollout("strategy: {steps: [{weight: 100, holds: 5m}]}"),
            "spec.strategy.steps[0].holds",
        ),
    ];
    refused(&place, bad).await;
}
