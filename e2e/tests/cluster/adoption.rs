//! Hold, try beside, adopt: what plain Service clients, pods and git see of it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{Api, ResourceExt, api::DynamicObject, api::ListParams};
use serde_json::{Value, json};
use sluice_e2e::world;

use crate::{
    app::{deployment, governing, service},
    node::wait_until,
    place::{Place, is, within},
};

const APP: &str = "web";
const REPLICAS: i32 = 2;

#[tokio::test]
async fn a_promoted_pod_is_never_restarted_and_meets_plain_clients_only_then() {
    within("sluice-adoption", false, async |place| {
        place.deploy(APP, "v1", REPLICAS).await;
        let revision = place.release(APP, "v2", REPLICAS).await;
        let tried = candidates(place).await;
        assert!(!tried.is_empty() && tried.iter().all(|pod| is(pod, "ContainersReady")));
        let lives = lives(&tried);

        place.command(APP, "promote", &revision).await;
        let mut seen = BTreeSet::new();
        wait_until("v2 to be promoted", async || {
            let reached = ready_endpoints(place).await;
            let candidates = candidates(place).await;
            seen.extend(candidates.iter().map(|pod| pod.uid().unwrap()));
            // Looked at last: what was not promoted by now was not a moment ago.
            let look = world::look(&place.client, &place.namespace, APP).await?;
            if !["Promoting", "Idle"].contains(&look.phase.as_str()) {
                let early = candidates
                    .iter()
                    .find(|pod| reached.contains(&pod.name_any()));
                assert!(
                    early.is_none(),
                    "{early:?} is reached by plain clients in phase {}",
                    look.phase
                );
            }
            Ok(look.phase == "Idle" && look.stable == revision)
        })
        .await;

        let promoted = candidates(place).await;
        assert_eq!(promoted.len(), usize::try_from(REPLICAS).unwrap());
        assert_eq!(
            seen.len(),
            promoted.len(),
            "no pod was made to be thrown away"
        );
        let now = self::lives(&promoted);
        for (pod, life) in &lives {
            assert_eq!(now.get(pod), Some(life), "{pod} is as it was tried");
        }
        wait_until("plain clients to reach v2 alone", async || {
            let promoted: BTreeSet<String> = promoted.iter().map(|pod| pod.name_any()).collect();
            Ok(ready_endpoints(place).await == promoted)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn git_finds_nothing_to_change_while_a_revision_is_held_and_when_it_is_promoted() {
    within("sluice-no-diff", false, async |place| {
        place.deploy(APP, "v1", 1).await;
        let revision = place.release(APP, "v2", 1).await;
        let git = [deployment(APP, "v2", 1), service(APP), governing(APP, APP)];
        let held = place.live(&git[0]).await;
        assert_eq!(held.data["spec"]["paused"], true);
        for object in &git {
            unchanged(place, object).await;
        }
        place.promote(APP, &revision).await;
        let released = place.live(&git[0]).await;
        assert_eq!(released.data["spec"]["paused"], Value::Null);
        for object in &git {
            unchanged(place, object).await;
        }
    })
    .await;
}

/// What `kubectl diff` looks at.
async fn unchanged(place: &Place, object: &Value) {
    let live = place.live(object).await;
    let applied = place.dry_run(object).await;
    assert_eq!(shown(&applied), shown(&live));
}

fn shown(object: &DynamicObject) -> Value {
    json!({
        "generation": object.metadata.generation,
        "labels": object.metadata.labels,
        "annotations": object.metadata.annotations,
        "spec": object.data["spec"],
    })
}

/// Pods of our ReplicaSet, adopted or not.
async fn candidates(place: &Place) -> Vec<Pod> {
    let pods = place.pods(&format!("app={APP}")).await;
    let ours = |pod: &Pod| {
        pod.labels()
            .get("pod-template-hash")
            .is_some_and(|hash| hash.starts_with("sluice-"))
    };
    pods.into_iter().filter(ours).collect()
}

/// What a restart would change: restarts and start times of every container, by pod.
fn lives(pods: &[Pod]) -> BTreeMap<String, Vec<(i32, Option<Value>)>> {
    let life = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.into_iter().flatten();
        containers
            .map(|c| {
                let running = c.state.and_then(|state| state.running);
                (c.restart_count, running.map(|running| json!(running)))
            })
            .collect()
    };
    pods.iter().map(|pod| (pod.name_any(), life(pod))).collect()
}

/// The pods that plain clients of the Service reach.
async fn ready_endpoints(place: &Place) -> BTreeSet<String> {
    let slices: Api<EndpointSlice> = Api::namespaced(place.client.clone(), &place.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={APP}"));
    let slices = slices.list(&of_service).await.unwrap();
    let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
    endpoints
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_some_and(|conditions| conditions.ready == Some(true))
        })
        .filter_map(|endpoint| endpoint.target_ref.and_then(|target| target.name))
        .collect()
}
