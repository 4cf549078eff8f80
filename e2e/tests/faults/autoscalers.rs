//! An autoscaler is held while a rollout runs, and whoever leads then gives it back.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};
use sluice_e2e::faults::{scene::APP, stage::until};
use tokio::time::{Instant, sleep};

use crate::ground::{Ground, steps};

/// For how long an autoscaler that remembers nothing is held after a rollout.
const METRICS_LAG: Duration = Duration::from_secs(60);

/// It remembers nothing: `behavior` says no more than that.
pub fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": APP},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APP},
            "maxReplicas": 6, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_that_a_killed_leader_held_is_given_back_as_it_was_by_the_next() {
    let ground = Ground::new("autoscaler", steps("1h")).await;
    let api = ground.scene.api::<HorizontalPodAutoscaler>();
    ground.scene.apply(&autoscaler()).await.unwrap();
    let before = api.get(APP).await.unwrap();

    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    until("the autoscaler to be held", async || {
        Ok((policy(&api.get(APP).await?) == Some("Disabled".to_owned())).then_some(()))
    })
    .await
    .unwrap();
    // Git's next sync finds nothing to change.
    let held = api.get(APP).await.unwrap();
    let synced = ground.scene.apply(&autoscaler()).await.unwrap();
    assert_eq!(synced.data["spec"], json!(held.spec));

    ground.controller.process.kill();
    ground.scene.deploy("v1").await.unwrap();
    ground.ended("Replaced").await;
    let ended = Instant::now();
    assert_eq!(
        policy(&api.get(APP).await.unwrap()).as_deref(),
        Some("Disabled"),
        "it was given back at once"
    );
    while api.get(APP).await.unwrap().spec != before.spec {
        assert!(ended.elapsed() < 2 * METRICS_LAG, "it is held still");
        sleep(Duration::from_millis(500)).await;
    }
    let writes = ground.applied();
    let ours = writes
        .iter()
        .filter(|write| write.call.resource == "horizontalpodautoscalers");
    assert_eq!(ours.count(), 2, "it is held once, and given back once");
    ground.close().await;
}

fn policy(autoscaler: &HorizontalPodAutoscaler) -> Option<String> {
    let behavior = autoscaler.spec.as_ref()?.behavior.as_ref()?;
    behavior.scale_down.as_ref()?.select_policy.clone()
}
