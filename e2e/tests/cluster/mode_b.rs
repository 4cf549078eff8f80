//! Two Deployments side by side, told apart by a label: `examples/two-deployments` as it stands.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::{
    figures::Figures,
    node,
    place::{Place, within},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two-deployments");
/// Requests of each caller that tell where the traffic goes.
const REQUESTS: usize = 20;

#[tokio::test]
async fn weights_move_from_one_deployment_to_the_other_and_neither_is_written() {
    within("two-deployments", true, async |place| {
        node::xtask(&["kubectl", "apply", "-k", EXAMPLE]).await;
        let callers = place.ready_pods("app=frontend", 2).await;
        place.wait_until_ready("backend", 2).await;
        for caller in &callers {
            // From its first request on a caller follows the split.
            call(&place.client, &place.namespace, caller).await.unwrap();
        }
        let first = place
            .until("backend", "v2 at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        place.command("backend", "promote", &first.candidate).await;
        place
            .until("backend", "v2 promoted", |look| {
                look.phase == "Idle" && look.ready == "True" && look.stable == first.candidate
            })
            .await;
        assert_eq!(place.split("backend").await.spec.candidate_weight(), 100);
        for caller in &callers {
            everything_goes_to_v2(place, caller).await;
        }
        untouched(place).await;
    })
    .await;
}

/// Has a pod's podinfo call the tier behind.
pub async fn call(client: &Client, namespace: &str, pod: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9898/proxy/echo");
    let request = http::Request::post(path).body(b"said".to_vec())?;
    let answer = client.request_text(request).await?;
    // Where the tier behind failed, podinfo answers all the same, with another text.
    anyhow::ensure!(answer.contains("said"), "{pod} answered {answer}");
    Ok(())
}

async fn everything_goes_to_v2(place: &Place, caller: &str) {
    let counted = async |version: &str| {
        let figures = Figures::of(&place.client, &place.namespace, caller, 15020)
            .await
            .unwrap();
        let labels = [("reporter", "source"), ("destination_version", version)];
        figures.sum("istio_requests_total", &labels)
    };
    let before = (counted("v1").await, counted("v2").await);
    for _ in 0..REQUESTS {
        call(&place.client, &place.namespace, caller).await.unwrap();
    }
    let after = (counted("v1").await, counted("v2").await);
    assert_eq!(after, (before.0, before.1 + REQUESTS as f64), "{caller}");
}

async fn untouched(place: &Place) {
    let deployments: Api<Deployment> = Api::namespaced(place.client.clone(), &place.namespace);
    for deployment in deployments.list(&ListParams::default()).await.unwrap() {
        let managers = deployment.managed_fields().iter();
        let ours: Vec<_> = managers
            .filter_map(|entry| entry.manager.clone())
            .filter(|manager| manager.starts_with("sluice"))
            .collect();
        assert_eq!(ours, [""; 0], "of Deployment {}", deployment.name_any());
    }
}
