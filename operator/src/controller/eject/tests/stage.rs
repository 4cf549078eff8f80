//! A controller with one rollout in mid-step, and a mock of its apiserver.

use std::sync::Arc;

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice_crds::TrafficSplit;
use sluice_evidence::{
    relay::ProxyEntry,
    v1::{AppliedSplit, ArmCounts, Record},
};
use sluice_rollout::state::{Arm, Candidate, Phase};

use super::super::*;
use crate::{
    controller::{
        bypass::Meshed,
        events::Events,
        facts::{DeploymentFacts, PodFacts, ReplicaSetFacts},
        fixtures::{self, Build, NAMESPACE},
        metrics::Metrics,
        queue::Queue,
        watches::World,
        webhooks::{GATE, HOLD, Webhooks, gate_expression, hold_expression},
    },
    lease::Leadership,
    relay::leader::Hub,
};

/// Of the split and the state at the beginning.
pub(super) const FENCE: i64 = 7;

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Done,
    Answered(u16),
    Refused,
    Hangs,
}

/// A mock of the apiserver: it shows the webhooks, and does with writes as it is told.
#[derive(Clone)]
pub(super) struct Apiserver {
    statuses: Fate,
    splits: Fate,
    /// What was written, in its order.
    pub(super) written: Arc<Mutex<Vec<Value>>>,
}

impl Apiserver {
    pub(super) fn new(statuses: Fate, splits: Fate) -> Self {
        Self {
            statuses,
            splits,
            written: Arc::default(),
        }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        if request.method() == Method::GET {
            return Ok(reply(200, &webhooks()));
        }
        let fate = if request.uri().path().contains("/trafficsplits/") {
            self.splits
        } else {
            self.statuses
        };
        let object = request.into_body().collect_bytes().await.unwrap();
        let object: Value = serde_json::from_slice(&object).unwrap();
        match fate {
            Fate::Done => {
                self.written.lock().push(object.clone());
                Ok(reply(200, &object))
            }
            Fate::Answered(code) => {
                let status =
                    json!({"kind": "Status", "status": "Failure", "code": code, "message": "no"});
                Ok(reply(code, &status))
            }
            Fate::Refused => Err(std::io::ErrorKind::ConnectionRefused.into()),
            Fate::Hangs => std::future::pending().await,
        }
    }
}

fn reply(code: u16, object: &Value) -> Response<Body> {
    let body = Body::from(serde_json::to_vec(object).unwrap());
    Response::builder().status(code).body(body).unwrap()
}

/// Both lists as they should be.
fn webhooks() -> Value {
    let webhook = |name: &str, expression: String| {
        json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {}, "matchConditions": [{"name": "governed", "expression": expression}],
        })
    };
    let held = hold_expression(&[NAMESPACE.to_owned()].into());
    let gated = gate_expression(&[format!("{NAMESPACE}/sluice-r2")].into());
    json!({"metadata": {"name": "sluice"}, "webhooks": [webhook(HOLD, held), webhook(GATE, gated)]})
}

/// MeshRollout `web` observes revision `r2` at 10 %, one pod of it beside three stable ones.
fn world() -> World {
    let world = World::default();
    let arm = |revision: &str, hashes: &[&str]| Arm {
        revision: revision.to_owned(),
        pod_label_values: hashes.iter().map(|&hash| hash.to_owned()).collect(),
    };
    let now = Timestamp::now().as_millisecond();
    let state = State {
        fence: FENCE,
        phase: Phase::Observing {
            step: 0,
            since: now,
        },
        weight: 10,
        stable: Some(arm("r1", &[])),
        candidate: Some(Candidate {
            arm: arm("r2", &["sluice-r2"]),
            started: now,
            ..Candidate::default()
        }),
        ..State::default()
    };
    let rollout = fixtures::rollout("web", "web");
    let state = serde_json::to_value(state).unwrap();
    world.rollouts.put(fixtures::with_state(&rollout, state));
    world.splits.put(split(FENCE, 10));
    world.services.put(fixtures::service("web", "web"));
    world.deployments.put(DeploymentFacts {
        paused: true,
        complete: false,
        ..fixtures::deployment("web", "r2")
    });
    let stable = ReplicaSetFacts {
        replicas: 3,
        pods: 3,
        ..fixtures::replica_set("web-1")
    };
    world.replica_sets.put(stable.owned("Deployment", "web"));
    let candidate = ReplicaSetFacts {
        revision: "r2".to_owned(),
        pod_hash: "sluice-r2".to_owned(),
        replicas: 1,
        pods: 1,
        ..fixtures::replica_set("web-sluice-r2")
    };
    let candidate = candidate.owned("MeshRollout", "web");
    world.replica_sets.put(candidate);
    for (name, set) in [
        ("s1", "web-1"),
        ("s2", "web-1"),
        ("s3", "web-1"),
        ("c1", "web-sluice-r2"),
    ] {
        let pod = PodFacts {
            ready: set == "web-1",
            containers_ready: true,
            gated: set != "web-1",
            ..fixtures::pod(name)
        };
        world.pods.put(pod.owned("ReplicaSet", set));
    }
    world
}

