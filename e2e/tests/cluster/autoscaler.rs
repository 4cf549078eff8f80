//! The HorizontalPodAutoscaler of kube-controller-manager, by the load that pods really have. What
//! a request costs is made up: there is no metrics server, but a mock of one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::api::DynamicObject;
use serde_json::{Value, json};
use sluice_e2e::{
    ledger::{Ledger, Outcome},
    load::{self, Load, Running},
};

use crate::{
    app::{deployment, rollout, service},
    gateway,
    metrics_server::{self, MetricsServer},
    node::{afterwards, say, wait_until},
    place::{Place, is, is_going, within},
};

const APP: &str = "shop";
const GATEWAY_PORT: u16 = 30082;
/// Requests a second of which one pod is to have 25: work for the least number of pods.
const LOW: u32 = 30;
/// Work for four pods.
const SOME: u32 = 92;
/// Half of it is more than the six pods can do that the autoscaler sees, two of which do nothing
/// in its eyes.
const HIGH: u32 = 380;
const MOST: i32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_takes_nothing_from_a_rollout_brings_what_it_needs_and_is_given_back() {
    within("sluice-autoscaler", true, async |place| {
        metrics_server::remove(&place.client).await;
        afterwards(story(place), metrics_server::remove(&place.client)).await;
    })
    .await;
}

async fn story(place: &Place) {
    let steps = json!([{"weight": 50, "hold": "5s"}, {"pause": {}}, {"weight": 100, "hold": "5s"}]);
    place.apply(&service(APP)).await;
    place.apply(&release("v1")).await;
    let spec = json!({"workload": {"name": APP}, "strategy": {"steps": steps}});
    place.apply(&rollout(APP, spec)).await;
    place.wait_until_ready(APP, 1).await;
    place.settled(APP).await;
    let gateway = gateway::start(place, APP, GATEWAY_PORT).await;
    let _metrics = MetricsServer::start(place, APP).await;
    let ledger = Arc::<Ledger>::default();

    let load = requests(gateway, SOME, &ledger);
    place.apply(&autoscaler()).await;
    let before = place.live(&autoscaler()).await;
    replicas(place, 4).await;
    place.wait_until_ready(APP, 4).await;
    say(&format!("four pods for {SOME} requests a second"));

    place.apply(&release("v2")).await;
    let held = place
        .until(APP, "v2 at 50 %, paused", |look| {
            look.phase == "Paused" && look.weight == 50
        })
        .await;
    assert_eq!(select_policy(place).await, "Disabled");
    // Stable pods have half of what they had.
    limited(place).await;
    assert_eq!(spec_replicas(place).await, 4);
    assert_eq!(candidates(place).await, 2);
    say("at 50 % the autoscaler wants fewer, and takes none");

    let more = requests(gateway, HIGH - SOME, &ledger);
    replicas(place, MOST).await;
    wait_until("three ready candidate pods", async || {
        Ok(candidates(place).await == 3)
    })
    .await;
    say(&format!(
        "six pods for {HIGH} requests a second, and three of the candidate"
    ));
    load.stop().await;
    more.stop().await;
    let load = requests(gateway, LOW, &ledger);
    limited(place).await;
    assert_eq!(spec_replicas(place).await, MOST);

    place.command(APP, "resume", &held.candidate).await;
    place
        .until(APP, "v2 promoted", |look| {
            look.phase == "Idle" && look.ready == "True" && look.stable == held.candidate
        })
        .await;
    place.wait_until_ready(APP, MOST).await;
    assert_eq!(
        select_policy(place).await,
        "Disabled",
        "it remembers the rollout still"
    );

    wait_until("the autoscaler to be as git has it", async || {
        let now = place.live(&autoscaler()).await;
        Ok(now.data["spec"] == before.data["spec"])
    })
    .await;
    replicas(place, 2).await;
    say("given back, it takes what is too much");

    load.stop().await;
    let bad = ledger.entries(Duration::ZERO, Duration::MAX, |entry| {
        entry.outcome != Outcome::Ok
    });
    assert!(bad.is_empty(), "{:?}", &bad[..bad.len().min(8)]);
    say(&format!(
        "{} requests, none lost, none failed",
        ledger.opened(Duration::ZERO, Duration::MAX)
    ));
}

/// What git has: without `replicas`, which are the autoscaler's.
fn release(version: &str) -> Value {
    let mut object = deployment(APP, version, 0);
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    object
}

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": APP},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APP},
            "minReplicas": 2, "maxReplicas": MOST,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "AverageValue", "averageValue": "100m"}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    })
}

fn requests(gateway: SocketAddr, rate: u32, ledger: &Arc<Ledger>) -> Running {
    let load = Load {
        gateway,
        host: "shop.local".to_owned(),
        rate,
        connections: 16,
        path: "/".to_owned(),
        others: Vec::new(),
        two_tier_every: 0,
    };
    load::start(load, ledger.clone())
}

async fn replicas(place: &Place, wanted: i32) {
    wait_until(
        &format!("the autoscaler to want {wanted} pods"),
        async || Ok(spec_replicas(place).await == wanted),
    )
    .await;
}

async fn spec_replicas(place: &Place) -> i32 {
    let live = place.live(&release("v1")).await;
    let replicas = live.data["spec"]["replicas"].as_i64();
    replicas.and_then(|n| i32::try_from(n).ok()).unwrap()
}

async fn select_policy(place: &Place) -> String {
    let live = place.live(&autoscaler()).await;
    let policy = &live.data["spec"]["behavior"]["scaleDown"]["selectPolicy"];
    policy.as_str().unwrap_or_default().to_owned()
}

/// Waits until the autoscaler says that it wants fewer pods and may not take any.
async fn limited(place: &Place) {
    let says = |live: &DynamicObject| {
        let conditions = live.data["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|c| c["type"] == "ScalingLimited" && c["reason"] == "ScaleDownLimit")
    };
    wait_until("the autoscaler to want fewer pods", async || {
        Ok(says(&place.live(&autoscaler()).await))
    })
    .await;
}

/// Pods of our ReplicaSet that can serve.
async fn candidates(place: &Place) -> usize {
    let pods = place.pods(&format!("app={APP}")).await;
    let ours = pods.iter().filter(|pod| {
        let hash = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("pod-template-hash"));
        hash.is_some_and(|hash| hash.starts_with("sluice-"))
    });
    ours.filter(|pod| is(pod, "ContainersReady") && !is_going(pod))
        .count()
}
