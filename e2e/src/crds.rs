//! Our CRDs in an apiserver, without the chart.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::Value;

use crate::world::wait_until;

/// The longest that a CRD may take until it is served.
const PATIENCE: Duration = Duration::from_secs(60);

/// Applies them, and waits until they are served. The apiserver compiles every CEL rule here and
/// refuses those that may cost too much.
///
/// # Panics
/// The apiserver does not take them.
pub async fn install(client: &Client, manager: &str) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in sluice_crds::yaml::all() {
        let params = PatchParams::apply(manager).force();
        api.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", crd.name_any()));
    }
    for crd in sluice_crds::yaml::all() {
        served(client, &crd).await;
    }
}

/// A CRD is Established a moment before its objects are served.
async fn served(client: &Client, crd: &CustomResourceDefinition) {
    let path = format!("/apis/sluice.dev/v1alpha1/{}", crd.spec.names.plural);
    let what = format!("{} to be served", crd.name_any());
    let waited = wait_until(PATIENCE, &what, async || {
        let request = http::Request::get(&path).body(Vec::new())?;
        Ok(client.request::<Value>(request).await.is_ok())
    });
    waited.await.unwrap_or_else(|error| panic!("{error:#}"));
}
