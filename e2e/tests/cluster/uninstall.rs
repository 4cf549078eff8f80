//! Sluice itself goes, comes back, and changes, in the middle of a rollout.

use std::path::PathBuf;

use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        core::v1::{Namespace, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_crds::MeshRollout;
use sluice_e2e::world::SYSTEM;

use crate::{
    app::deployment,
    busy::{APP, Busy, hurried},
    demo::{self, rolled_out},
    node::{afterwards, helm, say, wait_until},
    place::{Place, is, is_going, within},
};

const REPLICAS: i32 = 2;
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sluice");
/// The image that `cargo xtask install` makes beside the one that it installs: the same binary
/// under another tag, in the place of another version.
const ANOTHER: &str = "sluice/operator:0.1.0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstalled_under_traffic_all_serves_on_and_reinstalled_the_rollout_goes_on() {
    within("sluice-uninstall", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        place.apply(&lasting()).await;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        let before = place.status(APP).await;
        let values = Values::of_the_release().await;

        let away = async {
            helm(&["uninstall", "sluice", "--namespace", SYSTEM, "--wait"])
                .await
                .unwrap();
            no_webhook_is_left(&place.client).await;
            busy.goes_on().await;
            // Nothing of ours is needed to start a pod.
            let lost = a_stable_pod(place).await;
            let pods: Api<Pod> = Api::namespaced(place.client.clone(), &place.namespace);
            pods.delete(&lost, &DeleteParams::default()).await.unwrap();
            replaced(place, &lost).await;
            busy.goes_on().await;
            the_lease_ends(place, &busy, &revision).await;
            the_certificates_go(&place.client).await;
        };
        afterwards(away, values.install()).await;

        let look = place
            .until(APP, "as it was", |look| {
                look.phase == "Observing" && look.weight == 10 && look.applied
            })
            .await;
        assert_eq!(look.candidate, revision);
        assert_eq!(
            place.status(APP).await.fence,
            before.fence,
            "nothing was decided anew"
        );
        place.promote(APP, &revision).await;
        // What came without a sidecar gets one as everything does that is new to the mesh.
        demo::settled(&place.client).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_of_operator_and_crd_and_back_in_mid_rollout_changes_nothing() {
    within("sluice-versions", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        place.apply(&lasting()).await;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        let before = place.status(APP).await;
        let images = images(&place.client).await;
        let changed = async {
            a_field_more(&place.client, true).await;
            for role in ["sluice-controller", "sluice-serving"] {
                set_image(&place.client, role, ANOTHER).await;
            }
            leaves_a_field_that_the_older_does_not_know(place).await;
            busy.goes_on().await;
            assert_eq!(place.status(APP).await.fence, before.fence);
        };
        let back = async {
            for (role, image) in &images {
                set_image(&place.client, role, image).await;
            }
            a_field_more(&place.client, false).await;
        };
        afterwards(changed, back).await;
        let look = place
            .until(APP, "as it was", |look| {
                look.phase == "Observing" && look.weight == 10 && look.applied
            })
            .await;
        assert_eq!(look.candidate, revision);
        assert_eq!(place.status(APP).await.fence, before.fence);
        place.promote(APP, &revision).await;
        demo::settled(&place.client).await;
        busy.end().await;
    })
    .await;
}

/// A weight that nobody renews ends: everything is stable's again, and nothing is lost on the way.
async fn the_lease_ends(place: &Place, busy: &Busy, revision: &str) {
    let candidate = place.tried_pods(revision).await.remove(0);
    wait_until("the candidate to get nothing any more", async || {
        let from = busy.now();
        busy.traffic.goes_on(200).await;
        Ok(busy.traffic.answered_by(&candidate, from) == 0)
    })
    .await;
}

/// With the namespace the root of trust goes: what comes after has another.
async fn the_certificates_go(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .delete(SYSTEM, &DeleteParams::default())
        .await
        .unwrap();
    wait_until("the namespace of Sluice to be gone", async || {
        Ok(namespaces.get_opt(SYSTEM).await?.is_none())
    })
    .await;
}

/// A first step that nobody passes by waiting.
fn lasting() -> Value {
    let mut rollout = hurried("2h");
    rollout["spec"]["analysis"]["hold"] = json!("1h");
    rollout
}

/// What the release was installed with.
struct Values(PathBuf);

impl Values {
    async fn of_the_release() -> Self {
        let get = [
            "get",
            "values",
            "sluice",
            "--namespace",
            SYSTEM,
            "-o",
            "json",
        ];
        let values = helm(&get).await.unwrap();
        let file = std::env::temp_dir().join(format!("sluice-values-{}", std::process::id()));
        std::fs::write(&file, values).unwrap();
        Self(file)
    }

    async fn install(&self) {
        let file = self.0.display().to_string();
        let install = [
            "upgrade",
            "--install",
            "sluice",
            CHART,
            "--namespace",
            SYSTEM,
        ];
        let with = [
            "--create-namespace",
            "--values",
            &file,
            "--wait",
            "--timeout",
            "120s",
        ];
        helm(&[&install[..], &with].concat()).await.unwrap();
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn no_webhook_is_left(client: &Client) {
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let all = webhooks.list(&ListParams::default()).await.unwrap();
    let ours: Vec<_> = all.iter().map(ResourceExt::name_any).collect();
    assert!(ours.iter().all(|name| !name.contains("sluice")), "{ours:?}");
}

async fn a_stable_pod(place: &Place) -> String {
    let pods = place.pods(&format!("app={APP}")).await;
    let stable = |pod: &&Pod| is(pod, "Ready") && !is_going(pod);
    pods.iter().find(stable).unwrap().name_any()
}

async fn replaced(place: &Place, lost: &str) {
    wait_until(&format!("{lost} to be replaced"), async || {
        let pods = place.pods(&format!("app={APP}")).await;
        let ready = pods.iter().filter(|pod| is(pod, "Ready") && !is_going(pod));
        let is_gone = pods.iter().all(|pod| pod.name_any() != lost);
        Ok(is_gone && ready.count() == usize::try_from(REPLICAS)?)
    })
    .await;
}

async fn images(client: &Client) -> Vec<(String, String)> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM);
    let mut images = Vec::new();
    for role in ["sluice-controller", "sluice-serving"] {
        let pods = deployments.get(role).await.unwrap().spec.unwrap().template;
        let image = pods.spec.unwrap().containers[0].image.clone().unwrap();
        assert_ne!(image, ANOTHER, "it would be no change");
        images.push((role.to_owned(), image));
    }
    images
}

async fn set_image(client: &Client, role: &str, image: &str) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM);
    let patch = json!([{
        "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image,
    }]);
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    let params = PatchParams::default();
    deployments.patch(role, &params, &patch).await.unwrap();
    rolled_out(client, SYSTEM, role).await;
    say(&format!("{role} runs {image}"));
}

/// The CRD of MeshRollouts as a later version of it could be, or as it was.
async fn a_field_more(client: &Client, is_there: bool) {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/later";
    let patch = if is_there {
        json!([{"op": "add", "path": path, "value": {"type": "string", "default": "as before"}}])
    } else {
        json!([{"op": "remove", "path": path}])
    };
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    crds.patch("meshrollouts.sluice.dev", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// A state as a later version could have written it.
async fn leaves_a_field_that_the_older_does_not_know(place: &Place) {
    let rollouts: Api<MeshRollout> = Api::namespaced(place.client.clone(), &place.namespace);
    let patch = Patch::Merge(json!({"status": {"state": {"later": "unknown"}}}));
    rollouts
        .patch_status(APP, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
