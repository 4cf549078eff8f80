//! An apiserver that has our CRDs, and writes that say what became of them.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::{GroupVersionKind, TypeMeta},
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::api::client;

const MANAGER: &str = "sluice-tests";

/// A namespace of a test's own, in an apiserver that has our CRDs.
pub struct Place {
    pub client: Client,
    pub namespace: String,
}

impl Place {
    /// A namespace of that name, empty of our objects.
    pub async fn new(namespace: &str) -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let client = client().await;
        INSTALLED.get_or_init(|| install_crds(&client)).await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let params = PatchParams::apply(MANAGER).force();
        namespaces
            .patch(namespace, &params, &Patch::Apply(object))
            .await
            .unwrap();
        let place = Self {
            client,
            namespace: namespace.to_owned(),
        };
        for kind in ["MeshRollout", "TrafficSplit", "Mesh"] {
            let api = place.api(&typed(kind));
            for object in api.list(&Default::default()).await.unwrap() {
                if kind != "Mesh" || namespace == "mesh" {
                    api.delete(&object.name_any(), &Default::default())
                        .await
                        .unwrap();
                }
            }
        }
        place
    }

    /// Server-side apply with strict validation. The answer is the object, or the refusal's sentence.
    pub async fn apply(&self, yaml: &str) -> Result<DynamicObject, String> {
        self.write(yaml, false).await
    }

    /// As [`Place::apply`], but nothing is kept.
    pub async fn try_out(&self, yaml: &str) -> Result<DynamicObject, String> {
        self.write(yaml, true).await
    }

    async fn write(&self, yaml: &str, dry_run: bool) -> Result<DynamicObject, String> {
        let object: DynamicObject = serde_saphyr::from_str(yaml).unwrap();
        let mut params = PatchParams::apply(MANAGER).force().validation_strict();
        params.dry_run = dry_run;
        let types = object.types.clone().unwrap();
        self.api(&types)
            .patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) => status.message,
                other => panic!("the apiserver did not answer: {other}"),
            })
    }

    pub fn api(&self, types: &TypeMeta) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
        if types.kind == "Mesh" {
            return Api::all_with(
                self.client.clone(),
                &ApiResource {
                    plural: "meshes".to_owned(),
                    ..resource
                },
            );
        }
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }
}

/// The types of a kind of ours.
pub fn typed(kind: &str) -> TypeMeta {
    TypeMeta {
        api_version: "sluice.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
    }
}

/// The apiserver compiles every CEL rule here and refuses those that may cost too much.
async fn install_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in sluice_crds::yaml::all() {
        let params = PatchParams::apply(MANAGER).force();
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
    for _ in 0..200 {
        let request = http::Request::get(&path).body(Vec::new()).unwrap();
        if client.request::<Value>(request).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} is not served after 10 s", crd.name_any());
}
