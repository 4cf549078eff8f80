//! Brings about what a state asks for, in the order of `Desired`'s fields: the split, the hold,
//! the candidate. Every write is made by the leader only, carries the resourceVersion that was
//! read before the state was written, and is remembered until the cache shows it.

mod candidate;
mod hold;
mod pods;
mod split;
mod split_status;
mod template;

pub use split::spec as split_spec;
pub use split_status::split_status;

use std::{future::Future, time::Duration};

use kube::{Client, ResourceExt, api::PostParams};

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
    /// The apiserver refused, or did not answer.
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
        let kube::Error::Api(status) = error else {
            return Self::Failed {
                what,
                message: error.to_string(),
            };
        };
        match (status.code, status.reason.as_str()) {
            (409, _) => Self::Conflict(what),
            (404, _) => Self::Conflict(what),
            // A namespace that is going refuses all that is new; this MeshRollout goes with it.
            (403, _) if status.message.contains("being terminated") => Self::Conflict(what),
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
            let message = format!("the apiserver did not answer within {patience:?}");
            Err(ActError::Failed { what, message })
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

    async fn attempt<T>(
        &self,
        kind: Kind,
        what: String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ActError> {
        if !self.leadership.leads() {
            return Err(ActError::NotLeading(what));
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
