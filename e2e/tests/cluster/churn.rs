//! Pods are deleted again and again, of both arms, over a whole rollout.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use parking_lot::Mutex;
use serde_json::json;
use sluice_e2e::world::Look;

use crate::{
    app::deployment,
    busy::{APP, Setting, hurried},
    node::say,
    place::{is, is_going, pods, within},
};

const REPLICAS: i32 = 8;
/// So many that each step has its evidence in seconds.
const RATE: u32 = 200;
/// A pod is deleted this often: of 8 to 16 pods far more than any cluster's usual churn.
const EVERY: Duration = Duration::from_secs(6);
const WEIGHTS: [i32; 4] = [10, 25, 50, 75];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_deleted_over_a_whole_rollout_cost_no_request_and_it_is_promoted() {
    within("sluice-churn", true, async |place| {
        let setting = Setting {
            rate: RATE,
            ..Setting::of(deployment(APP, "v1", REPLICAS))
        };
        let busy = place.busy_with(&setting).await;
        let mut rollout = hurried("2h");
        rollout["spec"]["analysis"]["hold"] = json!("10s");
        place.apply(&rollout).await;
        let from = busy.now();
        let deleted = Arc::default();
        let churn = tokio::spawn(churn(
            place.client.clone(),
            place.namespace.clone(),
            Arc::clone(&deleted),
        ));
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        for weight in WEIGHTS {
            place
                .until(APP, &format!("past {weight} %"), |look| {
                    look.weight > weight || look.stable == revision
                })
                .await;
        }
        place.promoted(APP, &revision).await;
        churn.abort();
        no_weight_unseen(&busy.since(from));
        let took = (busy.now() - from).as_secs();
        let deleted = deleted.lock().clone();
        say(&format!(
            "pods deleted in {took} s, by ReplicaSet: {deleted:?}"
        ));
        assert!(deleted.len() > 1, "of both arms");
        busy.goes_on().await;
        busy.end().await;
    })
    .await;
}

/// Before it got more weight, the revision was observed with every proxy at the weight before;
/// and never did it get more than the next step's.
fn no_weight_unseen(looks: &[(Duration, Look)]) {
    let steps = [&[0], &WEIGHTS[..], &[100]].concat();
    let mut observed = 0;
    for (at, look) in looks {
        if look.phase == "Observing" && look.applied {
            observed = observed.max(look.weight);
        }
        let next = steps.iter().find(|weight| **weight > observed);
        let most = next.copied().unwrap_or(100);
        assert!(
            look.weight <= most,
            "{at:?}: {} % after {observed} %",
            look.weight
        );
    }
    assert_eq!(observed, 100, "every step was observed");
}

/// By ReplicaSet.
type Deleted = BTreeMap<String, u32>;

/// Deletes a Ready pod of the arm that lost the fewest, again and again.
async fn churn(client: kube::Client, namespace: String, deleted: Arc<Mutex<Deleted>>) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let selector = format!("app={APP}");
    loop {
        tokio::time::sleep(EVERY).await;
        let Ok(pods) = pods(&client, &namespace, &selector).await else {
            continue;
        };
        let serves = |pod: &&Pod| is(pod, "ContainersReady") && !is_going(pod);
        let lost = |pod: &&Pod| {
            let deleted = deleted.lock();
            deleted.get(&set_of(pod)).copied().unwrap_or_default()
        };
        let Some(next) = pods.iter().filter(serves).min_by_key(lost) else {
            continue;
        };
        if api
            .delete(&next.name_any(), &DeleteParams::default())
            .await
            .is_ok()
        {
            *deleted.lock().entry(set_of(next)).or_default() += 1;
        }
    }
}

fn set_of(pod: &Pod) -> String {
    let owner = pod.owner_references().first();
    owner.map(|owner| owner.name.clone()).unwrap_or_default()
}
