//! TrafficSplits: a team that was given every kind of its namespace, and who else may write them.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api,
    api::{DeleteParams, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice_crds::TrafficSplit;
use sluice_e2e::crds;

use super::{Place, acting_as, merge, refusal, typed, until_refused};

fn split(fence: i64, candidate: i32) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "TrafficSplit", "metadata": {"name": "web"},
        "spec": {"fence": fence, "services": ["web"], "arms": [
            {"name": "stable", "weight": 100 - candidate}, {"name": "candidate", "weight": candidate},
        ]},
    })
}

#[tokio::test]
async fn a_team_that_may_write_every_kind_of_its_namespace_sets_no_weight() {
    let place = Place::new("accounts-splits").await;
    crds::install(&place.admin, "sluice-tests").await;
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    place.set::<Role>("team", json!({"rules": rules})).await;
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "team"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "team"}],
    });
    place.set::<RoleBinding>("team", binding).await;
    let team = acting_as("team", &["system:authenticated"]).await;
    let theirs: Api<TrafficSplit> = place.of(&team);
    let ours: Api<TrafficSplit> = place.of(&place.controller);
    let _ = theirs.delete("web", &DeleteParams::default()).await;

    let sentence = "what a TrafficSplit says is written by Sluice alone: change the MeshRollout of the same name";
    let create = PostParams::default();
    until_refused(&theirs, &typed(split(1, 50))).await;
    let why = refusal(theirs.create(&create, &typed(split(1, 50))).await);
    assert!(why.contains(sentence), "{why}");

    ours.create(&create, &typed(split(1, 10))).await.unwrap();
    let patch = PatchParams::default();
    let weight = merge(json!({"spec": split(2, 100)["spec"]}));
    let why = refusal(theirs.patch("web", &patch, &weight).await);
    assert!(why.contains(sentence), "{why}");

    // What is no weight is theirs, and an administrator mends by hand.
    let note = merge(json!({"metadata": {"annotations": {"team": "a"}}}));
    theirs.patch("web", &patch, &note).await.unwrap();
    let admins: Api<TrafficSplit> = place.of(&place.admin);
    let mended = admins.patch("web", &patch, &weight).await.unwrap();
    assert_eq!(mended.spec.candidate_weight(), 100);
    let next = TrafficSplit {
        spec: typed::<TrafficSplit>(split(3, 25)).spec,
        ..mended
    };
    ours.replace("web", &create, &next).await.unwrap();
    theirs
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
}
