//! AdmissionReview in, AdmissionReview out.

use kube::{
    Resource,
    core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::info;

/// What the apiserver asks.
pub(super) type Request<T> = AdmissionRequest<T>;

/// What is answered. Nothing is ever refused: a webhook changes, or lets pass.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    patch: Option<Value>,
    action: Option<&'static str>,
    why: String,
    warnings: Vec<String>,
}

impl Answer {
    /// Lets it pass.
    pub(super) fn allowed() -> Self {
        Self::default()
    }

    /// Changes it by a JSON patch.
    pub(super) fn patch(mut self, patch: Value) -> Self {
        self.patch = Some(patch);
        self
    }

    /// What was done, in one word, and why, in one sentence.
    pub(super) fn did(mut self, action: &'static str, why: &str) -> Self {
        self.action = Some(action);
        why.clone_into(&mut self.why);
        self
    }

    /// Tells the caller.
    pub(super) fn warn(mut self, warning: String) -> Self {
        self.warnings.push(warning);
        self
    }

    /// What was done, for the metrics.
    pub(super) fn action(&self) -> &'static str {
        self.action.unwrap_or("passed")
    }
}

/// Reads a review, asks `decide`, and writes the answer.
///
/// # Errors
/// One sentence, for an HTTP 400.
pub(super) fn answer<T>(
    body: &[u8],
    decide: impl FnOnce(&Request<T>) -> Result<Answer, String>,
) -> Result<(Vec<u8>, &'static str), String>
where
    T: Resource + DeserializeOwned + Serialize,
{
    let review: AdmissionReview<T> = serde_json::from_slice(body)
        .map_err(|error| format!("not an AdmissionReview of admission.k8s.io/v1: {error}"))?;
    let request: Request<T> = review
        .try_into()
        .map_err(|_| "the AdmissionReview has no request".to_owned())?;
    let answer = decide(&request)?;
    let action = answer.action();
    if let Some(word) = answer.action.filter(|_| answer.patch.is_some()) {
        info!(
            namespace = request.namespace,
            name = request.name,
            dry_run = request.dry_run,
            action = word,
            why = answer.why,
            "webhook"
        );
    }
    let mut response = AdmissionResponse::from(&request);
    if let Some(patch) = answer.patch {
        let patch =
            serde_json::from_value(patch).map_err(|error| format!("the patch is none: {error}"))?;
        response = response
            .with_patch(patch)
            .map_err(|error| format!("the patch cannot be written: {error}"))?;
    }
    if let Some(action) = answer.action {
        let text = format!("{action}: {}", answer.why);
        response.audit_annotations.insert("action".to_owned(), text);
    }
    if !answer.warnings.is_empty() {
        response.warnings = Some(answer.warnings);
    }
    let body = serde_json::to_vec(&response.into_review())
        .map_err(|error| format!("the answer cannot be written: {error}"))?;
    Ok((body, action))
}
