//! The ca role and what it keeps.

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use sluice_e2e::{
    faults::stage::{Stage, until},
    world::SYSTEM,
};

const ROOT: &str = "sluice-ca";
const LEAFS: [&str; 2] = ["sluice-serving-tls", "sluice-controller-tls"];

/// A root lives for years: one of long ago shows what happens at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_whose_time_is_over_is_followed_by_another_and_by_leafs_of_it() {
    let stage = Stage::on_a_free_cluster().await.unwrap();
    let secrets = Api::<Secret>::namespaced(stage.admin.clone(), SYSTEM);
    let old = root_of_long_ago();
    let patch = Patch::Merge(json!({"data": {"tls.crt": ByteString(old.clone().into_bytes())}}));
    let params = PatchParams::default();
    secrets.patch(ROOT, &params, &patch).await.unwrap();
    let _ca = stage.ca().await.unwrap();
    let text = async |name: &str, key: &str| {
        let data = secrets.get(name).await?.data.unwrap_or_default();
        anyhow::Ok(String::from_utf8(data[key].0.clone())?)
    };
    let root = until("another root", async || {
        let root = text(ROOT, "tls.crt").await?;
        Ok((root != old).then_some(root))
    });
    let root = root.await.unwrap();
    for leaf in LEAFS {
        until(&format!("{leaf} to be of the new root"), async || {
            Ok((text(leaf, "ca.crt").await? == root).then_some(()))
        })
        .await
        .unwrap();
    }
    let maps = Api::<ConfigMap>::namespaced(stage.admin.clone(), "default");
    until("the proxies' root to be the new one", async || {
        let data = maps.get("sluice-root-ca").await?.data.unwrap_or_default();
        Ok((data["ca.crt"] == root).then_some(()))
    })
    .await
    .unwrap();
}

/// A certificate of a CA that has ended, PEM.
fn root_of_long_ago() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}