pub(super) fn split(fence: i64, weight: i32) -> SplitFacts {
    let object: TrafficSplit = serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "TrafficSplit",
        "metadata": {
            "name": "web", "namespace": NAMESPACE, "uid": "split", "resourceVersion": "1",
            "ownerReferences": [{
                "apiVersion": "sluice.dev/v1alpha1", "kind": "MeshRollout", "name": "web",
                "uid": "web", "controller": true,
            }],
        },
        "spec": {
            "fence": fence, "services": ["web"], "revision": "r2", "leased": true,
            "arms": [
                {"name": "stable", "weight": 100 - weight},
                {"name": "candidate", "weight": weight, "podLabelValues": ["sluice-r2"], "includeGated": true},
            ],
        },
    }))
    .unwrap();
    SplitFacts::of(object)
}

/// A leader at this world.
pub(super) struct Leader {
    pub(super) controller: Controller,
    pub(super) memory: Memory,
}

impl Leader {
    pub(super) fn new(apiserver: &Apiserver, leadership: Leadership) -> Self {
        let apiserver = apiserver.clone();
        let service = tower::service_fn(move |request| apiserver.clone().answer(request));
        let client = Client::new(service, NAMESPACE);
        let world = Arc::new(world());
        let (events, _) = Events::new(client.clone(), "controller-1");
        let hub = Hub::new(
            "controller-1",
            leadership.clone(),
            Box::new(|_| ()),
            Box::new(|| ()),
        );
        let controller = Controller {
            webhooks: Arc::new(Webhooks::new(
                client.clone(),
                leadership.clone(),
                world.clone(),
            )),
            client,
            leadership,
            world,
            seen: Arc::default(),
            queue: Queue::default(),
            hub: Arc::new(hub),
            events,
            metrics: Metrics::default(),
            own_namespace: "sluice-system".to_owned(),
            meshed: Meshed::default(),
            memories: Mutex::default(),
        };
        Self {
            controller,
            memory: Memory::default(),
        }
    }

    /// Each of two proxies has sent this many requests to the candidate, so many of which failed.
    pub(super) fn hears(&self, requests: u64, failures: u64) {
        let arm = |coined, server_errors| ArmCounts {
            coined,
            server_errors,
            ..ArmCounts::default()
        };
        for pod in ["p1", "p2"] {
            let entry = ProxyEntry {
                pod_uid: pod.to_owned(),
                pod: pod.to_owned(),
                namespace: NAMESPACE.to_owned(),
                sequence: 1,
                connected: true,
                applied: vec![AppliedSplit {
                    service: "shop/web".to_owned(),
                    fence: FENCE,
                }],
                records: vec![Record {
                    service: "shop/web".to_owned(),
                    revision: "r2".to_owned(),
                    fence: FENCE,
                    stable: Some(arm(9 * requests, 0)),
                    candidate: Some(arm(requests, failures)),
                    ..Record::default()
                }],
                views: vec!["shop/web".to_owned()],
                ..ProxyEntry::default()
            };
            let merged = self
                .controller
                .hub
                .with_table(|table| table.merge("serving-1", &entry, 0));
            merged.unwrap();
        }
    }

    pub(super) async fn look(&mut self) {
        let key = Key {
            namespace: NAMESPACE.to_owned(),
            name: "web".to_owned(),
        };
        self.controller.look(&key, &mut self.memory).await;
    }

    /// Revision and fence of what proxies are told.
    pub(super) fn ejected(&self) -> Option<(String, i64)> {
        let eject = self.controller.hub.ejects.of(NAMESPACE, "web")?;
        Some((eject.revision, eject.fence))
    }
}
