//! The injection of sidecars: `sluice_inject` decides and writes the patch.

use k8s_openapi::api::core::v1::Pod;
use sluice_inject::{Decision, Exclusions, Settings, decide, patch};

use super::{
    caches::Caches,
    review::{Answer, Request},
};

/// The answer to a review.
pub(super) fn review(
    request: &Request<Pod>,
    caches: &Caches,
    defaults: &Settings,
) -> Result<Answer, String> {
    let Some(pod) = &request.object else {
        return Ok(Answer::allowed());
    };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    if namespace == defaults.system_namespace {
        return Ok(Answer::allowed().did("left", "the control plane itself has no sidecars"));
    }
    match decide(pod, &caches.namespace_labels(namespace)) {
        Decision::Skip(why) => Ok(Answer::allowed().did("left", why)),
        Decision::Inject => {
            let settings = caches.settings(defaults);
            let patch = serde_json::to_value(patch(pod, &settings))
                .map_err(|error| format!("the patch cannot be written: {error}"))?;
            let answer = Answer::allowed()
                .patch(patch)
                .did("injected", &settings.image);
            Ok(Exclusions::of(pod)
                .unread
                .into_iter()
                .fold(answer, Answer::warn))
        }
    }
}
