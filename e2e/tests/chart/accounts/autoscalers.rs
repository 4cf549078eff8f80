//! HorizontalPodAutoscalers: what the controller holds during a rollout, and how it gives it back.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{Place, merge, refusal, typed};

type Autoscalers = Api<HorizontalPodAutoscaler>;

const MANAGER: &str = "sluice-controller";

fn spec(behavior: Option<&Value>) -> Value {
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 2, "maxReplicas": 6,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "AverageValue", "averageValue": "500m"}}}],
    });
    if let Some(behavior) = behavior {
        spec["behavior"] = behavior.clone();
    }
    spec
}

/// As the controller names the object that it saw.
fn applied(seen: &HorizontalPodAutoscaler, spec: &Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": seen.metadata.name, "uid": seen.metadata.uid,
            "resourceVersion": seen.metadata.resource_version,
        },
        "spec": spec,
    }))
}

fn disabled() -> Value {
    json!({"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}})
}

async fn made(place: &Place, behavior: Option<Value>) -> HorizontalPodAutoscaler {
    let admin: Autoscalers = place.of(&place.admin);
    let _ = admin.delete("web", &DeleteParams::default()).await;
    place
        .set("web", json!({"spec": spec(behavior.as_ref())}))
        .await
}

async fn hold(api: &Autoscalers, seen: &HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    let held = api
        .patch(
            "web",
            &PatchParams::apply(MANAGER),
            &applied(seen, &disabled()),
        )
        .await
        .unwrap();
    assert_eq!(policy(&held), Some("Disabled"));
    held
}

fn policy(autoscaler: &HorizontalPodAutoscaler) -> Option<&str> {
    let behavior = autoscaler.spec.as_ref()?.behavior.as_ref()?;
    behavior.scale_down.as_ref()?.select_policy.as_deref()
}

/// Who owns something in `spec.behavior`.
fn owners(autoscaler: &HorizontalPodAutoscaler) -> Vec<&str> {
    let entries = autoscaler.metadata.managed_fields.iter().flatten();
    let says = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| !fields.0["f:spec"]["f:behavior"].is_null())
    });
    says.filter_map(|entry| entry.manager.as_deref()).collect()
}

#[tokio::test]
async fn an_autoscaler_without_behavior_is_given_back_without_any() {
    let place = Place::new("accounts-autoscalers-bare").await;
    let api: Autoscalers = place.of(&place.controller);
    let before = made(&place, None).await;
    let held = hold(&api, &before).await;
    assert_eq!(
        owners(&held),
        [MANAGER],
        "what the apiserver filled in belongs to nobody"
    );
    let free = json!({
        "metadata": {"uid": held.metadata.uid, "resourceVersion": held.metadata.resource_version},
        "spec": {"behavior": null},
    });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let freed = api.patch("web", &params, &merge(free)).await.unwrap();
    assert_eq!(freed.spec, before.spec);
    assert!(owners(&freed).is_empty());
}

#[tokio::test]
async fn an_autoscaler_with_a_behavior_of_its_own_keeps_it() {
    let place = Place::new("accounts-autoscalers-own").await;
    let api: Autoscalers = place.of(&place.controller);
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    let before = made(&place, Some(behavior.clone())).await;
    let held = hold(&api, &before).await;
    // Git's next sync changes nothing.
    let synced: HorizontalPodAutoscaler = place
        .set("web", json!({"spec": spec(Some(&behavior))}))
        .await;
    assert_eq!(
        synced.metadata.resource_version,
        held.metadata.resource_version
    );
    let freed = api
        .patch(
            "web",
            &PatchParams::apply(MANAGER),
            &applied(&held, &json!({})),
        )
        .await
        .unwrap();
    assert_eq!(freed.spec, before.spec);
    assert_eq!(owners(&freed), ["administrator"]);
}

