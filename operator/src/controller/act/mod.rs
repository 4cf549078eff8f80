//! Brings about what a state asks for, in the order of `Desired`'s fields: the split, the hold,
//! the candidate, the autoscalers. Every write is made by the leader only, carries the
//! resourceVersion that was read before the state was written (or found to stand), and is
//! remembered until the cache shows it.

mod autoscaler;
mod candidate;
mod hold;
mod pods;
mod split;
mod split_status;
mod template;

pub(in crate::controller) use autoscaler::free;
pub use split::spec as split_spec;
pub use split_status::{Told, split_status};

use std::{future::Future, time::Duration};

use kube::{Api, Client, ResourceExt, api::PostParams, core::Status};
use sluice_crds::MeshRollout;
use tokio::sync::OnceCell;

use super::{
    facts::{Key, MANAGER, Meta, RolloutFacts},
    metrics::Metrics,
    seen::{Kind, Seen, Write},
    watches::Namespace,
    webhooks::Webhooks,
};
use crate::lease::Leadership;

/// The longest that one request may take; shorter than what is left of a Lease that was just
/// renewed, so that a write that hangs is given up by the one who sent it.
pub const REQUEST: Duration = Duration::from_secs(3);

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Another process leads.
    #[error("{0}: not written, this process does not lead any more")]
    NotLeading(String),
    /// Somebody wrote in between, or the caches are behind: look again.
    #[error("{0}: somebody wrote in between")]
    Conflict(String),
    /// The account may not do it.
    #[error("{what}: the operator's account may not: {message}; compare the chart's RBAC")]
    Forbidden {
        /// What was to be done.
        what: String,
        /// The apiserver's sentence.
        message: String,
    },
    /// The apiserver did not answer, or not to the question: it is down, cut off, overloaded, or
    /// without its store. Whether the write was made is not known.
    #[error("{what}: the apiserver does not answer: {message}; tried again until it does")]
    Silent {
        /// What was to be done.
        what: String,
        /// How that was noticed.
        message: String,
    },
    /// The apiserver refused.
    #[error("{what}: {message}")]
    Failed {
        /// What was to be done.
        what: String,
        /// Why not.
        message: String,
    },
    /// Something else must happen first; the sentence says what.
    #[error("{0}")]
    Waits(String),
}

impl ActError {
    /// From an answer of the apiserver.
    #[must_use]
    pub fn from_kube(what: String, error: &kube::Error) -> Self {
        let status = match error {
            kube::Error::Api(status) => status,
            kube::Error::HyperError(_) | kube::Error::Service(_) => {
                let message = error.to_string();
                return Self::Silent { what, message };
            }
            _ => {
                let message = error.to_string();
                return Self::Failed { what, message };
            }
        };
        match (status.code, status.reason.as_str()) {
            (429 | 500.., _) => Self::Silent {
                what,
                message: status.message.clone(),
            },
            // Looking again would not help: somebody else owns the field.
            (409, _) if is_owned_by_another(status) => Self::Failed {
                what,
                message: status.message.clone(),
            },
            (409, _) => Self::Conflict(what),
            (404, _) => Self::Conflict(what),
            // A namespace that is going refuses all that is new; this MeshRollout goes with it.
            (403, _) if is_of_a_going_namespace(status) => Self::Conflict(what),
            // A quota refuses with 403 too, and says so.
            (403, _) if status.message.contains("exceeded quota") => Self::Failed {
                what,
                message: format!(
                    "{}; a candidate runs beside the stable pods: make room for it, or raise the quota",
                    status.message
                ),
            },
            (403, _) => Self::Forbidden {
                what,
                message: status.message.clone(),
            },
            _ => Self::Failed {
                what,
                message: status.message.clone(),
            },
        }
    }
}

/// Whether something new was refused because its namespace is being deleted.
pub fn is_of_a_going_namespace(status: &Status) -> bool {
    status.message.contains("being terminated")
}

/// Whether a server-side apply met a field of another manager.
fn is_owned_by_another(status: &Status) -> bool {
    let details = status.details.iter();
    let mut causes = details.flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "FieldManagerConflict")
}

