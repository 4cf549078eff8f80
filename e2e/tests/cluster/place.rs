//! A namespace of a test's own.

use std::fmt::Write;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::{GroupVersionKind, TypeMeta},
};
use serde_json::{Value, json};
use sluice_crds::{MeshRollout, MeshRolloutStatus, TrafficSplit, names};
use sluice_e2e::world::{self, Look};

use crate::node::{self, afterwards, wait_until};

/// The field manager that Flux applies as.
pub const GIT: &str = "kustomize-controller";

/// A namespace of a test's own.
pub struct Place {
    pub client: Client,
    pub namespace: String,
}

/// Runs a test in a new namespace, which goes afterwards. Pods get sidecars where `injected`.
pub async fn within(namespace: &str, injected: bool, test: impl AsyncFnOnce(&Place)) {
    let place = Place {
        client: node::client().await,
        namespace: namespace.to_owned(),
    };
    place.remove().await;
    place.wait_until_gone().await;
    place.create(injected).await;
    let body = async {
        let told = std::panic::AssertUnwindSafe(test(&place));
        if let Err(panic) = futures::FutureExt::catch_unwind(told).await {
            eprintln!("{}", place.picture().await);
            std::panic::resume_unwind(panic);
        }
    };
    afterwards(body, place.remove()).await;
}

impl Place {
    pub async fn create(&self, injected: bool) {
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": self.namespace, "labels": {names::INJECT: injected.to_string()}},
        }))
        .unwrap();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .create(&Default::default(), &object)
            .await
            .unwrap();
    }

    /// Its objects end in the background.
    async fn remove(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let removed = namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await;
        if let Err(error) = removed {
            assert!(
                matches!(&error, kube::Error::Api(status) if status.code == 404 || status.code == 409),
                "removing namespace {}: {error}",
                self.namespace
            );
        }
    }

    async fn wait_until_gone(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let what = format!("namespace {} of an earlier run to be gone", self.namespace);
        wait_until(&what, async || {
            Ok(namespaces.get_opt(&self.namespace).await?.is_none())
        })
        .await;
    }

    /// What somebody who looks would see, for a test that failed.
    async fn picture(&self) -> String {
        let mut text = format!("--- namespace {}\n", self.namespace);
        let rollouts: Api<MeshRollout> = Api::namespaced(self.client.clone(), &self.namespace);
        for rollout in rollouts
            .list(&ListParams::default())
            .await
            .into_iter()
            .flatten()
        {
            let look = world::look(&self.client, &self.namespace, &rollout.name_any()).await;
            let _ = writeln!(text, "{}: {look:?}", rollout.name_any());
            for condition in rollout.status.unwrap_or_default().conditions {
                let _ = writeln!(
                    text,
                    "  {}={}: {}",
                    condition.type_, condition.status, condition.message
                );
            }
        }
        for event in self.events().await {
            let of = event.regarding.unwrap_or_default();
            let is_told = of.kind.as_deref() == Some("MeshRollout")
                || event.type_.as_deref() == Some("Warning");
            if is_told {
                let _ = writeln!(
                    text,
                    "event of {}: {}: {}",
                    of.name.unwrap_or_default(),
                    event.reason.unwrap_or_default(),
                    event.note.unwrap_or_default()
                );
            }
        }
        text
    }

    /// Server-side apply with strict validation, as a field manager. The answer is the object,
    /// or the refusal's sentence.
    pub async fn try_apply(&self, manager: &str, object: &Value) -> Result<DynamicObject, String> {
        let params = PatchParams::apply(manager).force().validation_strict();
        self.write(&params, object).await
    }

    /// Applies what git says.
    pub async fn apply(&self, object: &Value) -> DynamicObject {
        self.try_apply(GIT, object).await.unwrap()
    }

    /// What would come of applying what git says.
    pub async fn dry_run(&self, object: &Value) -> DynamicObject {
        let params = PatchParams::apply(GIT).dry_run();
        self.write(&params, object).await.unwrap()
    }

    async fn write(&self, params: &PatchParams, object: &Value) -> Result<DynamicObject, String> {
        let name = object["metadata"]["name"].as_str().unwrap();
        let written = self
            .api(object)
            .patch(name, params, &Patch::Apply(object))
            .await;
        written.map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => panic!("the apiserver did not answer: {other}"),
        })
    }

    /// The object as it stands in the cluster.
    pub async fn live(&self, object: &Value) -> DynamicObject {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api(object).get(name).await.unwrap()
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let types: TypeMeta = serde_json::from_value(object.clone()).unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// The status of a MeshRollout.
    pub async fn status(&self, rollout: &str) -> MeshRolloutStatus {
        let rollouts: Api<MeshRollout> = Api::namespaced(self.client.clone(), &self.namespace);
        let rollout = rollouts.get(rollout).await.unwrap();
        rollout.status.unwrap_or_default()
    }

    /// The TrafficSplit of a MeshRollout.
    pub async fn split(&self, rollout: &str) -> TrafficSplit {
        let splits: Api<TrafficSplit> = Api::namespaced(self.client.clone(), &self.namespace);
        splits.get(rollout).await.unwrap()
    }

    /// Waits until a MeshRollout looks like this.
    pub async fn until(&self, rollout: &str, what: &str, holds: impl Fn(&Look) -> bool) -> Look {
        let mut last = Look::default();
        let what = format!("MeshRollout {rollout}: {what}");
        wait_until(&what, async || {
            last = world::look(&self.client, &self.namespace, rollout).await?;
            Ok(holds(&last))
        })
        .await;
        last
    }

    /// Waits until a condition of a MeshRollout is as it should be; gives its message.
    pub async fn condition(&self, rollout: &str, kind: &str, status: &str) -> String {
        let mut message = String::new();
        let what = format!("MeshRollout {rollout}: {kind}={status}");
        wait_until(&what, async || {
            let conditions = self.status(rollout).await.conditions;
            let found = conditions
                .into_iter()
                .find(|c| c.type_ == kind && c.status == status);
            let is_there = found.is_some();
            message = found.map(|c| c.message).unwrap_or_default();
            Ok(is_there)
        })
        .await;
        message
    }

    /// All events.
    pub async fn events(&self) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        events.list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until so many of the pods that a selector takes are ready; their names.
    pub async fn ready_pods(&self, selector: &str, count: i32) -> Vec<String> {
        let mut ready = Vec::new();
        wait_until(&format!("{count} ready pods of {selector}"), async || {
            let pods = self.pods(selector).await;
            let serve = pods.iter().filter(|pod| is(pod, "Ready") && !is_going(pod));
            ready = serve.map(Pod::name_any).collect();
            Ok(i32::try_from(ready.len())? == count)
        })
        .await;
        ready
    }

    /// Deletes a pod, as `kubectl delete pod` does.
    pub async fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        pods.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The pods that a selector takes.
    pub async fn pods(&self, selector: &str) -> Vec<Pod> {
        pods(&self.client, &self.namespace, selector).await.unwrap()
    }
}

/// The pods that a selector takes, those that are going among them.
pub async fn pods(client: &Client, namespace: &str, selector: &str) -> kube::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.list(&ListParams::default().labels(selector)).await?;
    Ok(found.items)
}

/// Whether a pod has this condition.
pub fn is(pod: &Pod, condition: &str) -> bool {
    let status = pod.status.iter();
    let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|c| c.type_ == condition && c.status == "True")
}

/// Whether a pod is being deleted.
pub fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}
