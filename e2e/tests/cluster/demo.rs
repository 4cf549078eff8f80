//! The demo's application under load: two tiers behind a gateway, as the story left them.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use sluice_e2e::{
    ledger::{Entry, Ledger, Outcome, Totals},
    load::{self, Load, Running},
    observer::Observer,
    world::{self, Look},
};

use crate::{
    node::{self, say, wait_until},
    place::{is, is_going, pods},
};

pub const NAMESPACE: &str = "demo";
pub const ROLLOUT: &str = "frontend";

/// Load through the gateway, half of it through both tiers, with a ledger of every request.
pub struct Traffic {
    ledger: Arc<Ledger>,
    running: Running,
}

impl Traffic {
    /// Starts so many requests a second, and waits until they are answered.
    pub async fn start(rate: u32) -> Self {
        let load = Load {
            gateway: node::gateway(),
            host: "demo.local".to_owned(),
            rate,
            connections: 32,
            path: "/".to_owned(),
            others: Vec::new(),
            two_tier_every: 2,
        };
        Self::of(load, Arc::default()).await
    }

    /// Starts this load, and waits until a second of it is answered.
    pub async fn of(load: Load, ledger: Arc<Ledger>) -> Self {
        let rate = load.rate as usize;
        let running = load::start(load, ledger.clone());
        let traffic = Self { ledger, running };
        traffic.goes_on(rate).await;
        traffic
    }

    /// How many requests that were sent since then pods whose name begins so have answered.
    pub fn answered_by(&self, pod: &str, from: Duration) -> usize {
        let is_its = |e: &Entry| e.pod.as_ref().is_some_and(|name| name.starts_with(pod));
        self.ledger.entries(from, Duration::MAX, is_its).len()
    }

    /// The time on the ledger's clock.
    pub fn now(&self) -> Duration {
        self.ledger.now()
    }

    /// Watches the rollout on the ledger's clock.
    pub fn watch(&self, client: &Client) -> Observer {
        Observer::start(client.clone(), NAMESPACE, ROLLOUT, self.ledger.clone())
    }

    /// Waits until so many requests that are sent from now on have been answered.
    pub async fn goes_on(&self, requests: usize) {
        let from = self.ledger.now();
        wait_until(&format!("{requests} further answers"), async || {
            let ended = self.ledger.entries(from, Duration::MAX, |_| true);
            Ok(ended.len() >= requests)
        })
        .await;
    }

    /// Ends it. Every request must have been answered well.
    pub async fn end(self) {
        let (totals, bad) = self.stop().await;
        let told: Vec<String> = bad.iter().take(8).map(sentence).collect();
        assert!(bad.is_empty(), "{totals:?}\n{}", told.join("\n"));
        say(&format!("{} requests, none lost, none failed", totals.sent));
    }

    /// Ends it: all that was sent, and what was not answered well.
    pub async fn stop(self) -> (Totals, Vec<Entry>) {
        self.running.stop().await;
        let totals = self.ledger.totals(Duration::ZERO, Duration::MAX);
        let bad = bad_since(&self.ledger, Duration::ZERO);
        (totals, bad)
    }

    /// What was sent since then and not answered well.
    pub fn bad_since(&self, from: Duration) -> Vec<Entry> {
        bad_since(&self.ledger, from)
    }
}

fn bad_since(ledger: &Ledger, from: Duration) -> Vec<Entry> {
    let is_bad = |entry: &Entry| entry.outcome != Outcome::Ok;
    ledger.entries(from, Duration::MAX, is_bad)
}

fn sentence(entry: &Entry) -> String {
    let took = entry.ended.saturating_sub(entry.sent).as_secs_f64();
    let sent = entry.sent.as_secs_f64();
    format!(
        "sent at {sent:.2} s, ended after {took:.3} s: {:?} of {:?}",
        entry.outcome, entry.pod
    )
}

/// Waits until the demo's rollout is Idle and Ready.
pub async fn settled(client: &Client) -> Look {
    let mut last = Look::default();
    wait_until("the demo to be Idle and Ready", async || {
        last = world::look(client, NAMESPACE, ROLLOUT).await?;
        Ok(last.phase == "Idle" && last.ready == "True" && !last.stable.is_empty())
    })
    .await;
    last
}

/// `kubectl rollout restart`.
pub async fn restart(client: &Client, namespace: &str, deployment: &str) {
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
    write(client, namespace, deployment, patch).await;
}

/// `kubectl scale`.
pub async fn scale(client: &Client, namespace: &str, deployment: &str, replicas: i32) {
    let patch = json!({"spec": {"replicas": replicas}});
    write(client, namespace, deployment, patch).await;
}

async fn write(client: &Client, namespace: &str, deployment: &str, patch: serde_json::Value) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams {
        field_manager: Some("sluice-tests".to_owned()),
        ..PatchParams::default()
    };
    deployments
        .patch(deployment, &params, &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Waits until a Deployment has rolled out whole, and the last of the pods it replaced has ended.
/// It must never be paused on the way.
pub async fn rolled_out(client: &Client, namespace: &str, name: &str) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    wait_until(&format!("Deployment {name} to roll out"), async || {
        let deployment = deployments.get(name).await?;
        let selector = selector(&deployment);
        assert!(!is_paused(&deployment), "Deployment {name} is held");
        let pods = pods(client, namespace, &selector).await?;
        Ok(is_complete(&deployment) && !pods.iter().any(is_going))
    })
    .await;
}

fn selector(deployment: &Deployment) -> String {
    let spec = deployment.spec.clone().unwrap_or_default();
    let labels = spec.selector.match_labels.unwrap_or_default();
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

pub fn is_paused(deployment: &Deployment) -> bool {
    let spec = deployment.spec.as_ref();
    spec.and_then(|spec| spec.paused).unwrap_or_default()
}

/// As `kubectl rollout status` says.
fn is_complete(deployment: &Deployment) -> bool {
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else {
        return false;
    };
    let wanted = spec.replicas.unwrap_or(1);
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or_default() >= wanted
        && status.replicas == status.updated_replicas
        && status.available_replicas.unwrap_or_default() >= wanted
}

/// Deletes one Ready pod of an application, and waits until as many as before are Ready and it
/// has ended.
pub async fn replace_pod(client: &Client, app: &str) {
    let selector = format!("app={app}");
    let ready = |pod: &&Pod| is(pod, "Ready") && !is_going(pod);
    let before = pods(client, NAMESPACE, &selector).await.unwrap();
    let wanted = before.iter().filter(ready).count();
    let leaving = before.iter().find(ready).unwrap().name_any();
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    api.delete(&leaving, &DeleteParams::default())
        .await
        .unwrap();
    wait_until(&format!("pod {leaving} to be replaced"), async || {
        let now = pods(client, NAMESPACE, &selector).await?;
        let is_gone = now.iter().all(|pod| pod.name_any() != leaving);
        Ok(is_gone && now.iter().filter(ready).count() == wanted)
    })
    .await;
}
