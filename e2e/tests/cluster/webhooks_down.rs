//! All webhook replicas are gone while git brings a new version: the release waits, nothing else.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Client, api::Api};
use sluice_e2e::world::{self, SYSTEM};

use crate::{
    demo::{self, NAMESPACE, ROLLOUT, Traffic, replace_pod, rolled_out, scale},
    git,
    node::{self, afterwards, wait_until},
    place::{Place, pods},
};

const SERVING: &str = "sluice-serving";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_webhooks_the_release_waits_flux_says_why_and_stable_serves_on() {
    let client = node::client().await;
    let before = demo::settled(&client).await;
    let generation = generation(&client).await;
    let traffic = Traffic::start(100).await;
    let down = async {
        scale(&client, SYSTEM, SERVING, 0).await;
        wait_until("the serving replicas to be gone", async || {
            let selector = "app.kubernetes.io/component=serving";
            Ok(pods(&client, SYSTEM, selector).await?.is_empty())
        })
        .await;
        git::publish("A version that comes while the webhooks are down");
        wait_until("Flux to say why the release waits", async || {
            let why = git::synced(&client).await?.why_not_ready;
            Ok(why.contains("hold.sluice.dev"))
        })
        .await;
        replace_pod(&client, "frontend").await;
        let look = world::look(&client, NAMESPACE, ROLLOUT).await.unwrap();
        assert_eq!(
            (&look.stable, look.phase.as_str()),
            (&before.stable, "Idle")
        );
        assert_eq!(self::generation(&client).await, generation);
        traffic.goes_on(100).await;
    };
    let up = async {
        scale(&client, SYSTEM, SERVING, 2).await;
        rolled_out(&client, SYSTEM, SERVING).await;
    };
    afterwards(down, up).await;

    let demo = Place {
        client: client.clone(),
        namespace: NAMESPACE.to_owned(),
    };
    let tried = demo
        .until(ROLLOUT, "the new version to get weight", |look| {
            look.weight > 0 && look.candidate != before.stable
        })
        .await;
    demo.promote(ROLLOUT, &tried.candidate).await;
    wait_until("Flux to be Ready", async || {
        Ok(git::synced(&client).await?.why_not_ready.is_empty())
    })
    .await;
    rolled_out(&client, NAMESPACE, "frontend").await;
    traffic.end().await;
}

/// Grows with each change of the Deployment's spec.
async fn generation(client: &Client) -> Option<i64> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let deployment = deployments.get("frontend").await.unwrap();
    deployment.metadata.generation
}
