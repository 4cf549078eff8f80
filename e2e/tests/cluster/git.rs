//! The repository of the demo, and what Flux says of it.

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;
use sluice_e2e::repo::Repo;

use crate::node;

/// What a release changes.
pub const WORKLOAD_FILE: &str = "apps/demo/frontend.yaml";

/// Pushes a version that was never there before; the commit's id.
pub fn publish(message: &str) -> String {
    let repo = Repo::open(&node::clone()).unwrap();
    let file = std::fs::read_to_string(repo.dir().join(WORKLOAD_FILE)).unwrap();
    let mut words = file.split_whitespace();
    let now = words
        .find(|word| word.starts_with("--ui-message="))
        .unwrap();
    let version = jiff::Timestamp::now().as_millisecond();
    repo.edit(WORKLOAD_FILE, now, &format!("--ui-message=v{version}"))
        .unwrap();
    repo.push(message).unwrap()
}

/// What Flux says of the repository.
pub struct Synced {
    /// The last commit that it calls done, as `main@sha1:ID`.
    pub done: String,
    /// Why it is not Ready; empty where it is.
    pub why_not_ready: String,
}

/// Looks at Flux's Kustomization.
pub async fn synced(client: &Client) -> anyhow::Result<Synced> {
    let kind = GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "flux-system", &resource);
    let status = &api.get("demo").await?.data["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let why_not_ready = match conditions.find(|c| c["type"] == "Ready") {
        Some(ready) if ready["status"] == "True" => String::new(),
        Some(ready) => text(&ready["message"]),
        None => "Ready is not there".to_owned(),
    };
    Ok(Synced {
        done: text(&status["lastAppliedRevision"]),
        why_not_ready,
    })
}
