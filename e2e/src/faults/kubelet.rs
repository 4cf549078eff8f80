//! A mock of the kubelet: it runs nothing, and says of every pod that it runs.
//!
//! What it does keep to: Ready is what the containers and all readiness gates say, and a pod
//! that is marked so is not ready, or never starts.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Annotation: `unready`, its containers are not ready; `broken`, they never start.
pub const HEALTH: &str = "mock-kubelet/health";

/// Looks after every pod of the cluster until `tasks` is dropped.
pub fn start(client: Client, tasks: &mut JoinSet<()>) {
    let addresses = Arc::new(AtomicU32::new(0));
    tasks.spawn(async move {
        let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
        let mut pods = pods
            .default_backoff()
            .applied_objects()
            .inspect_err(|error| eprintln!("mock kubelet: {error}"))
            .filter_map(async |pod| pod.ok())
            .boxed();
        while let Some(pod) = pods.next().await {
            let Some(status) = due(&pod, &addresses) else {
                continue;
            };
            let (client, namespace) = (client.clone(), pod.namespace().unwrap_or_default());
            tokio::spawn(async move {
                let api = Api::<Pod>::namespaced(client, &namespace);
                let patch = Patch::Strategic(json!({
                    "metadata": {"uid": pod.metadata.uid}, "status": status,
                }));
                // A pod that is gone by now needs no status.
                let _ = api
                    .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                    .await;
            });
        }
    });
}

/// The status that the pod should have, if it has another.
fn due(pod: &Pod, addresses: &AtomicU32) -> Option<Value> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |kind: &str| {
        conditions
            .iter()
            .any(|c| c.type_ == kind && c.status == "True")
    };
    let health = pod.annotations().get(HEALTH).map_or("", String::as_str);
    if health == "broken" {
        let says = status.container_statuses.is_some();
        return (!says).then(|| broken(pod));
    }
    let containers_ready = health != "unready";
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let ready = containers_ready && { gates }.all(|gate| is(&gate.condition_type));
    let runs = status.phase.as_deref() == Some("Running");
    if runs && is("ContainersReady") == containers_ready && is("Ready") == ready {
        return None;
    }
    let mut next = json!({"phase": "Running", "conditions": [
        condition("PodScheduled", true), condition("Initialized", true),
        condition("ContainersReady", containers_ready), condition("Ready", ready),
    ]});
    if status.pod_ip.is_none() {
        let number = addresses.fetch_add(1, Ordering::Relaxed) + 1;
        let ip = format!("10.244.{}.{}", number / 250 % 250, number % 250 + 1);
        next["podIP"] = json!(ip);
        next["podIPs"] = json!([{"ip": ip}]);
    }
    Some(next)
}

fn condition(kind: &str, holds: bool) -> Value {
    let now = jiff::Timestamp::now();
    json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now})
}

fn broken(pod: &Pod) -> Value {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<Value> = containers
        .map(|container| {
            json!({
                "name": container.name, "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            })
        })
        .collect();
    json!({"phase": "Running", "containerStatuses": statuses, "conditions": [
        condition("PodScheduled", true), condition("ContainersReady", false), condition("Ready", false),
    ]})
}
