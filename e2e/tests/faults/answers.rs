//! An apiserver that refuses, and people and programs that write what is ours.

use std::{collections::HashSet, time::Duration};

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;
use sluice_crds::TrafficSplit;
use sluice_e2e::faults::{
    call::Verb,
    rule::{Action, Asked, Rule},
    stage::until,
};
use tokio::time::{Instant, sleep};

use crate::ground::{Ground, PROMOTION, steps, throughout};

/// Case 15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_of_the_split_delays_nothing_and_keeps_what_is_its_own() {
    let ground = Ground::new("storm", steps("500ms")).await;
    let splits = ground.scene.api::<TrafficSplit>();
    let storm = tokio::spawn(async move {
        for number in 0.. {
            let patch =
                json!({"metadata": {"annotations": {"example.com/other": number.to_string()}}});
            splits
                .patch("web", &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap();
            sleep(Duration::from_millis(50)).await;
        }
    });
    ground.scene.deploy("v2").await.unwrap();
    ground.ended("Promoted").await;
    storm.abort();
    let split = ground.scene.split().await.unwrap();
    assert!(split.annotations().contains_key("example.com/other"));
    let tries = ground
        .layer()
        .writes()
        .iter()
        .filter(|write| write.call.resource == "trafficsplits")
        .count();
    assert!(tries < 100, "{tries} writes of the split");
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

/// Case 16.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weight_that_a_person_edits_is_put_back_once() {
    let ground = Ground::new("edit", steps("60s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    let mut spec = ground.scene.split().await.unwrap().spec;
    let before = spec.clone();
    spec.fence += 1;
    spec.arms[0].weight = 10;
    spec.arms[1].weight = 90;
    let written = ground.applied().len();
    let patch = json!({"spec": spec});
    let splits = ground.scene.api::<TrafficSplit>();
    splits
        .patch("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    until("the weight to be put back", async || {
        let now = ground.scene.split().await?.spec;
        Ok((now.arms == before.arms && now.fence > spec.fence).then_some(()))
    })
    .await
    .unwrap();
    ground.scene.followed().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let of_split = |write: &&sluice_e2e::faults::layer::Write| {
        write.call.resource == "trafficsplits" && write.call.subresource.is_empty()
    };
    let put_back = ground.applied()[written..].iter().filter(of_split).count();
    assert_eq!(put_back, 1);
    // The witness sees what the person wrote, which no state has said.
    ground
        .close_despite(|wrong| wrong.contains("the split gives 90 %"))
        .await;
}

/// Case 17, in seconds instead of minutes; long enough that the Lease ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_apiserver_refuses_everything_weights_hold_and_then_the_release_goes_on() {
    for (code, reason) in [
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
    ] {
        let ground = Ground::new(&format!("refuses-{code}"), steps("2s")).await;
        ground.scene.deploy("v2").await.unwrap();
        let observed = ground.phase("Observing").await;
        let refusal = Action::Answer(code, reason, "not now");
        ground.layer().add(Rule::always(refusal, |asked: &Asked| {
            asked.call.verb != Verb::Watch
        }));
        let began = Instant::now();
        throughout(Duration::from_secs(8), async || {
            let split = ground.scene.split().await?;
            Ok(split.spec.fence == observed.fence && split.spec.candidate_weight() == 50)
        })
        .await;
        let asked = f64::from(ground.layer().fired()) / began.elapsed().as_secs_f64();
        assert!(
            asked < 20.0,
            "{asked:.0} requests a second at an apiserver in trouble"
        );
        ground.layer().heal();
        ground.ended("Promoted").await;
        ground.released().await;
        assert_eq!(
            ground.states()[..PROMOTION.len()],
            PROMOTION,
            "after {code}"
        );
        ground.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_that_meets_a_conflict_first_is_made_all_the_same() {
    let ground = Ground::new("conflicts", steps("500ms")).await;
    let namespace = ground.scene.namespace.clone();
    let refused = Mutex::new(HashSet::new());
    let conflict = Action::Answer(409, "Conflict", "the object has been modified");
    ground
        .layer()
        .add(Rule::always(conflict, move |asked: &Asked| {
            let call = &asked.call;
            let is_ours = call.namespace == namespace && call.is_write();
            if !is_ours || !call.is_of_a_rollout() {
                return false;
            }
            // Of each kind of write every second one is let through, whatever comes in between.
            let kind = format!("{call:?}");
            let mut refused = refused.lock();
            let is_first = refused.insert(kind.clone());
            if !is_first {
                refused.remove(&kind);
            }
            is_first
        }));
    ground.scene.deploy("v2").await.unwrap();
    ground.ended("Promoted").await;
    ground.layer().heal();
    ground.released().await;
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_late_are_not_asked_for_twice() {
    let ground = Ground::new("late", steps("500ms")).await;
    let namespace = ground.scene.namespace.clone();
    // Longer than a request may take, so that it is given up and looked at anew.
    let late = Action::DelayReply(Duration::from_secs(4));
    ground.layer().add(Rule::always(late, move |asked: &Asked| {
        asked.call.namespace == namespace
            && asked.call.is_write()
            && asked.call.resource == "replicasets"
    }));
    ground.scene.deploy("v2").await.unwrap();
    ground.ended("Promoted").await;
    assert_eq!(
        (
            ground.sets("made"),
            ground.sets("scaled"),
            ground.sets("given")
        ),
        (1, 1, 1)
    );
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

/// Case 22: a quota.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_in_the_way_is_told_and_weighs_nothing_until_it_is_gone() {
    let ground = Ground::new("quota", steps("500ms")).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"},
        "spec": {"hard": {"count/replicasets.apps": "1"}},
    });
    ground.scene.apply(&quota).await.unwrap();
    let quotas = ground.scene.api::<ResourceQuota>();
    until("the quota to be counted", async || {
        let used = quotas
            .get("small")
            .await?
            .status
            .and_then(|status| status.used)
            .unwrap_or_default();
        Ok((used.values().any(|used| used.0 == "1")).then_some(()))
    })
    .await
    .unwrap();
    ground.scene.deploy("v2").await.unwrap();
    let is_told = |status: &sluice_crds::MeshRolloutStatus| {
        status
            .conditions
            .iter()
            .any(|c| c.reason == "Hindered" && c.message.contains("exceeded quota"))
    };
    let status = ground
        .scene
        .until_status("the quota to be told", is_told)
        .await
        .unwrap();
    assert_eq!(
        (status.phase.as_deref(), status.weight),
        (Some("Preparing"), 0)
    );
    quotas
        .delete("small", &DeleteParams::default())
        .await
        .unwrap();
    ground.ended("Promoted").await;
    ground.close().await;
}

/// Case 22: a namespace that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_ends_in_mid_rollout_takes_everything_with_it_and_is_not_fought() {
    let ground = Ground::new("ends", steps("60s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    ground.scene.remove().await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(ground.scene.admin.clone());
    until("the namespace to be gone", async || {
        Ok(namespaces
            .get_opt(&ground.scene.namespace)
            .await?
            .is_none()
            .then_some(()))
    })
    .await
    .unwrap();
    // What was under way when the last object went comes to its end.
    sleep(Duration::from_secs(1)).await;
    let tries = ground.layer().writes().len();
    sleep(Duration::from_secs(3)).await;
    let late: Vec<String> = ground.layer().writes()[tries..]
        .iter()
        .filter(|write| write.call.namespace == ground.scene.namespace)
        .map(|write| write.call.to_string())
        .collect();
    assert_eq!(late, [""; 0]);
    assert!(!ground.controller.process.log().contains("panicked"));
}
