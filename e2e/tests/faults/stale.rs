//! What the operator knows is old, or it never saw what happened in between.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_crds::MeshRollout;
use sluice_e2e::{
    faults::{
        call::{Call, Verb},
        kubelet::HEALTH,
        layer::Layer,
        rule::{Action, Asked, Rule},
        stage::until,
    },
    world,
};
use tokio::time::sleep;

use crate::{
    autoscalers::autoscaler,
    ground::{Ground, PROMOTION, steps, throughout},
};

/// What the controller watches.
const WATCHED: [(&str, &str); 7] = [
    ("meshrollouts", "/apis/sluice.dev/v1alpha1/meshrollouts"),
    ("trafficsplits", "/apis/sluice.dev/v1alpha1/trafficsplits"),
    ("deployments", "/apis/apps/v1/deployments"),
    ("replicasets", "/apis/apps/v1/replicasets"),
    ("pods", "/api/v1/pods"),
    ("services", "/api/v1/services"),
    (
        "horizontalpodautoscalers",
        "/apis/autoscaling/v2/horizontalpodautoscalers",
    ),
];

/// A rollout without a state: it comes new to the cluster.
const ANEW: &str = "Idle at 0 %";

/// From now on the operator's next lists are as they were given last, and its watches show
/// nothing that came after.
fn back_in_time(layer: &Layer) {
    for (resource, path) in WATCHED {
        let lists = layer.lists(path);
        let old = lists.last().expect("it was listed").clone();
        let is_it = move |asked: &Asked| {
            asked.call.verb == Verb::List
                && asked.call.resource == resource
                && asked.call.namespace.is_empty()
        };
        layer.add(Rule::once(Action::Replay(old), is_it));
        layer.freeze(resource);
    }
}

fn back_to_now(layer: &Layer) {
    for (resource, _) in WATCHED {
        layer.thaw(resource);
    }
}

/// Kills the operator; it is back when it has listed everything anew.
async fn restarted(ground: &Ground) {
    let listed = |layer: &Layer| WATCHED.map(|(_, path)| layer.lists(path).len());
    let before = listed(ground.layer());
    ground.controller.process.kill();
    until("the operator to be back", async || {
        let now = listed(ground.layer());
        Ok(now
            .iter()
            .zip(before)
            .all(|(now, before)| *now > before)
            .then_some(()))
    })
    .await
    .unwrap();
}

/// Kills the operator; it is back, with lists of before, when it has taken the Lease up.
async fn restarted_in_the_past(ground: &Ground) {
    let leads = || {
        ground
            .controller
            .process
            .log()
            .matches("this process leads")
            .count()
    };
    let before = leads();
    back_in_time(ground.layer());
    ground.controller.process.kill();
    until("the operator to lead again", async || {
        Ok((leads() > before).then_some(()))
    })
    .await
    .unwrap();
}

/// Case 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_onto_lists_of_before_does_not_bring_a_rejected_revision_back() {
    let ground = Ground::new("past", steps("60s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    restarted(&ground).await;
    ground.scene.candidate_fails(50);
    ground.ended("RolledBack").await;
    ground.candidate_gone().await;
    ground.scene.candidate_fails(0);

    restarted_in_the_past(&ground).await;
    let applied = ground.applied().len();
    throughout(Duration::from_secs(4), async || {
        Ok(ground.applied().len() == applied)
    })
    .await;
    back_to_now(ground.layer());
    sleep(Duration::from_secs(2)).await;
    let status = ground.scene.status().await.unwrap();
    assert_eq!(
        (status.phase.as_deref(), status.weight),
        (Some("Rejected"), 0)
    );
    assert_eq!(
        ground.scene.sets().await.unwrap().len(),
        1,
        "no candidate again"
    );
    ground.close().await;
}

/// Case 8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_object_of_the_same_name_is_not_taken_for_the_one_that_went() {
    let ground = Ground::new("namesake", steps("500ms")).await;
    restarted(&ground).await;
    let rollouts = ground.scene.api::<MeshRollout>();
    let old = rollouts.get("web").await.unwrap().uid();
    rollouts.delete("web", &Default::default()).await.unwrap();
    until("the old split to be gone", async || {
        let split = ground
            .scene
            .api::<sluice_crds::TrafficSplit>()
            .get_opt("web")
            .await?;
        Ok(split.is_none().then_some(()))
    })
    .await
    .unwrap();
    back_in_time(ground.layer());
    ground.controller.process.kill();
    ground
        .scene
        .govern(steps("500ms"), json!({}))
        .await
        .unwrap();
    assert_ne!(rollouts.get("web").await.unwrap().uid(), old);
    throughout(Duration::from_secs(4), async || {
        Ok(rollouts
            .get("web")
            .await?
            .status
            .is_none_or(|status| status.state.is_none()))
    })
    .await;
    back_to_now(ground.layer());
    let status = ground.scene.settled().await.unwrap();
    assert!(
        status.fence >= ground.before.fence,
        "fences of the earlier life are below"
    );
    ground.scene.deploy("v2").await.unwrap();
    ground.ended("Promoted").await;
    ground.close_of_two_lives().await;
}

