//! Pods with proxies that call what is tried.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
};
use sluice_evidence::Identity;

use super::fleet::WRITERS;
use crate::{
    faults::{
        objects::{caller, within},
        stage::{create, new_namespace},
    },
    world::wait_until,
};

/// Pods of one namespace.
const PER_NAMESPACE: usize = 500;
/// The longest that the mock kubelet takes for all of them.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

/// Makes so many pods, and waits until all of them run.
///
/// # Errors
/// The apiserver's sentence.
pub async fn make(client: &Client, number: usize) -> Result<Vec<DynamicObject>> {
    for home in 0..number.div_ceil(PER_NAMESPACE) {
        new_namespace(client, &format!("callers-{home}")).await?;
    }
    let made = stream::iter(0..number).map(async |number| {
        let home = format!("callers-{}", number / PER_NAMESPACE);
        create(client, &within(&home, caller(&format!("caller-{number}")))).await
    });
    let made = made.buffer_unordered(WRITERS).try_collect().await;
    let made: Vec<DynamicObject> = made.context("making callers")?;
    let pods = Api::<Pod>::all(client.clone());
    let waiting = ListParams::default()
        .fields("status.phase=Pending")
        .limit(1);
    wait_until(PATIENCE, "the callers to run", async || {
        Ok(pods.list(&waiting).await?.items.is_empty())
    })
    .await?;
    Ok(made)
}

/// Who the proxy of a pod is, as its token would prove it.
#[must_use]
pub fn identity(pod: &DynamicObject) -> Identity {
    Identity {
        pod_uid: pod.uid().unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        service_account: "default".to_owned(),
    }
}
