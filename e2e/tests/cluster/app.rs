//! An application without traffic: whatever moves its rollout is said by command.

use serde_json::{Value, json};
use sluice_crds::names;
use sluice_e2e::world::Look;

use crate::{node::wait_until, place::Place, proxy::Proxy};

/// podinfo as a Deployment; `version` is what a release changes.
pub fn deployment(name: &str, version: &str, replicas: i32) -> Value {
    podinfo(name, replicas, &[format!("--ui-message={version}")])
}

/// podinfo with further flags.
pub fn podinfo(name: &str, replicas: i32, flags: &[String]) -> Value {
    let mut arguments = vec!["--port=9898".to_owned()];
    arguments.extend_from_slice(flags);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "enableServiceLinks": false,
                    "containers": [{
                        "name": "podinfo",
                        "image": "podinfo:6.9.2",
                        "args": arguments,
                        "ports": [{"name": "http", "containerPort": 9898}],
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

/// The Service before it.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 9898, "targetPort": "http"}],
        },
    })
}

/// A MeshRollout of this name with this spec.
pub fn rollout(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "MeshRollout",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// A MeshRollout that says no more than which Deployment it governs.
pub fn governing(name: &str, workload: &str) -> Value {
    rollout(name, json!({"workload": {"name": workload}}))
}

/// Where a [`turncoat`] answers 200 until it is told otherwise.
pub const TURNS_AT: &str = "/readyz";

/// podinfo that is Ready whatever it says at [`TURNS_AT`].
pub fn turncoat(name: &str, version: &str, replicas: i32) -> Value {
    let mut deployment = deployment(name, version, replicas);
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["readinessProbe"]["httpGet"]["path"] = json!("/healthz");
    deployment
}

/// From now on a pod of a [`turncoat`] with a sidecar answers 503 at [`TURNS_AT`].
pub fn turn_bad(pod: &str) {
    let proxy = Proxy {
        pod: pod.to_owned(),
        kind: "sidecar",
    };
    let said = proxy.ask(9898, "POST /readyz/disable").unwrap();
    assert!(said.starts_with("HTTP/1.1 202"), "{said}");
}

impl Place {
    /// Deployment, Service and MeshRollout of one name; the revision that serves.
    pub async fn deploy(&self, name: &str, version: &str, replicas: i32) -> String {
        self.apply(&service(name)).await;
        self.apply(&deployment(name, version, replicas)).await;
        self.apply(&governing(name, name)).await;
        self.wait_until_ready(name, replicas).await;
        self.settled(name).await.stable
    }

    /// Waits until so many pods of the stable revision are ready.
    pub async fn wait_until_ready(&self, name: &str, replicas: i32) {
        let what = format!("{replicas} ready pods of {name}");
        wait_until(&what, async || {
            let stable = self.status(name).await.stable;
            Ok(stable.is_some_and(|stable| stable.ready_pods == replicas))
        })
        .await;
    }

    /// Waits until nothing moves any more.
    pub async fn settled(&self, name: &str) -> Look {
        self.until(name, "Idle and Ready", |look| {
            look.phase == "Idle" && look.ready == "True" && !look.stable.is_empty()
        })
        .await
    }

    /// Applies a new version and waits until it is at its first step; its revision.
    pub async fn release(&self, name: &str, version: &str, replicas: i32) -> String {
        let before = self.settled(name).await;
        self.apply(&deployment(name, version, replicas)).await;
        let look = self
            .until(name, &format!("{version} at its first step"), |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        assert_eq!(look.stable, before.stable, "stable serves on");
        look.candidate
    }

    /// Says a command about a revision, as `kubectl annotate` does.
    pub async fn command(&self, name: &str, command: &str, revision: &str) {
        let asked =
            json!({"metadata": {"annotations": {names::COMMAND: format!("{command}@{revision}")}}});
        let rollouts: kube::Api<sluice_crds::MeshRollout> =
            kube::Api::namespaced(self.client.clone(), &self.namespace);
        let patch = kube::api::Patch::Merge(asked);
        rollouts
            .patch(name, &Default::default(), &patch)
            .await
            .unwrap();
    }

    /// Promotes a revision by command and waits until it is stable.
    pub async fn promote(&self, name: &str, revision: &str) {
        self.command(name, "promote", revision).await;
        self.promoted(name, revision).await;
    }

    /// Waits until a revision is the stable one and nothing moves any more.
    pub async fn promoted(&self, name: &str, revision: &str) {
        self.until(name, &format!("{revision} promoted"), |look| {
            look.phase == "Idle" && look.ready == "True" && look.stable == revision
        })
        .await;
    }
}