/// Case 9, the read-your-own-writes gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_decided_before_the_cache_shows_our_own_last_write() {
    let ground = Ground::new("own", steps("500ms")).await;
    ground.layer().freeze("replicasets");
    ground.scene.deploy("v2").await.unwrap();
    until("the candidate to be made", async || {
        Ok((ground.sets("made") == 1).then_some(()))
    })
    .await
    .unwrap();
    let tries = || {
        let writes = ground.layer().writes();
        let ours = writes
            .iter()
            .filter(|write| write.call.namespace == ground.scene.namespace);
        ours.count()
    };
    let before = tries();
    throughout(Duration::from_millis(1500), async || Ok(tries() == before)).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(ground.sets("made"), 1, "it is not made twice");
    ground.layer().thaw("replicasets");
    ground.ended("Promoted").await;
    assert_eq!((ground.sets("made"), ground.sets("scaled")), (1, 1));
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

/// Case 9, whichever watch is late: after a while the apiserver is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_watch_does_not_show_our_own_write_the_apiserver_is_asked_for_it() {
    let steps = json!([{"weight": 50, "hold": "500ms"}, {"weight": 100, "hold": "2s"}]);
    let ground = Ground::new("asked", steps).await;
    ground.scene.apply(&autoscaler()).await.unwrap();
    // The first lists of a new process have it for certain.
    restarted(&ground).await;
    let written = [
        "meshrollouts",
        "trafficsplits",
        "replicasets",
        "horizontalpodautoscalers",
    ];
    for resource in written {
        ground.layer().freeze(resource);
    }
    ground.scene.deploy("v2").await.unwrap();
    for resource in written {
        asked_for(ground.layer(), resource).await;
        ground.layer().thaw(resource);
    }
    let at_last = |status: &sluice_crds::MeshRolloutStatus| {
        status.phase.as_deref() == Some("Observing") && status.step == Some(1)
    };
    ground
        .scene
        .until_status("the last step", at_last)
        .await
        .unwrap();
    ground.layer().freeze("pods");
    asked_for(ground.layer(), "pods").await;
    ground.layer().thaw("pods");
    ground.ended("Promoted").await;
    assert_eq!((ground.sets("made"), ground.sets("scaled")), (1, 1));
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

/// Waits until the operator has read an object of this kind by its name.
async fn asked_for(layer: &Layer, resource: &str) {
    until(&format!("{resource} to be asked for"), async || {
        let asked = layer.verbs();
        let is_it = |call: &Call| call.verb == Verb::Get && call.resource == resource;
        Ok(asked.iter().any(is_it).then_some(()))
    })
    .await
    .unwrap();
}

/// Case 10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_came_and_went_unseen_leaves_nothing_behind() {
    let ground = Ground::new("unseen", steps("500ms")).await;
    ground.layer().freeze("deployments");
    ground.scene.deploy("v2").await.unwrap();
    ground.scene.deploy("v1").await.unwrap();
    ground.layer().thaw("deployments");
    ground.released().await;
    sleep(Duration::from_secs(1)).await;
    let status = ground.scene.settled().await.unwrap();
    assert_eq!(status.stable, ground.before.stable);
    assert!(status.history.len() <= 1, "{:?}", status.history);
    assert_eq!(ground.scene.sets().await.unwrap().len(), 1);
    let generation = ground
        .scene
        .api::<MeshRollout>()
        .get("web")
        .await
        .unwrap()
        .metadata
        .generation;
    assert_eq!(status.observed_generation, generation);
    ground.close().await;
}

