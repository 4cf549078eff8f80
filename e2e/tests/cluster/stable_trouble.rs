//! Trouble of the stable pods, and of how many there are to be, while a candidate is tried.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::EvictParams};
use serde_json::{Value, json};
use sluice_e2e::world;

use crate::{
    app::deployment,
    busy::{APP, Setting, half, hurried},
    demo::{rolled_out, scale},
    node::{say, wait_until},
    place::{Place, is, is_going, within},
};

const REPLICAS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stable_pod_that_is_lost_costs_no_request_and_the_step_goes_on() {
    within("sluice-stable-lost", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        place.apply(&half()).await;
        let revision = at_half(place).await;
        let lost = stable_pods(place).await.remove(0);
        place.delete_pod(&lost).await;
        place.replaced(&lost).await;
        busy.goes_on().await;
        let look = place
            .until(APP, "as before", |look| look.phase == "Observing")
            .await;
        assert_eq!((look.weight, &look.candidate), (50, &revision));
        place.promote(APP, &revision).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_in_mid_rollout_keeps_the_budget_and_costs_no_request() {
    within("sluice-drain", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        place.apply(&half()).await;
        place.apply(&budget(json!({"maxUnavailable": 1}))).await;
        let revision = at_half(place).await;
        let before = place.pods(&format!("app={APP}")).await;
        let pods: Api<Pod> = Api::namespaced(place.client.clone(), &place.namespace);
        // The candidate's gated pod counts as one of the budget's that is not healthy. So a budget
        // in `maxUnavailable` lets no stable pod go until the rollout has ended; one in
        // `minAvailable` does.
        let stable = stable_pods(place).await.remove(0);
        assert!(!evicted(&pods, &stable).await, "{stable} was let go");
        place.apply(&budget(json!({"minAvailable": 1}))).await;
        // As `kubectl drain` does: each pod is asked away until the budget allows it. There is
        // one node, and it takes the successors.
        for pod in before.iter().filter(|pod| !is_going(pod)) {
            let name = pod.name_any();
            wait_until(&format!("the eviction of {name}"), async || {
                Ok(evicted(&pods, &name).await)
            })
            .await;
        }
        wait_until("every pod to be replaced", async || {
            let now = place.pods(&format!("app={APP}")).await;
            let names: BTreeSet<_> = now.iter().map(ResourceExt::name_any).collect();
            Ok(before.iter().all(|pod| !names.contains(&pod.name_any())))
        })
        .await;
        place
            .until(APP, "back at half", |look| {
                look.phase == "Observing" && look.weight == 50
            })
            .await;
        place.promote(APP, &revision).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_to_zero_in_mid_rollout_nothing_runs_and_scaled_up_stable_serves_first() {
    within("sluice-zero", true, async |place| {
        let stable = place.deploy(APP, "v1", REPLICAS).await;
        place.apply(&half()).await;
        let revision = at_half(place).await;
        scale(&place.client, &place.namespace, APP, 0).await;
        place.reconciling("scaled to zero").await;
        wait_until("nothing to run", async || {
            Ok(place.pods(&format!("app={APP}")).await.is_empty())
        })
        .await;
        let look = place
            .until(APP, "without weight", |look| look.weight == 0)
            .await;
        assert_eq!((&look.stable, &look.candidate), (&stable, &revision));

        scale(&place.client, &place.namespace, APP, REPLICAS).await;
        place.wait_until_ready(APP, REPLICAS).await;
        let look = place
            .until(APP, "tried further", |look| {
                look.phase == "Observing" && look.weight == 50
            })
            .await;
        assert_eq!((&look.stable, &look.candidate), (&stable, &revision));
        let replicas = usize::try_from(REPLICAS).unwrap();
        assert_eq!(
            stable_pods(place).await.len(),
            replicas,
            "v1 has all of its pods"
        );
        place.promote(APP, &revision).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_revision_is_still_rejected_after_a_night_at_zero() {
    within("sluice-zero-rejected", false, async |place| {
        let stable = place.deploy(APP, "v1", 1).await;
        place.apply(&hurried("2h")).await;
        let revision = place.try_out(&deployment(APP, "v2", 1)).await;
        place.command(APP, "abort", &revision).await;
        place.rejected().await;
        scale(&place.client, &place.namespace, APP, 0).await;
        wait_until("nothing to run", async || {
            Ok(place.pods(&format!("app={APP}")).await.is_empty())
        })
        .await;
        scale(&place.client, &place.namespace, APP, 1).await;
        place.wait_until_ready(APP, 1).await;
        let look = place
            .until(APP, "Rejected", |look| look.phase == "Rejected")
            .await;
        assert_eq!(look.stable, stable);
        assert_eq!(stable_pods(place).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_change_at_the_instant_of_adoption_never_cost_capacity() {
    within("sluice-replicas", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        place.command(APP, "promote", &revision).await;
        place
            .until(APP, "Promoting", |look| {
                look.phase == "Promoting" || look.phase == "Idle"
            })
            .await;
        let least = Arc::new(AtomicUsize::new(usize::MAX));
        let watching = tokio::spawn(watch_ready(
            place.client.clone(),
            place.namespace.clone(),
            least.clone(),
        ));
        let mut replicas = [3, 2, 4, 2].iter().cycle();
        wait_until("v2 to be promoted", async || {
            let next = *replicas.next().unwrap();
            scale(&place.client, &place.namespace, APP, next).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            let look = world::look(&place.client, &place.namespace, APP).await?;
            Ok(look.phase == "Idle" && look.stable == revision)
        })
        .await;
        scale(&place.client, &place.namespace, APP, REPLICAS).await;
        rolled_out(&place.client, &place.namespace, APP).await;
        watching.abort();
        let least = least.load(Ordering::Relaxed);
        say(&format!("at least {least} ready pods"));
        assert!(
            least >= usize::try_from(REPLICAS).unwrap(),
            "{least} ready pods"
        );
        place.settled(APP).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_and_the_recreate_strategy_are_promoted_without_a_gap() {
    within("sluice-recreate", true, async |place| {
        let version = |version| {
            let mut deployment = deployment(APP, version, 1);
            deployment["spec"]["strategy"] = json!({"type": "Recreate"});
            deployment
        };
        let busy = place.busy_with(&Setting::of(version("v1"))).await;
        let least = Arc::new(AtomicUsize::new(usize::MAX));
        let watching = tokio::spawn(watch_ready(
            place.client.clone(),
            place.namespace.clone(),
            least.clone(),
        ));
        let revision = place.try_out(&version("v2")).await;
        let tried = place.tried_pods(&revision).await;
        place.promote(APP, &revision).await;
        rolled_out(&place.client, &place.namespace, APP).await;
        watching.abort();
        assert_eq!(place.tried_pods(&revision).await, tried, "the same pod");
        assert!(least.load(Ordering::Relaxed) >= 1);
        busy.end().await;
    })
    .await;
}

async fn at_half(place: &Place) -> String {
    let v2 = deployment(APP, "v2", REPLICAS);
    place.try_out_at(50, &v2).await
}

fn budget(mut spec: Value) -> Value {
    spec["selector"] = json!({"matchLabels": {"app": APP}});
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": APP},
        "spec": spec,
    })
}

/// Asks a pod away; false when its budget does not allow that now. The client itself asks again
/// and again after such an answer, so it is given up soon.
async fn evicted(pods: &Api<Pod>, name: &str) -> bool {
    let parameters = EvictParams::default();
    let asked = tokio::time::timeout(Duration::from_secs(2), pods.evict(name, &parameters));
    match asked.await {
        Ok(answer) => answer.map(|_| true).unwrap(),
        Err(_) => false,
    }
}

/// Names of the pods that serve plain clients.
async fn stable_pods(place: &Place) -> Vec<String> {
    let pods = place.pods(&format!("app={APP}")).await;
    let serves = |pod: &&Pod| is(pod, "Ready") && !is_going(pod);
    pods.iter()
        .filter(serves)
        .map(ResourceExt::name_any)
        .collect()
}

/// Keeps the least number of ready pods that it sees.
async fn watch_ready(client: kube::Client, namespace: String, least: Arc<AtomicUsize>) {
    loop {
        if let Ok(pods) = crate::place::pods(&client, &namespace, &format!("app={APP}")).await {
            let serves = |pod: &&Pod| is(pod, "Ready") && !is_going(pod);
            least.fetch_min(pods.iter().filter(serves).count(), Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Place {
    /// Waits until a stable pod is gone and as many are ready as should be.
    async fn replaced(&self, lost: &str) {
        wait_until(&format!("{lost} to be replaced"), async || {
            let all = self.pods(&format!("app={APP}")).await;
            let is_gone = all.iter().all(|pod| pod.name_any() != lost);
            Ok(is_gone
                && self
                    .status(APP)
                    .await
                    .stable
                    .is_some_and(|s| s.ready_pods == REPLICAS))
        })
        .await;
    }
}
