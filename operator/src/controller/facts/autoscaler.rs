//! HorizontalPodAutoscalers: whom they scale, and who says how they scale down.

use kube::api::DynamicObject;
use serde_json::{Map, Value};

use super::{Kept, LAST_APPLIED, MANAGER, Meta, text};

/// What the apiserver fills in where `spec.behavior` is said without a policy.
const FILLED_IN: &str = "Max";

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AutoscalerFacts {
    /// What every object has.
    pub meta: Meta,
    /// The Deployment that it scales; none: it scales something else.
    pub deployment: Option<String>,
    /// `behavior.scaleDown.selectPolicy` is Disabled, whoever says so.
    pub is_disabled: bool,
    /// We say so.
    pub is_ours: bool,
    /// Who else says what that field is; it is left as it is.
    pub set_by: Option<String>,
    /// Who made the object has a record of owning that field, because the apiserver filled it in
    /// at that moment: nobody says it.
    pub is_filled_in: bool,
    /// Somebody else says something in `spec.behavior`; if not, all of it came with our field.
    pub has_behavior: bool,
    /// `behavior.scaleDown.stabilizationWindowSeconds`.
    pub window_seconds: Option<i64>,
}

impl Kept for AutoscalerFacts {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Its status tells of every reading of its metrics.
    fn is_news(&self, before: &Self) -> bool {
        let with_this_version = Self {
            meta: Meta {
                version: self.meta.version.clone(),
                ..before.meta.clone()
            },
            ..before.clone()
        };
        *self != with_this_version
    }
}

impl AutoscalerFacts {
    /// Keeps a HorizontalPodAutoscaler.
    #[must_use]
    pub fn of(object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let scale_down = &spec["behavior"]["scaleDown"];
        let policy = &scale_down["selectPolicy"];
        let target = &spec["scaleTargetRef"];
        let group = target["apiVersion"].as_str().unwrap_or_default();
        let is_deployment = target["kind"] == "Deployment" && group.starts_with("apps/");
        let mut facts = Self {
            meta: Meta::of(&object.metadata),
            deployment: is_deployment.then(|| text(&target["name"])),
            is_disabled: policy == "Disabled",
            window_seconds: scale_down["stabilizationWindowSeconds"].as_i64(),
            ..Self::default()
        };
        let could_be_filled_in =
            policy == FILLED_IN && facts.meta.owner.is_none() && !is_recorded(object);
        for entry in object.metadata.managed_fields.iter().flatten() {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            let behavior = fields.map_or(&Value::Null, |f| &f["f:spec"]["f:behavior"]);
            if behavior.is_null() {
                continue;
            }
            let scale_down = &behavior["f:scaleDown"];
            // Who applies an empty line owns all that could stand below it.
            let is_leaf = |fields: &Value| fields.as_object().is_some_and(Map::is_empty);
            let owns_policy =
                !scale_down["f:selectPolicy"].is_null() || is_leaf(behavior) || is_leaf(scale_down);
            let applies = entry.operation.as_deref() == Some("Apply");
            let manager = entry.manager.as_deref().unwrap_or_default();
            if applies && manager == MANAGER {
                facts.is_ours = owns_policy;
                continue;
            }
            facts.has_behavior = true;
            if !owns_policy {
                continue;
            }
            // What is filled in comes with the list of policies, as whoever edits this alone does not.
            let came_with_the_rest = !applies && !scale_down["f:policies"].is_null();
            if could_be_filled_in && came_with_the_rest {
                facts.is_filled_in = true;
            } else {
                facts.set_by = Some(manager.to_owned());
            }
        }
        facts
    }

    /// Whether it scales this Deployment of its namespace.
    #[must_use]
    pub fn scales(&self, deployment: &str) -> bool {
        self.deployment.as_deref() == Some(deployment) && !self.meta.deleting
    }

    /// Who else lets it scale down, so that it cannot be held.
    #[must_use]
    pub fn unheld_by(&self) -> Option<&str> {
        self.set_by.as_deref().filter(|_| !self.is_disabled)
    }
}

/// kubectl's record of the last client-side apply says the policy.
fn is_recorded(object: &DynamicObject) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    let recorded = annotations.and_then(|a| a.get(LAST_APPLIED));
    let applied = recorded.and_then(|text| serde_json::from_str::<Value>(text).ok());
    applied.is_some_and(|o| !o["spec"]["behavior"]["scaleDown"]["selectPolicy"].is_null())
}

#[cfg(test)]
mod tests;
