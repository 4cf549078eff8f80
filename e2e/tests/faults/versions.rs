//! The CRDs and the operator are of different versions, with rollouts in mid-step: case 26.
//!
//! A later version is played by what it would write: fields, values and named steps that this
//! operator does not know. An earlier CRD is this one without a field.

use std::time::Duration;

use k8s_openapi::{
    api::events::v1::Event,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_crds::{MeshRollout, MeshRolloutStatus};
use sluice_e2e::faults::{scene::APP, stage::until};

use crate::ground::{Ground, PROMOTION, steps, throughout};

const ROLLOUTS: &str = "meshrollouts.sluice.dev";
const SPLITS: &str = "trafficsplits.sluice.dev";
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

/// A later CRD: a field more in spec and status, a value more, a column more.
fn later() -> Value {
    let field = json!({"type": "string", "default": "as before"});
    json!([
        {"op": "add", "path": format!("{SCHEMA}/spec/properties/later"), "value": field},
        {"op": "add", "path": format!("{SCHEMA}/status/properties/later"), "value": {"type": "string"}},
        {"op": "add", "path": format!("{SCHEMA}/spec/properties/onFailure/properties/action/enum/-"), "value": "Freeze"},
        {"op": "add", "path": "/spec/versions/0/additionalPrinterColumns/-",
            "value": {"name": "Later", "type": "string", "jsonPath": ".status.later"}},
    ])
}

/// The same taken back.
fn as_before() -> Value {
    json!([
        {"op": "remove", "path": format!("{SCHEMA}/spec/properties/later")},
        {"op": "remove", "path": format!("{SCHEMA}/status/properties/later")},
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_later_crd_a_rollout_goes_on_and_what_git_says_more_stays() {
    let ground = Ground::new("newer", steps("3s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    change_crd(&ground, ROLLOUTS, later()).await;
    let from_git = json!({"spec": {"later": "from git"}});
    until("the later CRD to be in force", async || {
        write(&ground, &from_git, false).await?;
        Ok((raw(&ground).await?["spec"]["later"] == "from git").then_some(()))
    })
    .await
    .unwrap();
    // As a leader of a later version would have left it.
    let left = json!({"status": {"later": "its own", "state": {"later": "its own"}}});
    write(&ground, &left, true).await.unwrap();
    ground.ended("Promoted").await;
    ground.released().await;
    let rollout = raw(&ground).await.unwrap();
    change_crd(&ground, ROLLOUTS, as_before()).await;
    assert_eq!(rollout["spec"]["later"], "from git");
    // Who decides writes a state of its own: what a later version reads it takes as it would
    // take any of before its time.
    assert_eq!(rollout["status"]["state"]["later"], Value::Null);
    assert_eq!(rollout["status"]["later"], Value::Null);
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_a_later_version_is_not_taken_for_none_but_held_until_that_version_is_back() {
    let ground = Ground::new("unheard", steps("2s")).await;
    ground.scene.deploy("v2").await.unwrap();
    let observing = ground.phase("Observing").await;
    let phase = observing.state.clone().unwrap()["phase"].clone();
    let unheard =
        json!({"status": {"state": {"phase": {"name": "Warming", "step": 0, "since": 0}}}});
    write(&ground, &unheard, true).await.unwrap();
    let stalled = stalled(&ground, "StateUnreadable").await;
    assert!(
        stalled.contains("Warming") && stalled.contains("bring that version back"),
        "{stalled}"
    );
    // Whoever leads next knows no better.
    ground.controller.process.kill();
    let before = ground.applied().len();
    throughout(Duration::from_secs(5), async || {
        let (split, status) = (ground.scene.split().await?, ground.scene.status().await?);
        let state = status.state.unwrap_or_default();
        Ok(split.spec.fence == observing.fence
            && split.spec.candidate_weight() == 50
            && state["phase"]["name"] == "Warming"
            && state["candidate"]["revision"]
                == observing.state.as_ref().unwrap()["candidate"]["revision"])
    })
    .await;
    assert_eq!(
        ground.applied().len(),
        before,
        "nothing is written any more"
    );
    write(
        &ground,
        &json!({"status": {"state": {"phase": phase}}}),
        true,
    )
    .await
    .unwrap();
    ground.ended("Promoted").await;
    ground.released().await;
    assert_eq!(ground.sets("made"), 1, "nothing began anew");
    let is_ours = |wrong: &str| wrong.contains("unknown variant `Warming`");
    ground.close_despite(is_ours).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_a_later_version_stalls_the_rollout_that_asks_for_it_and_no_other() {
    let ground = Ground::new("value", steps("60s")).await;
    let other = ground.another("bystander", steps("500ms")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    change_crd(&ground, ROLLOUTS, later()).await;
    let freeze = json!({"spec": {"onFailure": {"action": "Freeze"}}});
    until("the later CRD to be in force", async || {
        Ok(write(&ground, &freeze, false).await.ok())
    })
    .await
    .unwrap();
    let told = stalled(&ground, "InvalidSpec").await;
    assert!(
        told.contains("spec.onFailure.action") && told.contains("upgrade the operator"),
        "{told}"
    );
    // Nobody is blind to the others, not even who lists everything anew.
    ground.controller.process.kill();
    other.deploy("v2").await.unwrap();
    let is_promoted = |status: &MeshRolloutStatus| {
        status
            .history
            .first()
            .is_some_and(|ended| ended.outcome == "Promoted")
    };
    other
        .until_status("the other's promotion", is_promoted)
        .await
        .unwrap();
    let split = ground.scene.split().await.unwrap();
    assert_eq!(split.spec.candidate_weight(), 50, "what is in force stays");

    let rollback = json!({"spec": {"onFailure": {"action": "Rollback"}, "strategy": {"steps": steps("500ms")}}});
    write(&ground, &rollback, false).await.unwrap();
    ground.ended("Promoted").await;
    change_crd(&ground, ROLLOUTS, as_before()).await;
    other.remove().await;
    ground
        .close_despite(|wrong| wrong.contains("spec.onFailure.action"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_earlier_crd_nothing_is_begun_and_what_was_remembered_is_not_lost() {
    let ground = Ground::new("older", steps("500ms")).await;
    let path = format!("{SCHEMA}/status/properties/state");
    let state = crd(&ground, ROLLOUTS)
        .await
        .pointer(&path)
        .cloned()
        .unwrap();
    change_crd(&ground, ROLLOUTS, json!([{"op": "remove", "path": path}])).await;
    until("the state to be hidden", async || {
        Ok(ground.scene.status().await?.state.is_none().then_some(()))
    })
    .await
    .unwrap();
    // Its memory is what it reads.
    ground.controller.process.kill();
    ground.scene.deploy("v2").await.unwrap();
    told(&ground, "status.state was not kept").await;
    let before = ground.applied().len();
    throughout(Duration::from_secs(3), async || {
        Ok(ground.scene.sets().await?.len() == 1
            && ground.scene.split().await?.spec.fence == ground.before.fence)
    })
    .await;
    assert_eq!(ground.applied().len(), before, "nothing is written");
    change_crd(
        &ground,
        ROLLOUTS,
        json!([{"op": "add", "path": path, "value": state}]),
    )
    .await;
    ground.ended("Promoted").await;
    ground.released().await;
    assert_eq!(
        ground.states()[..PROMOTION.len()],
        PROMOTION,
        "it begins where it was"
    );
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_of_which_an_earlier_crd_drops_a_part_passes_no_step_and_is_told() {
    let ground = Ground::new("part", steps("500ms")).await;
    let path = format!("{SCHEMA}/spec/properties/leased");
    let leased = crd(&ground, SPLITS).await.pointer(&path).cloned().unwrap();
    change_crd(&ground, SPLITS, json!([{"op": "remove", "path": path}])).await;
    ground.scene.deploy("v2").await.unwrap();
    told(&ground, "spec.leased was not kept").await;
    throughout(Duration::from_secs(3), async || {
        let status = ground.scene.status().await?;
        Ok(status.weight == 0 && ground.scene.split().await?.spec.candidate_weight() == 0)
    })
    .await;
    change_crd(
        &ground,
        SPLITS,
        json!([{"op": "add", "path": path, "value": leased}]),
    )
    .await;
    ground.ended("Promoted").await;
    ground.released().await;
    ground.close().await;
}

async fn crd(ground: &Ground, name: &str) -> Value {
    let crds = Api::<CustomResourceDefinition>::all(ground.scene.admin.clone());
    serde_json::to_value(crds.get(name).await.unwrap()).unwrap()
}

async fn change_crd(ground: &Ground, name: &str, patch: Value) {
    let crds = Api::<CustomResourceDefinition>::all(ground.scene.admin.clone());
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    crds.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// The rollout with all its fields, known or not.
async fn raw(ground: &Ground) -> kube::Result<Value> {
    let object = whole(ground).get(APP).await?;
    Ok(serde_json::to_value(object).unwrap_or_default())
}

/// Writes a part of the rollout, as somebody who knows it.
async fn write(ground: &Ground, part: &Value, is_status: bool) -> kube::Result<()> {
    let (api, params, patch) = (whole(ground), PatchParams::default(), Patch::Merge(part));
    if is_status {
        api.patch_status(APP, &params, &patch).await?;
    } else {
        api.patch(APP, &params.validation_strict(), &patch).await?;
    }
    Ok(())
}

fn whole(ground: &Ground) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<MeshRollout>(&());
    Api::namespaced_with(
        ground.scene.admin.clone(),
        &ground.scene.namespace,
        &resource,
    )
}

/// Waits until the rollout is Stalled for this reason; gives the sentence.
async fn stalled(ground: &Ground, reason: &str) -> String {
    let find = |status: &MeshRolloutStatus| {
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|c| c.type_ == "Stalled" && c.reason == reason);
        found.map(|c| c.message.clone())
    };
    let status = ground
        .scene
        .until_status(reason, |status| find(status).is_some());
    find(&status.await.unwrap()).unwrap()
}

/// Waits until an event of the rollout says so.
async fn told(ground: &Ground, what: &str) {
    let events = ground.scene.api::<Event>();
    until(&format!("an event: {what}"), async || {
        let all = events.list(&ListParams::default()).await?;
        let says = |event: &Event| event.note.as_ref().is_some_and(|note| note.contains(what));
        Ok(all.iter().any(says).then_some(()))
    })
    .await
    .unwrap();
}
