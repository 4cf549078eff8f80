//! An application behind a gateway of its own, under a small load: what its users notice.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sluice_e2e::{
    ledger::{Entry, Ledger},
    load::Load,
    observer::Observer,
    world::Look,
};

use crate::{
    app::{deployment, rollout, service},
    demo::{Traffic, rolled_out},
    node::{self, say},
    place::Place,
};

/// Deployment, Service and MeshRollout.
pub const APP: &str = "web";
/// Requests a second, unless a setting says otherwise.
const RATE: u32 = 40;
/// So many that requests which hang keep no other waiting.
const CONNECTIONS: usize = 200;
const GATEWAY: &str = include_str!("../../../examples/gitops/apps/demo/gateway.yaml");

/// An application under load.
pub struct Busy {
    pub traffic: Traffic,
    rate: u32,
    observer: Observer,
}

/// What stands before a test begins, and what is asked of it.
pub struct Setting {
    /// [`APP`].
    pub deployment: Value,
    /// Replicas of its gateway.
    pub gateways: i32,
    /// Requests a second.
    pub rate: u32,
    /// What they ask for.
    pub path: &'static str,
}

impl Setting {
    pub fn of(deployment: Value) -> Self {
        Self {
            deployment,
            gateways: 1,
            rate: RATE,
            path: "/",
        }
    }
}

/// The MeshRollout of [`APP`] with a short hold, nothing of a rejected revision kept, and this
/// deadline.
pub fn hurried(deadline: &str) -> Value {
    rollout(
        APP,
        json!({
            "workload": {"name": APP},
            "analysis": {"hold": "1s", "hungAfter": "1s"},
            "onFailure": {"keepCandidatePods": 0},
            "deadline": deadline,
        }),
    )
}

/// A first step at 50 % that lasts.
pub fn half() -> Value {
    let mut rollout = hurried("2h");
    rollout["spec"]["strategy"] = json!({"steps": [{"weight": 50, "hold": "1h"}, {"weight": 100}]});
    rollout
}

/// What the names of the pods of a revision's own ReplicaSet begin with.
fn pods_of(revision: &str) -> String {
    format!("{APP}-sluice-{}-", &revision[..10])
}

impl Place {
    /// [`APP`] at v1 with so many replicas, behind a gateway, under load.
    pub async fn busy(&self, replicas: i32) -> Busy {
        let setting = Setting::of(deployment(APP, "v1", replicas));
        self.busy_with(&setting).await
    }

    /// The same in another setting.
    pub async fn busy_with(&self, setting: &Setting) -> Busy {
        self.apply(&service(APP)).await;
        self.apply(&setting.deployment).await;
        self.apply(&hurried("2h")).await;
        let gateway = self.gateway(setting.gateways).await;
        let replicas = setting.deployment["spec"]["replicas"].as_i64().unwrap();
        self.wait_until_ready(APP, i32::try_from(replicas).unwrap())
            .await;
        self.settled(APP).await;
        let ledger = Arc::new(Ledger::default());
        let observer = Observer::start(self.client.clone(), &self.namespace, APP, ledger.clone());
        let load = Load {
            gateway,
            host: "web.local".to_owned(),
            rate: setting.rate,
            connections: CONNECTIONS,
            path: setting.path.to_owned(),
            others: Vec::new(),
            two_tier_every: 0,
        };
        let traffic = Traffic::of(load, ledger).await;
        Busy {
            traffic,
            rate: setting.rate,
            observer,
        }
    }

    /// The demo's gateway, so many replicas of it, with a route to [`APP`].
    async fn gateway(&self, replicas: i32) -> SocketAddr {
        let namespace = &self.namespace;
        let route = format!("8080={APP}.{namespace}.svc.cluster.local:9898");
        for mut object in serde_saphyr::from_multiple::<Value>(GATEWAY).unwrap() {
            match object["kind"].as_str() {
                Some("Deployment") => {
                    object["spec"]["replicas"] = json!(replicas);
                    let arguments =
                        &mut object["spec"]["template"]["spec"]["containers"][0]["args"];
                    assert_eq!(arguments[1], "--route");
                    arguments[2] = json!(route);
                }
                Some("Service") => {
                    let port = object["spec"]["ports"][0].as_object_mut().unwrap();
                    port.remove("nodePort");
                }
                _ => {}
            }
            self.apply(&object).await;
        }
        rolled_out(&self.client, namespace, "gateway").await;
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let service = services.get("gateway").await.unwrap().spec.unwrap();
        let port = service.ports.unwrap()[0].node_port.unwrap();
        SocketAddr::new(node::gateway().ip(), u16::try_from(port).unwrap())
    }

    /// Applies a revision of [`APP`] and waits until it is at its first step; its revision.
    pub async fn try_out(&self, deployment: &Value) -> String {
        self.try_out_at(10, deployment).await
    }