/// Who creates an object is booked as owner of what was filled in at that moment, too.
#[tokio::test]
async fn a_policy_that_the_apiserver_filled_in_is_taken_over_and_comes_back() {
    let place = Place::new("accounts-autoscalers-filled").await;
    let api: Autoscalers = place.of(&place.controller);
    let admin: Autoscalers = place.of(&place.admin);
    let _ = admin.delete("web", &DeleteParams::default()).await;
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    let object = typed(json!({"metadata": {"name": "web"}, "spec": spec(Some(&behavior))}));
    let before = admin.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(policy(&before), Some("Max"));
    let params = PatchParams::apply(MANAGER);
    let why = refusal(
        api.patch("web", &params, &applied(&before, &disabled()))
            .await,
    );
    assert!(
        why.contains(".spec.behavior.scaleDown.selectPolicy"),
        "{why}"
    );
    let held = api
        .patch(
            "web",
            &params.clone().force(),
            &applied(&before, &disabled()),
        )
        .await
        .unwrap();
    assert_eq!(policy(&held), Some("Disabled"));
    let freed = api
        .patch("web", &params, &applied(&held, &json!({})))
        .await
        .unwrap();
    assert_eq!(freed.spec, before.spec);
}

#[tokio::test]
async fn what_git_says_of_scaling_down_is_not_taken_from_it() {
    let place = Place::new("accounts-autoscalers-git").await;
    let api: Autoscalers = place.of(&place.controller);
    let git = made(&place, Some(json!({"scaleDown": {"selectPolicy": "Max"}}))).await;
    let why = refusal(
        api.patch(
            "web",
            &PatchParams::apply(MANAGER),
            &applied(&git, &disabled()),
        )
        .await,
    );
    assert!(why.contains("conflict with \"administrator\""), "{why}");
}

#[tokio::test]
async fn no_autoscaler_is_made_that_was_gone_and_none_is_written_that_was_not_seen() {
    let place = Place::new("accounts-autoscalers-gone").await;
    let api: Autoscalers = place.of(&place.controller);
    let seen = made(&place, None).await;
    hold(&api, &seen).await;
    let params = PatchParams::apply(MANAGER);
    let why = refusal(api.patch("web", &params, &applied(&seen, &json!({}))).await);
    assert!(why.contains("the object has been modified"), "{why}");
    let again = made(&place, None).await;
    assert_ne!(seen.metadata.uid, again.metadata.uid);
    refusal(
        api.patch("web", &params, &applied(&seen, &disabled()))
            .await,
    );
    let admin: Autoscalers = place.of(&place.admin);
    admin.delete("web", &DeleteParams::default()).await.unwrap();
    refusal(
        api.patch("web", &params, &applied(&again, &disabled()))
            .await,
    );
    assert!(admin.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn of_an_autoscaler_the_controller_writes_one_field_and_nothing_else() {
    let place = Place::new("accounts-autoscalers-field").await;
    let api: Autoscalers = place.of(&place.controller);
    let one_field =
        "of a HorizontalPodAutoscaler Sluice writes behavior.scaleDown.selectPolicy alone";
    let metadata = "of a HorizontalPodAutoscaler Sluice leaves the metadata alone";
    let params = PatchParams::default();
    let own = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    for behavior in [None, Some(own)] {
        made(&place, behavior).await;
        let policies = json!([{"type": "Pods", "value": 1, "periodSeconds": 60}]);
        for bad in [
            json!({"maxReplicas": 7}),
            json!({"minReplicas": 1}),
            json!({"metrics": null}),
            json!({"scaleTargetRef": {"name": "other"}}),
            json!({"behavior": {"scaleUp": {"selectPolicy": "Disabled"}}}),
            json!({"behavior": {"scaleDown": {"selectPolicy": "Min"}}}),
            json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}),
            json!({"behavior": {"scaleDown": {"policies": policies}}}),
            json!({"maxReplicas": 7, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}),
        ] {
            let why = refusal(
                api.patch("web", &params, &merge(json!({"spec": bad})))
                    .await,
            );
            assert!(why.contains(one_field), "{bad}: {why}");
        }
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        let why = refusal(api.patch("web", &params, &merge(label)).await);
        assert!(why.contains(metadata), "{why}");
    }
    // It has a window of its own: that goes with nothing.
    let why = refusal(
        api.patch("web", &params, &merge(json!({"spec": {"behavior": null}})))
            .await,
    );
    assert!(why.contains(one_field), "{why}");
    refusal(api.delete("web", &DeleteParams::default()).await);
    refusal(
        place
            .of::<HorizontalPodAutoscaler>(&place.serving)
            .get("web")
            .await,
    );
}
