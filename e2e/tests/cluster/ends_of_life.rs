//! What is there goes, in the middle of a rollout: nothing of ours is left, users notice nothing,
//! and what comes after begins as it should.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Namespace,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use sluice_crds::{MeshRollout, TrafficSplit};

use crate::{
    app::{deployment, service},
    busy::{APP, hurried},
    demo::rolled_out,
    node::{kubectl, wait_until},
    place::{Place, within},
};

const REPLICAS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meshrollout_deleted_in_mid_rollout_leaves_stable_serving_and_says_how_to_go_on() {
    within("sluice-rollout-deleted", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let stable = place.settled(APP).await.stable;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        delete::<MeshRollout>(place, APP).await;
        let said = place.event(APP, "LeftHeld").await;
        assert!(
            said.contains("kubectl rollout resume deployment/web"),
            "{said}"
        );
        wait_until("split and candidate to go with it", async || {
            let splits: Api<TrafficSplit> = Api::namespaced(place.client.clone(), &place.namespace);
            let no_split = splits.get_opt(APP).await?.is_none();
            Ok(no_split && place.tried_pods(&revision).await.is_empty())
        })
        .await;
        assert_eq!(
            place.live(&deployment(APP, "", 1)).await.data["spec"]["paused"],
            true
        );
        busy.goes_on().await;

        // It comes back: the same revision is tried as if for the first time.
        place.apply(&hurried("2h")).await;
        let look = place
            .until(APP, "v2 at its first step again", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        assert_eq!((&look.stable, &look.candidate), (&stable, &revision));

        // It goes for good, and a person does what the event says.
        delete::<MeshRollout>(place, APP).await;
        wait_until("the candidate to go", async || {
            Ok(place.tried_pods(&revision).await.is_empty())
        })
        .await;
        let resume = [
            "rollout",
            "resume",
            "deployment/web",
            "-n",
            &place.namespace,
        ];
        kubectl(&resume).await.unwrap();
        rolled_out(&place.client, &place.namespace, APP).await;
        busy.goes_on().await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_deleted_in_mid_rollout_and_made_anew_is_met_for_the_first_time() {
    within("sluice-workload-deleted", false, async |place| {
        place.deploy(APP, "v1", REPLICAS).await;
        place.apply(&hurried("2h")).await;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        delete::<Deployment>(place, APP).await;
        place
            .reconciling("the workload does not exist: create it")
            .await;
        wait_until("its pods to be gone", async || {
            Ok(place.pods(&format!("app={APP}")).await.is_empty())
        })
        .await;
        place.apply(&deployment(APP, "v2", REPLICAS)).await;
        let look = place.settled(APP).await;
        assert_eq!(
            look.stable, revision,
            "there is nothing else that could serve"
        );
        place.wait_until_ready(APP, REPLICAS).await;
        only_native(place).await;
        // And from then on all is as ever.
        let next = place.try_out(&deployment(APP, "v3", REPLICAS)).await;
        place.promote(APP, &next).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilt_from_git_a_rejected_revision_serves_because_nothing_else_is_there() {
    within("sluice-rebuilt", false, async |place| {
        place.deploy(APP, "v1", 1).await;
        place.apply(&hurried("2h")).await;
        let revision = place.try_out(&deployment(APP, "v2", 1)).await;
        place.command(APP, "abort", &revision).await;
        place.rejected().await;
        // All that git has written goes, and with it what Sluice remembered.
        delete::<MeshRollout>(place, APP).await;
        delete::<Deployment>(place, APP).await;
        wait_until("its pods to be gone", async || {
            Ok(place.pods(&format!("app={APP}")).await.is_empty())
        })
        .await;
        // Git holds the last commit alone.
        for object in [hurried("2h"), service(APP), deployment(APP, "v2", 1)] {
            place.apply(&object).await;
        }
        assert_eq!(place.settled(APP).await.stable, revision);
        place.wait_until_ready(APP, 1).await;
        // The fix is tried beside it.
        let fixed = place.try_out(&deployment(APP, "v3", 1)).await;
        place.promote(APP, &fixed).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_deleted_in_mid_rollout_goes_at_once_and_comes_back_as_new() {
    within("sluice-namespace-deleted", false, async |place| {
        place.deploy(APP, "v1", 1).await;
        let revision = place.try_out(&deployment(APP, "v2", 1)).await;
        let namespaces: Api<Namespace> = Api::all(place.client.clone());
        let name = &place.namespace;
        namespaces
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        wait_until("the namespace to be gone", async || {
            Ok(namespaces.get_opt(name).await?.is_none())
        })
        .await;
        place.create(false).await;
        place.deploy(APP, "v2", 1).await;
        assert_eq!(place.settled(APP).await.stable, revision);
        only_native(place).await;
    })
    .await;
}

async fn delete<K>(place: &Place, name: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(place.client.clone(), &place.namespace);
    api.delete(name, &DeleteParams::background()).await.unwrap();
    wait_until(&format!("{name} to be gone"), async || {
        Ok(api.get_opt(name).await?.is_none())
    })
    .await;
}

/// No ReplicaSet is left that is ours.
async fn only_native(place: &Place) {
    let sets: Api<ReplicaSet> = Api::namespaced(place.client.clone(), &place.namespace);
    wait_until("native ReplicaSets alone", async || {
        let sets = sets.list(&ListParams::default()).await?;
        Ok(sets.iter().all(|set| !set.name_any().contains("-sluice-")))
    })
    .await;
}
