//! An apiserver that has our CRDs, and writes that say what became of them.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::{GroupVersionKind, TypeMeta},
};
use sluice_e2e::crds::install as install_crds;
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
        INSTALLED
            .get_or_init(|| install_crds(&client, MANAGER))
            .await;
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