/// Case 11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_pod_that_failed_and_recovered_unseen_costs_nothing() {
    let ground = Ground::new("blink", steps("3s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    ground.layer().freeze("pods");
    let pods = ground.scene.pods().await.unwrap();
    let candidate = pods
        .iter()
        .find(|pod| pod.labels()["pod-template-hash"].starts_with("sluice-"));
    let name = candidate.unwrap().name_any();
    for (health, ready) in [(json!("unready"), "False"), (Value::Null, "True")] {
        annotate(&ground, &name, &json!({ HEALTH: health })).await;
        until("the pod to be so", async || {
            let pod = ground.scene.api::<Pod>().get(&name).await?;
            let conditions = pod
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let is_so = conditions
                .iter()
                .any(|c| c.type_ == "ContainersReady" && c.status == ready);
            Ok(is_so.then_some(()))
        })
        .await
        .unwrap();
    }
    ground.layer().thaw("pods");
    ground.ended("Promoted").await;
    let evidence = ground.scene.status().await.unwrap().verdict;
    assert!(evidence.contains("failed 0 of"), "{evidence}");
    ground.close().await;
}

async fn annotate(ground: &Ground, pod: &str, annotations: &Value) {
    let patch = json!({"metadata": {"annotations": annotations}});
    let pods = ground.scene.api::<Pod>();
    pods.patch(pod, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

/// Case 12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_deleted_and_made_anew_unseen_begins_anew() {
    let ground = Ground::new("anew", steps("60s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    ground.layer().freeze("meshrollouts");
    let rollouts = ground.scene.api::<MeshRollout>();
    rollouts.delete("web", &Default::default()).await.unwrap();
    ground
        .scene
        .govern(steps("500ms"), json!({}))
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    ground.layer().thaw("meshrollouts");
    ground.ended("Promoted").await;
    ground.released().await;
    let states = ground.states();
    assert!(
        states
            .iter()
            .filter(|state| state.starts_with(ANEW))
            .count()
            >= 2,
        "{states:?}"
    );
    ground.close_of_two_lives().await;
}

/// Case 13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_end_with_410_gone_in_mid_rollout_change_nothing() {
    let ground = Ground::new("gone", steps("3s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    for (resource, _) in WATCHED {
        let is_it =
            move |asked: &Asked| asked.call.verb == Verb::Watch && asked.call.resource == resource;
        ground.layer().add(Rule::once(Action::Expired, is_it));
    }
    ground.layer().end_watches();
    until("every watch to have ended so", async || {
        Ok((ground.layer().fired() as usize == WATCHED.len()).then_some(()))
    })
    .await
    .unwrap();
    for (resource, _) in WATCHED {
        let is_it =
            move |asked: &Asked| asked.call.verb == Verb::Watch && asked.call.resource == resource;
        ground.layer().add(Rule::once(Action::Truncate, is_it));
    }
    ground.layer().end_watches();
    ground.ended("Promoted").await;
    ground.released().await;
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    assert_eq!(
        (
            ground.sets("made"),
            ground.sets("scaled"),
            ground.sets("given")
        ),
        (1, 1, 1)
    );
    ground.close().await;
}

/// Case 14, in seconds instead of minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_silent_and_then_brings_a_burst_is_caught_up_with() {
    let ground = Ground::new("burst", steps("2s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    let process = i32::try_from(ground.controller.process.id().unwrap()).unwrap();
    let before = world::resident(process).unwrap();
    ground.layer().freeze("pods");
    let pods = ground.scene.pods().await.unwrap();
    for number in 0..300 {
        let pod = &pods[number % pods.len()];
        annotate(
            &ground,
            &pod.name_any(),
            &json!({"burst": number.to_string()}),
        )
        .await;
    }
    ground.layer().thaw("pods");
    ground.ended("Promoted").await;
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    let more = world::resident(process).unwrap().saturating_sub(before);
    assert!(more < 20 << 10, "{more} KiB more");
    ground.close().await;
}
