//! The hold: a governed Deployment is paused in the very request that brings a template which
//! is not its stable revision, and released in the one that brings stable's back.
//!
//! It leaves no annotation on the Deployment. The Deployment controller copies those to
//! ReplicaSets, and `kubectl rollout undo` copies them back from there, so that an old one would
//! come to life again; and at promotion, where the controller writes `spec.paused` alone, nobody
//! could take it away. What was done stands in the audit log, in a warning (kubectl, Flux and
//! Argo CD show it) and in the MeshRollout's status.

use kube::core::DynamicObject;
use serde_json::{Value, json};
use sluice_crds::MeshRollout;
use sluice_rollout::revision;

use super::{
    caches::Caches,
    review::{Answer, Request},
};

/// Field manager of the controller, whose ownership of `spec.paused` is ours.
const CONTROLLER: &str = "sluice-controller";

/// Who governs a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Governance {
    /// No MeshRollout names it.
    Nobody,
    /// This MeshRollout does, but has not seen a stable revision yet.
    Unseen {
        /// Its name.
        rollout: String,
    },
    /// This MeshRollout does.
    Governed {
        /// Its name.
        rollout: String,
        /// The stable revision.
        stable: String,
        /// The revision that it has rejected, if that is its state.
        rejected: Option<String>,
    },
}

impl Governance {
    /// What a MeshRollout's status says.
    pub(super) fn of(rollout: &MeshRollout) -> Self {
        let name = rollout.metadata.name.clone().unwrap_or_default();
        let status = rollout.status.as_ref();
        let Some(stable) = status.and_then(|status| status.stable.as_ref()) else {
            return Self::Unseen { rollout: name };
        };
        let rejected = status
            .filter(|status| status.phase.as_deref() == Some("Rejected"))
            .and_then(|status| status.candidate.as_ref())
            .map(|candidate| candidate.revision.clone());
        Self::Governed {
            rollout: name,
            stable: stable.revision.clone(),
            rejected,
        }
    }
}

/// What a request does to a Deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether our own controller asks.
    pub by_controller: bool,
    /// Revision before.
    pub old: String,
    /// Revision after.
    pub new: String,
    /// `spec.paused` before.
    pub was_paused: bool,
    /// `spec.paused` after, as requested.
    pub paused: bool,
    /// The field manager that owns `spec.paused`, if it is somebody else.
    pub paused_by: Option<String>,
}

/// What is made of it; the texts are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// It passes as it is.
    Leave,
    /// It passes as it is, and someone should know.
    Warn(String),
    /// `spec.paused` becomes true (or stays so).
    Pause(String),
    /// `spec.paused` goes.
    Release(String),
}

/// The decision, whole.
pub(super) fn decide(change: &Change, governance: &Governance) -> Hold {
    if change.by_controller {
        return Hold::Leave;
    }
    let (rollout, stable, rejected) = match governance {
        Governance::Nobody => return Hold::Leave,
        Governance::Unseen { rollout } => {
            return Hold::Warn(format!(
                "not held: MeshRollout {rollout} has no stable revision yet"
            ));
        }
        Governance::Governed {
            rollout,
            stable,
            rejected,
        } => (rollout, stable, rejected),
    };
    if change.paused
        && let Some(manager) = &change.paused_by
    {
        return Hold::Warn(format!(
            "spec.paused is set by {manager}: MeshRollout {rollout} leaves it; remove it from the manifest"
        ));
    }
    if change.new == *stable {
        if !change.paused {
            return Hold::Leave;
        }
        return Hold::Release(format!(
            "released by MeshRollout {rollout}: the template is stable revision {} again",
            short(stable)
        ));
    }
    let same_template = change.old == change.new;
    if same_template && !change.was_paused && !change.paused {
        // It is there already, unheld: what becomes of it is the controller's to decide.
        return Hold::Leave;
    }
    let new = short(&change.new);
    if rejected.as_deref() == Some(change.new.as_str()) {
        return Hold::Pause(format!(
            "held by MeshRollout {rollout}: revision {new} was rejected; apply another one, or change spec.retry"
        ));
    }
    if same_template && !change.paused {
        return Hold::Pause(format!(
            "still held by MeshRollout {rollout}: revision {new} is not promoted; annotation sluice.dev/command does"
        ));
    }
    Hold::Pause(format!(
        "held by MeshRollout {rollout}: revision {new} is tried beside stable {} first",
        short(stable)
    ))
}

/// The answer to a review.
pub(super) fn review(
    request: &Request<DynamicObject>,
    caches: &Caches,
    controller_account: &str,
) -> Result<Answer, String> {
    let (Some(object), Some(old)) = (&request.object, &request.old_object) else {
        return Ok(Answer::allowed());
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let governance = caches.governance(namespace, &request.name);
    if governance == Governance::Nobody {
        return Ok(Answer::allowed());
    }
    let template = |object: &DynamicObject| {
        let template = object.data.pointer("/spec/template");
        template
            .map(revision::of_template)
            .ok_or("the Deployment has no spec.template")
    };
    let change = Change {
        by_controller: request.user_info.username.as_deref() == Some(controller_account),
        old: template(old)?,
        new: template(object)?,
        was_paused: paused(old),
        paused: paused(object),
        paused_by: owner_of_paused(object),
    };
    let answer = Answer::allowed();
    Ok(match decide(&change, &governance) {
        Hold::Leave => answer,
        Hold::Warn(why) => answer.did("left", &why).warn(why),
        Hold::Pause(why) => {
            let patch = json!([{"op": "add", "path": "/spec/paused", "value": true}]);
            let answer = if change.paused {
                answer
            } else {
                answer.patch(patch)
            };
            answer.did("held", &why).warn(why)
        }
        Hold::Release(why) => answer
            .patch(json!([{"op": "remove", "path": "/spec/paused"}]))
            .did("released", &why)
            .warn(why),
    })
}

fn paused(deployment: &DynamicObject) -> bool {
    deployment.data.pointer("/spec/paused") == Some(&Value::Bool(true))
}

/// The manager, other than our controller, that says it owns `spec.paused`. The apiserver keeps
/// this before it asks webhooks, so what a webhook sets is owned by nobody.
fn owner_of_paused(deployment: &DynamicObject) -> Option<String> {
    let entries = deployment.metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| entry.manager.as_deref() != Some(CONTROLLER))
        .find(|entry| {
            let fields = entry.fields_v1.as_ref();
            fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:paused").is_some())
        })
        .map(|entry| {
            entry
                .manager
                .clone()
                .unwrap_or_else(|| "somebody".to_owned())
        })
}

fn short(revision: &str) -> &str {
    revision.get(..10).unwrap_or(revision)
}

#[cfg(test)]
mod tests;