    /// The same where the first step has this weight.
    pub async fn try_out_at(&self, weight: i32, deployment: &Value) -> String {
        let before = self.settled(APP).await;
        self.apply(deployment).await;
        let look = self
            .until(APP, "at its first step", |look| {
                let tried = look.phase == "Observing" && look.candidate != before.stable;
                tried && look.weight == weight
            })
            .await;
        look.candidate
    }

    /// Waits until the candidate is rejected; why.
    pub async fn rejected(&self) -> String {
        self.until(APP, "Rejected", |look| look.phase == "Rejected")
            .await;
        self.condition(APP, "Stalled", "True").await
    }

    /// Waits for a sentence in the Reconciling condition.
    pub async fn reconciling(&self, sentence: &str) {
        let what = format!("Reconciling to say `{sentence}`");
        node::wait_until(&what, async || {
            let conditions = self.status(APP).await.conditions;
            let told = conditions.iter().find(|c| c.type_ == "Reconciling");
            Ok(told.is_some_and(|c| c.message.contains(sentence)))
        })
        .await;
    }

    /// Waits for an event about an object.
    pub async fn event(&self, of: &str, reason: &str) -> String {
        let mut note = String::new();
        node::wait_until(&format!("event {reason} of {of}"), async || {
            let events = self.events().await;
            let found = events.into_iter().find(|event| {
                let regarding = event.regarding.as_ref().and_then(|r| r.name.as_deref());
                regarding == Some(of) && event.reason.as_deref() == Some(reason)
            });
            let is_there = found.is_some();
            note = found.and_then(|event| event.note).unwrap_or_default();
            Ok(is_there)
        })
        .await;
        note
    }

    /// Names of the pods of a revision's own ReplicaSet, those that are going among them.
    pub async fn tried_pods(&self, revision: &str) -> Vec<String> {
        let ours = pods_of(revision);
        let pods = self.pods(&format!("app={APP}")).await;
        let names = pods.iter().map(ResourceExt::name_any);
        names.filter(|name| name.starts_with(&ours)).collect()
    }
}

impl Busy {
    /// A second's worth of further answers.
    pub async fn goes_on(&self) {
        self.goes_on_for(1).await;
    }

    /// So many seconds' worth of further answers.
    pub async fn goes_on_for(&self, seconds: usize) {
        self.traffic.goes_on(seconds * self.rate as usize).await;
    }

    /// How many requests that were sent since then pods of a revision's own have answered.
    pub fn answered_by(&self, revision: &str, from: Duration) -> usize {
        self.traffic.answered_by(&pods_of(revision), from)
    }

    /// When the requests since then that failed were sent, the first one first.
    pub fn failures_since(&self, from: Duration) -> Vec<Duration> {
        let bad = self.traffic.bad_since(from);
        let mut sent: Vec<_> = bad.into_iter().map(|entry| entry.sent).collect();
        sent.sort();
        sent
    }

    /// The time on the ledger's clock.
    pub fn now(&self) -> Duration {
        self.traffic.now()
    }

    /// Every change of the rollout since then.
    pub fn since(&self, from: Duration) -> Vec<(Duration, Look)> {
        self.observer.since(from)
    }

    /// The most weight that the rollout has had since then.
    pub fn most_weight(&self, from: Duration) -> i32 {
        let weights = self.since(from).into_iter().map(|(_, look)| look.weight);
        weights.max().unwrap_or_default()
    }

    /// Ends the load. Every request must have been answered well.
    pub async fn end(self) {
        self.traffic.end().await;
    }

    /// Ends the load. What went wrong must have been sent while a candidate had weight, and be
    /// its own: answered by its pod, or by nobody. How many there were.
    pub async fn end_with_failures_of(self, revision: &str) -> usize {
        let ours = pods_of(revision);
        let looks = self.since(Duration::ZERO);
        let (totals, bad) = self.traffic.stop().await;
        // A look is taken a moment after what it shows.
        let slack = Duration::from_secs(1);
        let weighty = |entry: &Entry| {
            let from = looks.iter().find(|(_, look)| look.weight > 0);
            let until = looks.iter().rfind(|(_, look)| look.weight > 0);
            let after = until.and_then(|(last, _)| looks.iter().find(|(at, _)| at > last));
            from.is_some_and(|(from, _)| entry.sent + slack >= *from)
                && after.is_none_or(|(end, _)| entry.sent <= *end + slack)
        };
        for entry in &bad {
            let own = entry.pod.as_ref().is_none_or(|pod| pod.starts_with(&ours));
            assert!(own && weighty(entry), "{entry:?}");
        }
        let (failed, sent) = (bad.len(), totals.sent);
        say(&format!(
            "{failed} of {sent} requests failed, all by {revision}"
        ));
        failed
    }
}
