//! Deployments, ReplicaSets and pods: the controller's account.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Place, merge, refusal, typed};

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn replica_set(name: &str, hash: &str, replicas: i32, metadata: &Value) -> Value {
    let labels = json!({"app": "web", "pod-template-hash": hash});
    let mut template = template();
    template["metadata"]["labels"] = labels.clone();
    let mut object = json!({
        "metadata": metadata,
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    });
    object["metadata"]["name"] = json!(name);
    object
}

#[tokio::test]
async fn of_a_deployment_the_controller_writes_paused_and_nothing_else() {
    let place = Place::new("accounts-deployments").await;
    place
        .set::<Deployment>("web", json!({
            "metadata": {"annotations": {"team": "a"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template()},
        }))
        .await;
    let api = place.of::<Deployment>(&place.controller);
    let params = PatchParams::default();
    for paused in [
        json!({"spec": {"paused": true}}),
        json!({"spec": {"paused": null}}),
    ] {
        api.patch("web", &params, &merge(paused)).await.unwrap();
    }
    let spec = "of a Deployment Sluice writes spec.paused alone";
    let metadata = "of a Deployment Sluice leaves the metadata alone";
    let bad = [
        (json!({"spec": {"replicas": 3}}), spec),
        (json!({"spec": {"minReadySeconds": 5}}), spec),
        (
            json!({"spec": {"paused": true, "strategy": {"rollingUpdate": {"maxSurge": 2}}}}),
            spec,
        ),
        (
            json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}),
            spec,
        ),
        (
            json!({"metadata": {"annotations": {"team": "b"}}}),
            metadata,
        ),
        (
            json!({"metadata": {"annotations": {"sluice.dev/any": "b"}}}),
            metadata,
        ),
        (
            json!({"metadata": {"annotations": {"team": null}}}),
            metadata,
        ),
        (
            json!({"metadata": {"annotations": {"other": "b"}}}),
            metadata,
        ),
        (json!({"metadata": {"labels": {"a": "b"}}}), metadata),
    ];
    for (patch, sentence) in bad {
        let why = refusal(api.patch("web", &params, &merge(patch.clone())).await);
        assert!(why.contains(sentence), "{patch}: {why}");
    }
    refusal(api.delete("web", &DeleteParams::default()).await);
    let scale = json!({"spec": {"replicas": 3}});
    refusal(api.patch_scale("web", &params, &merge(scale)).await);
}

#[tokio::test]
async fn the_controller_makes_and_changes_its_own_replica_sets_and_removes_others_only_when_empty()
{
    let place = Place::new("accounts-replicasets").await;
    let api = place.of::<ReplicaSet>(&place.controller);
    let post = PostParams::default();
    let made = "a ReplicaSet that Sluice makes carries the label sluice.dev/rollout and belongs to a MeshRollout";
    let owner = json!([{"apiVersion": "sluice.dev/v1alpha1", "kind": "MeshRollout", "name": "web",
        "uid": "00000000-0000-0000-0000-000000000001", "controller": true, "blockOwnerDeletion": false}]);
    let label = json!({"sluice.dev/rollout": "web"});
    let ours = json!({"labels": label, "ownerReferences": owner});
    for lacking in [
        json!({}),
        json!({"labels": label}),
        json!({"ownerReferences": owner}),
    ] {
        let object = typed(replica_set("web-sluice-1", "sluice-1", 1, &lacking));
        let why = refusal(api.create(&post, &object).await);
        assert!(why.contains(made), "{lacking}: {why}");
    }
    let _ = api.delete("web-sluice-1", &DeleteParams::default()).await;
    api.create(
        &post,
        &typed(replica_set("web-sluice-1", "sluice-1", 1, &ours)),
    )
    .await
    .unwrap();
    let params = PatchParams::default();
    api.patch(
        "web-sluice-1",
        &params,
        &merge(json!({"spec": {"replicas": 3}})),
    )
    .await
    .unwrap();
    let released =
        json!({"metadata": {"ownerReferences": null, "labels": {"sluice.dev/rollout": null}}});
    api.patch("web-sluice-1", &params, &merge(released))
        .await
        .unwrap();
    let scale = merge(json!({"spec": {"replicas": 0}}));
    let why = refusal(api.patch("web-sluice-1", &params, &scale).await);
    assert!(
        why.contains("Sluice changes its own ReplicaSets alone"),
        "given away is given away: {why}"
    );
    let why = refusal(api.delete("web-sluice-1", &DeleteParams::default()).await);
    assert!(why.contains("others only when they have no pods"), "{why}");
    place
        .of::<ReplicaSet>(&place.admin)
        .patch("web-sluice-1", &params, &scale)
        .await
        .unwrap();
    api.delete("web-sluice-1", &DeleteParams::default())
        .await
        .unwrap();

    api.create(
        &post,
        &typed(replica_set("web-sluice-2", "sluice-2", 1, &ours)),
    )
    .await
    .unwrap();
    api.delete("web-sluice-2", &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_controller_tries_pods_out_and_opens_their_gate_and_does_no_more_to_them() {
    let place = Place::new("accounts-pods").await;
    let api = place.of::<Pod>(&place.controller);
    let pod = json!({"metadata": {"name": "web"}, "spec": template()["spec"]});
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let _ = place
        .of::<Pod>(&place.admin)
        .delete("web", &DeleteParams::default().grace_period(0))
        .await;
    api.create(&dry_run, &typed(pod.clone())).await.unwrap();
    let why = refusal(
        api.create(&PostParams::default(), &typed(pod.clone()))
            .await,
    );
    assert!(
        why.contains("Sluice makes pods as a dry run alone"),
        "{why}"
    );

    place.set::<Pod>("web", pod).await;
    let params = PatchParams::default();
    let condition = |kind: &str| {
        Patch::Strategic(json!({"status": {"conditions": [{"type": kind, "status": "True"}]}}))
    };
    api.patch_status("web", &params, &condition("sluice.dev/promoted"))
        .await
        .unwrap();
    let why = refusal(api.patch_status("web", &params, &condition("Ready")).await);
    assert!(
        why.contains("of a pod's conditions Sluice writes sluice.dev/promoted alone"),
        "{why}"
    );
    for patch in [
        json!({"status": {"phase": "Failed"}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
    ] {
        let why = refusal(api.patch_status("web", &params, &merge(patch)).await);
        assert!(
            why.contains("of a pod's status Sluice writes one condition alone"),
            "{why}"
        );
    }
    refusal(
        api.patch(
            "web",
            &params,
            &merge(json!({"metadata": {"labels": {"a": "b"}}})),
        )
        .await,
    );
    refusal(api.delete("web", &DeleteParams::default()).await);
    refusal(api.evict("web", &Default::default()).await);
}