/// The apiserver's answer to a request, waited for this long at the most.
///
/// # Errors
/// It refused, or did not answer in time.
pub async fn answer<T>(
    what: String,
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ActError> {
    match tokio::time::timeout(patience, request).await {
        Ok(answer) => answer.map_err(|error| ActError::from_kube(what, &error)),
        Err(_) => {
            let message = format!("nothing came within {patience:?}");
            Err(ActError::Silent { what, message })
        }
    }
}

/// Writes on behalf of one MeshRollout.
pub struct Writer<'a> {
    /// The apiserver.
    pub client: &'a Client,
    /// Whether this process leads.
    pub leadership: &'a Leadership,
    /// Remembers what was written.
    pub seen: &'a Seen,
    /// Counts what was written.
    pub metrics: &'a Metrics,
    /// The hold and the gate.
    pub webhooks: &'a Webhooks,
    /// The MeshRollout.
    pub rollout: &'a RolloutFacts,
    /// Its namespace, as the decision saw it.
    pub namespace: &'a Namespace,
    /// Set once the apiserver has said that the state is the newest one.
    pub state_stands: &'a OnceCell<()>,
}

impl Writer<'_> {
    fn key(&self) -> Key {
        self.rollout.meta.key()
    }

    /// Sends one write and remembers it. The metric is counted by kind and outcome.
    pub(super) async fn send<K: ResourceExt>(
        &self,
        kind: Kind,
        what: String,
        request: impl Future<Output = kube::Result<K>>,
    ) -> Result<K, ActError> {
        let written = self.attempt(kind, what, request).await?;
        self.seen.expect(
            &self.key(),
            Write {
                kind,
                namespace: written.namespace().unwrap_or_default(),
                name: written.name_any(),
                uid: written.uid().unwrap_or_default(),
                version: written.resource_version(),
            },
        );
        Ok(written)
    }

    /// Sends one deletion and remembers it.
    async fn send_delete<T>(
        &self,
        kind: Kind,
        what: String,
        meta: &Meta,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<(), ActError> {
        self.attempt(kind, what, request).await?;
        self.seen.expect(
            &self.key(),
            Write {
                kind,
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                version: None,
            },
        );
        Ok(())
    }

    /// Where a look has found nothing to write into the status, its effects follow from a status
    /// that may have been read too early, and be against what another leader has decided since.
    /// The same status, in the version that was read, writes nothing, or is refused.
    async fn confirm_state(&self) -> Result<(), ActError> {
        let rollout = self.rollout.with(self.rollout.status());
        let name = &self.rollout.meta.name;
        let api = Api::<MeshRollout>::namespaced(self.client.clone(), &self.rollout.meta.namespace);
        let what = format!("status of MeshRollout {name}");
        let params = params();
        answer(what, REQUEST, api.replace_status(name, &params, &rollout)).await?;
        Ok(())
    }

    async fn attempt<T>(
        &self,
        kind: Kind,
        what: String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ActError> {
        if !self.leadership.leads() {
            return Err(ActError::NotLeading(what));
        }
        if kind != Kind::Rollout {
            self.state_stands
                .get_or_try_init(|| self.confirm_state())
                .await?;
        }
        let outcome = answer(what, REQUEST, request).await;
        self.metrics.write(kind, outcome.is_ok());
        outcome
    }
}

fn params() -> PostParams {
    PostParams {
        dry_run: false,
        field_manager: Some(MANAGER.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> ActError {
        let status = kube::core::Status {
            code,
            message: message.to_owned(),
            ..Default::default()
        };
        ActError::from_kube(
            "ReplicaSet x".to_owned(),
            &kube::Error::Api(Box::new(status)),
        )
    }

    #[test]
    fn only_an_apiserver_that_could_not_say_is_silent() {
        for code in [429, 500, 503, 504] {
            assert!(matches!(refused(code, "etcd"), ActError::Silent { .. }));
        }
        for code in [400, 403, 404, 409, 410, 422] {
            assert!(!matches!(refused(code, "no"), ActError::Silent { .. }));
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(matches!(refused(409, "changed"), ActError::Conflict(_)));
        let forbidden = refused(403, "cannot create replicasets").to_string();
        assert!(forbidden.contains("RBAC"), "{forbidden}");
        let quota = refused(403, "pods \"x\" is forbidden: exceeded quota: small").to_string();
        assert!(!quota.contains("RBAC"), "{quota}");
        assert!(quota.contains("raise the quota"), "{quota}");
        let going = "unable to create new content in namespace x because it is being terminated";
        assert!(matches!(refused(403, going), ActError::Conflict(_)));
    }
}
