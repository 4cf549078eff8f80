//! Secrets and the root's ConfigMap: each account its own.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{Place, SYSTEM, refusal, typed};

#[tokio::test]
async fn each_account_reads_its_own_secret_and_only_the_ca_makes_any() {
    let place = Place::new("accounts-secrets").await;
    let secrets = |who: &Client| Api::<Secret>::namespaced(who.clone(), SYSTEM);
    let named = |name: &str| ListParams::default().fields(&format!("metadata.name={name}"));
    let admin = secrets(&place.admin);
    for name in [
        "sluice-ca",
        "sluice-serving-tls",
        "sluice-controller-tls",
        "other",
    ] {
        let _ = admin.delete(name, &DeleteParams::default()).await;
    }
    let post = PostParams::default();
    let secret = |name: &str| typed::<Secret>(json!({"metadata": {"name": name}}));
    for name in ["sluice-ca", "sluice-serving-tls", "sluice-controller-tls"] {
        let made = secrets(&place.ca)
            .create(&post, &secret(name))
            .await
            .unwrap();
        secrets(&place.ca)
            .replace(name, &post, &made)
            .await
            .unwrap();
        secrets(&place.ca).list(&named(name)).await.unwrap();
    }
    let why = refusal(secrets(&place.ca).create(&post, &secret("other")).await);
    assert!(
        why.contains(
            "Sluice makes the Secrets sluice-ca, sluice-serving-tls and sluice-controller-tls alone"
        ),
        "{why}"
    );
    for (who, own) in [
        (&place.serving, "sluice-serving-tls"),
        (&place.controller, "sluice-controller-tls"),
    ] {
        let api = secrets(who);
        api.list(&named(own)).await.unwrap();
        refusal(api.get("sluice-ca").await);
        refusal(api.list(&ListParams::default()).await);
        refusal(api.create(&post, &secret("other")).await);
        refusal(api.replace(own, &post, &secret(own)).await);
    }
    for who in [&place.controller, &place.serving, &place.ca] {
        refusal(place.of::<Secret>(who).list(&ListParams::default()).await);
        refusal(
            place
                .of::<Secret>(who)
                .create(&post, &secret("sluice-ca"))
                .await,
        );
    }
}

#[tokio::test]
async fn the_ca_brings_the_root_to_a_namespace_and_no_other_config_map() {
    let place = Place::new("accounts-configmaps").await;
    let api = place.of::<ConfigMap>(&place.ca);
    let _ = place
        .of::<ConfigMap>(&place.admin)
        .delete("sluice-root-ca", &DeleteParams::default())
        .await;
    let map = |name: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": "root"}}),
        )
    };
    let params = PatchParams::apply("sluice-ca").force();
    api.patch("sluice-root-ca", &params, &map("sluice-root-ca"))
        .await
        .unwrap();
    api.patch("sluice-root-ca", &params, &map("sluice-root-ca"))
        .await
        .unwrap();
    let everywhere = Api::<ConfigMap>::all(place.ca.clone());
    everywhere
        .list(&ListParams::default().fields("metadata.name=sluice-root-ca"))
        .await
        .unwrap();
    refusal(everywhere.list(&ListParams::default()).await);
    refusal(api.patch("other", &params, &map("other")).await);
    // Not even the right one is made without a name that RBAC sees.
    for name in ["other", "sluice-root-ca"] {
        let object = typed(json!({"metadata": {"name": name}}));
        let why = refusal(api.create(&PostParams::default(), &object).await);
        assert!(why.contains("cannot create resource"), "{why}");
    }
}
