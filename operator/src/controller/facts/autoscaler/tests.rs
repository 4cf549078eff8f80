#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

/// An autoscaler of the Deployment `web` as the apiserver gives it back.
fn autoscaler(
    behavior: &Value,
    managers: &[(&str, &str, Value)],
    annotations: &Value,
) -> AutoscalerFacts {
    let entry = |(manager, operation, behavior): &(&str, &str, Value)| {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "autoscaling/v2",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:maxReplicas": {}, "f:behavior": behavior}},
        })
    };
    let entries: Vec<Value> = managers.iter().map(entry).collect();
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
            "annotations": annotations, "managedFields": entries},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": 6, "behavior": behavior,
        },
    });
    AutoscalerFacts::of(&serde_json::from_value(object).unwrap())
}

fn down(policy: &str) -> Value {
    json!({"scaleDown": {"selectPolicy": policy, "stabilizationWindowSeconds": 60}})
}

fn owns(fields: &[&str]) -> Value {
    let fields: serde_json::Map<_, _> = fields
        .iter()
        .map(|f| (format!("f:{f}"), json!({})))
        .collect();
    json!({"f:scaleDown": fields})
}

#[test]
fn it_is_known_whom_it_scales() {
    let facts = autoscaler(&Value::Null, &[], &Value::Null);
    assert!(facts.scales("web") && !facts.scales("other"));
    let mut object = DynamicObject {
        types: None,
        metadata: Default::default(),
        data: json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}}}),
    };
    assert_eq!(AutoscalerFacts::of(&object).deployment, None);
    object.data["spec"]["scaleTargetRef"] =
        json!({"apiVersion": "example.com/v1", "kind": "Deployment", "name": "web"});
    assert_eq!(AutoscalerFacts::of(&object).deployment, None);
}

#[test]
fn what_git_says_is_left_as_it_is() {
    let git = [("kustomize-controller", "Apply", owns(&["selectPolicy"]))];
    let facts = autoscaler(&down("Max"), &git, &Value::Null);
    assert_eq!(facts.unheld_by(), Some("kustomize-controller"));
    let facts = autoscaler(&down("Disabled"), &git, &Value::Null);
    assert!(facts.is_disabled && facts.unheld_by().is_none());
}

#[test]
fn who_applies_an_empty_line_keeps_what_could_stand_below_it() {
    for empty in [json!({}), json!({"f:scaleDown": {}})] {
        let facts = autoscaler(&Value::Null, &[("git", "Apply", empty)], &Value::Null);
        assert_eq!(facts.unheld_by(), Some("git"));
    }
}

#[test]
fn a_field_that_the_apiserver_filled_in_belongs_to_nobody() {
    let made = owns(&["policies", "selectPolicy", "stabilizationWindowSeconds"]);
    let made = [("kubectl-client-side-apply", "Update", made)];
    let facts = autoscaler(&down("Max"), &made, &Value::Null);
    assert!(facts.is_filled_in && facts.has_behavior && facts.set_by.is_none());

    let says = json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Max"}}}});
    let recorded = json!({LAST_APPLIED: says.to_string()});
    let facts = autoscaler(&down("Max"), &made, &recorded);
    assert_eq!(
        facts.unheld_by(),
        Some("kubectl-client-side-apply"),
        "git does say it"
    );
    let facts = autoscaler(&down("Min"), &made, &Value::Null);
    assert_eq!(
        facts.unheld_by(),
        Some("kubectl-client-side-apply"),
        "nobody fills in Min"
    );
}

#[test]
fn a_person_who_edits_the_field_alone_is_obeyed() {
    let edited = [("kubectl-edit", "Update", owns(&["selectPolicy"]))];
    let facts = autoscaler(&down("Max"), &edited, &Value::Null);
    assert_eq!(facts.unheld_by(), Some("kubectl-edit"));
}

#[test]
fn what_came_with_our_field_is_told_from_what_others_say() {
    let ours = (MANAGER, "Apply", owns(&["selectPolicy"]));
    let facts = autoscaler(&down("Disabled"), std::slice::from_ref(&ours), &Value::Null);
    assert!(facts.is_ours && facts.is_disabled && !facts.has_behavior);
    let git = (
        "kustomize-controller",
        "Apply",
        json!({"f:scaleUp": {"f:policies": {}}}),
    );
    let facts = autoscaler(&down("Disabled"), &[ours, git], &Value::Null);
    assert!(facts.is_ours && facts.has_behavior && facts.set_by.is_none());
}

#[test]
fn a_further_reading_of_its_metrics_is_no_news() {
    let before = autoscaler(&Value::Null, &[], &Value::Null);
    let mut after = before.clone();
    after.meta.version = "8".to_owned();
    assert!(!after.is_news(&before));
    after.is_disabled = true;
    assert!(after.is_news(&before));
}
