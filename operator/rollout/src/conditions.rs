//! Conditions after kstatus (kubernetes-sigs/cli-utils, pkg/kstatus): Reconciling and Stalled
//! are abnormal and absent when all is well; Ready is always there.

use crate::Millis;
use crate::decide::{MISSING_PATIENCE_MS, lacking};
use crate::desired::ScaleDown;
use crate::observation::{CandidateView, Observation, UnheldAutoscaler, Workload};
use crate::policy::{Policy, PolicyError, pods_for};
use crate::project::scale_down;
use crate::state::{PauseReason, Phase, State};

/// One condition, without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Ready, Reconciling, Stalled, AutoscalerNotHeld, Doubted or PodFault.
    pub kind: &'static str,
    /// True, False or Unknown.
    pub status: &'static str,
    /// CamelCase.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// All conditions of a rollout.
#[must_use]
pub fn conditions(
    policy: Result<&Policy, &PolicyError>,
    state: &State,
    seen: &Observation,
    now: Millis,
) -> Vec<Condition> {
    let mut all = match verdict(policy, state, seen, now) {
        Standing::Ready(message) => vec![condition("Ready", "True", "Stable", message)],
        Standing::Moving(reason, message) => vec![
            condition("Ready", "Unknown", reason, message.clone()),
            condition("Reconciling", "True", reason, message),
        ],
        Standing::Stuck(reason, message) => vec![
            condition("Ready", "False", reason, message.clone()),
            condition("Stalled", "True", reason, message),
        ],
    };
    all.extend(unheld(state, seen));
    all.extend(doubted(seen));
    all.extend(pod_fault(state));
    all
}

/// Somebody says what cannot be.
fn doubted(seen: &Observation) -> Option<Condition> {
    let doubts = &seen.evidence.doubted;
    (!doubts.is_empty()).then(|| condition("Doubted", "True", "Overclaims", doubts.join("; ")))
}

/// The revision is judged without one of its pods.
fn pod_fault(state: &State) -> Option<Condition> {
    let fault = state.candidate.as_ref()?.pod_fault.as_ref()?;
    let message = format!(
        "{}: it gets no requests, and the revision is judged by the others. Delete it: \
         Sluice may delete no pods, and promotes nothing while it is there",
        fault.why
    );
    fault
        .left_out
        .then(|| condition("PodFault", "True", "LeftOut", message))
}

/// The rollout goes on, with less safety than it could have.
fn unheld(state: &State, seen: &Observation) -> Option<Condition> {
    let UnheldAutoscaler { name, manager } = seen.unheld.as_ref()?;
    let message = format!(
        "{manager} sets behavior.scaleDown.selectPolicy of HorizontalPodAutoscaler {name}, so it is left as it is: \
         it may take stable pods away while the candidate serves their share, which a rollback and the \
         promotion then lack. Leave that line out and Sluice holds it while a rollout runs, or say Disabled"
    );
    (scale_down(state) == ScaleDown::Hold)
        .then(|| condition("AutoscalerNotHeld", "True", "SetElsewhere", message))
}

/// The step for people: `2/5`, or nothing.
#[must_use]
pub fn step_text(policy: &Policy, state: &State) -> String {
    state.phase.step().map_or_else(String::new, |step| {
        format!("{}/{}", step + 1, policy.steps.len())
    })
}

