//! `behavior.scaleDown.selectPolicy` of the Deployment's HorizontalPodAutoscalers, while a
//! rollout runs.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_rollout::{Millis, desired::ScaleDown};

use super::{ActError, Writer};
use crate::controller::{
    facts::{AutoscalerFacts, DeploymentFacts, MANAGER},
    seen::Kind,
};

/// For how long an autoscaler goes by its highest recommendation, where it does not say; also a
/// default of kube-controller-manager.
const WINDOW: Millis = 300_000;
/// Metrics of a pod may be this old.
const METRICS_LAG: Millis = 60_000;

/// When an autoscaler has forgotten that stable pods had little to do: it could else take them
/// away at the very moment at which they have everything to do again.
fn forgets_at(autoscaler: &AutoscalerFacts, since: Millis) -> Millis {
    let window = autoscaler
        .window_seconds
        .map_or(WINDOW, |s| s.saturating_mul(1000));
    since.saturating_add(window.max(METRICS_LAG))
}

fn object(autoscaler: &AutoscalerFacts) -> Value {
    json!({
        "apiVersion": HorizontalPodAutoscaler::api_version(&()),
        "kind": HorizontalPodAutoscaler::kind(&()),
        "metadata": {
            "name": autoscaler.meta.name,
            "uid": autoscaler.meta.uid,
            "resourceVersion": autoscaler.meta.version,
        },
    })
}

/// Takes possession of the field, if nobody else says what it is.
fn hold(autoscaler: &AutoscalerFacts) -> Option<(PatchParams, Patch<Value>)> {
    if autoscaler.is_disabled || autoscaler.set_by.is_some() {
        return None;
    }
    let mut params = PatchParams::apply(MANAGER);
    params.force = autoscaler.is_filled_in;
    let mut object = object(autoscaler);
    object["spec"] = json!({"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}});
    Some((params, Patch::Apply(object)))
}

/// Gives the field back, so that the object is as git has it: with our field the apiserver has
/// filled in the rest of `behavior`, which nobody owns, and which goes with it.
pub(in crate::controller) fn free(
    autoscaler: &AutoscalerFacts,
) -> Option<(PatchParams, Patch<Value>)> {
    if !autoscaler.is_ours {
        return None;
    }
    let mut object = object(autoscaler);
    if autoscaler.has_behavior {
        return Some((PatchParams::apply(MANAGER), Patch::Apply(object)));
    }
    object["spec"] = json!({"behavior": null});
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    Some((params, Patch::Merge(object)))
}

impl Writer<'_> {
    /// Holds or frees the autoscalers of the Deployment; when to look again at one that is to be
    /// freed later.
    pub async fn autoscalers(
        &self,
        deployment: &DeploymentFacts,
        scale_down: ScaleDown,
        now: Timestamp,
    ) -> Result<Option<Millis>, ActError> {
        let all = self.namespace.autoscalers.iter();
        let mut later = None::<Millis>;
        for autoscaler in all.filter(|a| a.scales(&deployment.meta.name)) {
            let (doing, change) = match scale_down {
                ScaleDown::Leave => return Ok(None),
                ScaleDown::Hold => ("holding", hold(autoscaler)),
                ScaleDown::Free { since } => {
                    let at = forgets_at(autoscaler, since);
                    if autoscaler.is_ours && at > now.as_millisecond() {
                        later = Some(later.map_or(at, |earlier| earlier.min(at)));
                        continue;
                    }
                    ("freeing", free(autoscaler))
                }
            };
            let Some((params, patch)) = change else {
                continue;
            };
            let name = &autoscaler.meta.name;
            let api = Api::<HorizontalPodAutoscaler>::namespaced(
                self.client.clone(),
                &autoscaler.meta.namespace,
            );
            let what = format!("{doing} HorizontalPodAutoscaler {name}");
            let request = async { api.patch(name, &params, &patch).await };
            self.send(Kind::Autoscaler, what, request).await?;
        }
        Ok(later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures::autoscaler;

    fn sent(change: Option<(PatchParams, Patch<Value>)>) -> Option<(&'static str, bool, Value)> {
        change.map(|(params, patch)| match patch {
            Patch::Apply(object) => ("apply", params.force, object),
            Patch::Merge(object) => ("merge", params.force, object),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn one_field_is_held_of_exactly_the_object_that_was_seen() {
        let (kind, force, object) = sent(hold(&autoscaler("web", "web"))).expect("a write");
        assert_eq!((kind, force), ("apply", false));
        assert_eq!(
            object["spec"],
            json!({"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}})
        );
        assert_eq!(object["metadata"]["resourceVersion"], "1");
        assert_eq!(object["metadata"]["uid"], "web");
    }

    #[test]
    fn what_somebody_says_is_neither_taken_nor_given_back() {
        let said = |is_disabled| AutoscalerFacts {
            set_by: Some("kustomize-controller".to_owned()),
            is_disabled,
            ..autoscaler("web", "web")
        };
        for facts in [said(true), said(false)] {
            assert!(hold(&facts).is_none() && free(&facts).is_none());
        }
    }

    #[test]
    fn what_was_only_filled_in_is_taken_over() {
        let facts = AutoscalerFacts {
            is_filled_in: true,
            ..autoscaler("web", "web")
        };
        assert!(sent(hold(&facts)).is_some_and(|(_, force, _)| force));
    }

    #[test]
    fn what_came_with_our_field_goes_with_it_and_nothing_else_does() {
        let bare = AutoscalerFacts {
            is_ours: true,
            is_disabled: true,
            ..autoscaler("web", "web")
        };
        let (kind, _, object) = sent(free(&bare)).expect("a write");
        assert_eq!(
            (kind, &object["spec"]),
            ("merge", &json!({"behavior": null}))
        );
        let git_says_more = AutoscalerFacts {
            has_behavior: true,
            ..bare
        };
        let (kind, _, object) = sent(free(&git_says_more)).expect("a write");
        assert_eq!((kind, &object["spec"]), ("apply", &Value::Null));
    }

    #[test]
    fn it_is_held_for_as_long_as_it_remembers_the_rollout() {
        let remembers = |window_seconds| {
            let facts = AutoscalerFacts {
                window_seconds,
                ..autoscaler("web", "web")
            };
            forgets_at(&facts, 1_000_000) - 1_000_000
        };
        assert_eq!(remembers(None), 300_000);
        assert_eq!(remembers(Some(0)), 60_000, "metrics lag");
        assert_eq!(remembers(Some(3600)), 3_600_000);
    }
}