enum Standing {
    Ready(String),
    Moving(&'static str, String),
    Stuck(&'static str, String),
}

fn condition(
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
) -> Condition {
    Condition {
        kind,
        status,
        reason,
        message,
    }
}

fn verdict(
    policy: Result<&Policy, &PolicyError>,
    state: &State,
    seen: &Observation,
    now: Millis,
) -> Standing {
    let policy = match policy {
        Ok(policy) => policy,
        Err(error) => return Standing::Stuck("InvalidSpec", error.to_string()),
    };
    if let Some(obstacle) = obstacle(state, seen, now) {
        return obstacle;
    }
    let revision = state
        .candidate
        .as_ref()
        .map_or("", |c| c.arm.revision.as_str());
    let moving = |reason, message| Standing::Moving(reason, message);
    match &state.phase {
        Phase::Idle => idle(state, seen),
        Phase::Preparing => moving(
            "Preparing",
            format!(
                "{revision} gets its first pods: {}",
                capacity(policy, 0, seen, state)
            ),
        ),
        Phase::Shifting { step } => moving(
            "Shifting",
            format!(
                "{revision} at {} %, step {}: waiting for {}",
                state.weight,
                step_text(policy, state),
                waiting_for(policy, *step, seen, state)
            ),
        ),
        Phase::Observing { .. } => {
            let waits = unapplied(seen, state).map(|what| format!(", and waiting for {what}"));
            moving(
                "Observing",
                format!(
                    "{revision} at {} %, step {}: {} of {} requests that the verdict needs{}",
                    state.weight,
                    step_text(policy, state),
                    seen.evidence.candidate.requests,
                    seen.evidence.needed,
                    waits.unwrap_or_default()
                ),
            )
        }
        Phase::Paused { why, .. } => paused(why, revision, state),
        Phase::Promoting { .. } => moving("Promoting", promoting(revision, state)),
        // Its end is certain, so nobody waits for the last proxy to hear of it.
        Phase::RollingBack { .. } if is_rejected(state, seen) => {
            Standing::Stuck("RollingBack", rejection(state))
        }
        Phase::RollingBack { .. } => moving("RollingBack", state.verdict.clone()),
        Phase::Rejected { .. } => Standing::Stuck("RolledBack", rejection(state)),
    }
}

fn promoting(revision: &str, state: &State) -> String {
    match state.left_out() {
        Some(pod) => format!(
            "{revision} becomes stable when pod {pod}, which fails alone, is deleted: kubectl delete pod {pod}"
        ),
        None => format!("{revision} becomes stable"),
    }
}

/// Whether the verdict is against the very revision that git wants.
fn is_rejected(state: &State, seen: &Observation) -> bool {
    let wanted = match &seen.workload {
        Workload::Missing => return false,
        Workload::Deployment(view) => &view.revision,
        Workload::Subsets(view) => &view.candidate_revision,
    };
    state.rejected.iter().any(|r| r.revision == *wanted)
}

fn rejection(state: &State) -> String {
    let Some(rejection) = state.rejected.first() else {
        return "the revision is rejected".to_owned();
    };
    format!(
        "revision {} is rejected: {}. Commit a fix, revert, or set spec.retry",
        rejection.revision, rejection.why
    )
}

fn idle(state: &State, seen: &Observation) -> Standing {
    let Some(stable) = &state.stable else {
        return Standing::Moving(
            "FirstDeployment",
            "the workload's first revision is not complete yet".to_owned(),
        );
    };
    // Between the end of one candidate and the beginning of the next.
    if let Workload::Deployment(view) = &seen.workload
        && view.revision != stable.revision
    {
        return Standing::Moving("Preparing", format!("{} is tried next", view.revision));
    }
    Standing::Ready(format!("revision {} serves", stable.revision))
}

/// How many of the pods that a step needs are ready, and what the cluster says of the others.
fn capacity(policy: &Policy, step: usize, seen: &Observation, state: &State) -> String {
    let left_out = state.left_out();
    let weight = policy.capacity_weight_at(step);
    match &seen.workload {
        Workload::Deployment(view) => {
            let candidate = view.candidate.as_ref();
            let ready = candidate.map_or(0, |c| c.can_serve(left_out));
            let ailment = candidate.and_then(CandidateView::ailment);
            lacking(ready, pods_for(weight, view.replicas), ailment)
        }
        Workload::Subsets(view) => {
            let needed = pods_for(weight, view.candidate_wanted);
            lacking(view.can_serve(left_out), needed, None)
        }
        Workload::Missing => lacking(0, 1, None),
    }
}

fn paused(why: &PauseReason, revision: &str, state: &State) -> Standing {
    let at = format!("{revision} at {} %", state.weight);
    match why {
        PauseReason::Step => {
            Standing::Moving("Paused", format!("{at}: a pause step waits for `resume`"))
        }
        PauseReason::Command => Standing::Moving(
            "Paused",
            format!("{at}: paused by command, waits for `resume`"),
        ),
        PauseReason::Contested { .. } => Standing::Moving("Contested", state.verdict.clone()),
        PauseReason::SharedOutage => Standing::Moving("SharedOutage", state.verdict.clone()),
        PauseReason::ScaledToZero => Standing::Moving(
            "ScaledToZero",
            format!(
                "{revision} waits: the workload is scaled to zero, and is tried further when it has replicas"
            ),
        ),
        PauseReason::Condemned => Standing::Stuck(
            "Condemned",
            format!("{}; say abort or retry", state.verdict),
        ),
    }
}

fn waiting_for(policy: &Policy, step: usize, seen: &Observation, state: &State) -> String {
    unapplied(seen, state)
        .unwrap_or_else(|| format!("capacity: {}", capacity(policy, step, seen, state)))
}

/// What is waited for until the split counts as applied.
fn unapplied(seen: &Observation, state: &State) -> Option<String> {
    let split = &seen.split;
    if split.fence != Some(state.fence) || split.behind > 0 {
        return Some(format!(
            "{} of {} proxies to apply it",
            split.behind, split.expected
        ));
    }
    if !split.complete {
        return Some("the replicas that serve proxies to report".to_owned());
    }
    split.too_many_away().then(|| {
        format!(
            "{} of {} proxies to be heard of again (status.laggards of the TrafficSplit names them)",
            split.away, split.expected
        )
    })
}

/// Something outside the rollout forbids any move.
fn obstacle(state: &State, seen: &Observation, now: Millis) -> Option<Standing> {
    if let Some(other) = &seen.conflict {
        return Some(Standing::Stuck(
            "Conflict",
            format!("the older MeshRollout {other} governs this workload: remove one of the two"),
        ));
    }
    if let Some(message) = missing(seen) {
        let late = state
            .missing_since
            .is_some_and(|since| now >= since + MISSING_PATIENCE_MS);
        let reason = "NotFound";
        return Some(if late {
            Standing::Stuck(reason, message)
        } else {
            Standing::Moving(reason, message)
        });
    }
    if let Workload::Deployment(view) = &seen.workload
        && let Some(manager) = &view.paused_by_git
    {
        return Some(Standing::Stuck(
            "PausedByGit",
            format!(
                "{manager} sets spec.paused of the Deployment: remove that line from git, Sluice holds releases itself"
            ),
        ));
    }
    if let Workload::Deployment(view) = &seen.workload
        && let Some(manager) = &view.paused_by_hand
    {
        return Some(Standing::Moving(
            "PausedByHand",
            format!(
                "{manager} has paused the Deployment: nothing is tried until `kubectl rollout resume` is said"
            ),
        ));
    }
    seen.split.refusal.as_ref().map(|refusal| {
        Standing::Stuck(
            "ProxyRefused",
            format!("a proxy refused its configuration: {refusal}"),
        )
    })
}

fn missing(seen: &Observation) -> Option<String> {
    if seen.workload == Workload::Missing {
        return Some("the workload does not exist: create it, or mend spec.workload".to_owned());
    }
    if !seen.missing_services.is_empty() {
        return Some(format!(
            "Service {} does not exist: create it, or mend spec.services",
            seen.missing_services.join(", ")
        ));
    }
    seen.services.is_empty().then(|| {
        "no Service selects the workload's pods: create one, or name it in spec.services".to_owned()
    })
}
