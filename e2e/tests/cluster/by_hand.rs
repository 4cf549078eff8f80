//! What people do to a governed Deployment with kubectl.

use serde_json::json;

use crate::{
    app::deployment,
    busy::APP,
    demo::rolled_out,
    node::kubectl,
    place::{Place, within},
};

const REPLICAS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_makes_the_earlier_revision_a_candidate_and_its_empty_replicaset_costs_no_restart()
{
    within("sluice-undo", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let first = place.settled(APP).await.stable;
        let second = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        place.promote(APP, &second).await;

        let said = said(place, &["rollout", "undo"]).await.unwrap();
        assert!(said.contains("is tried beside stable"), "{said}");
        let look = place
            .until(APP, "v1 at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        assert_eq!((&look.candidate, &look.stable), (&first, &second));
        let tried = place.tried_pods(&first).await;
        place.promote(APP, &first).await;
        let serving = place.tried_pods(&first).await;
        assert_eq!(serving.len(), 2);
        assert!(
            tried.iter().all(|pod| serving.contains(pod)),
            "{tried:?}, {serving:?}"
        );
        rolled_out(&place.client, &place.namespace, APP).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_mid_rollout_is_refused_and_one_by_patch_is_carried_out_at_the_end() {
    within("sluice-restart", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let stable = place.settled(APP).await.stable;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        for refused in ["restart", "undo"] {
            let why = said(place, &["rollout", refused]).await.unwrap_err();
            let told = ["paused", "no rollout history"];
            assert!(told.iter().any(|told| why.contains(told)), "{why}");
        }
        // As tools do that do not ask.
        let restarted = json!({"spec": {"template": {"metadata": {"annotations":
            {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}}}});
        let said = said(place, &["patch", "--patch", &restarted.to_string()]).await;
        assert!(said.is_ok(), "{said:?}");
        busy.goes_on().await;
        let look = place
            .until(APP, "still tried", |look| look.weight == 10)
            .await;
        assert_eq!((&look.candidate, &look.stable), (&revision, &stable));
        place.promote(APP, &revision).await;
        rolled_out(&place.client, &place.namespace, APP).await;
        busy.goes_on().await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_by_hand_is_left_in_force_and_a_resume_lets_the_release_be_tried() {
    within("sluice-pause", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let stable = place.settled(APP).await.stable;
        said(place, &["rollout", "pause"]).await.unwrap();
        place
            .reconciling("kubectl-rollout has paused the Deployment")
            .await;
        place.reconciling("kubectl rollout resume").await;
        let from = busy.now();
        place.apply(&deployment(APP, "v2", REPLICAS)).await;
        busy.goes_on().await;
        assert!(
            is_paused(place).await,
            "a pause by hand is nobody else's to end"
        );
        assert_eq!(busy.most_weight(from), 0);
        let look = place
            .until(APP, "v1 still stable", |look| look.phase == "Idle")
            .await;
        assert_eq!(look.stable, stable);

        let said_then = said(place, &["rollout", "resume"]).await.unwrap();
        assert!(said_then.contains("held by MeshRollout web"), "{said_then}");
        let look = place
            .until(APP, "v2 at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        // Nobody gets past the rollout by saying it once more.
        let said_again = said(place, &["rollout", "resume"]).await.unwrap();
        assert!(said_again.contains("still held"), "{said_again}");
        assert!(is_paused(place).await);
        place.promote(APP, &look.candidate).await;
        assert!(!is_paused(place).await);
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_a_resume_by_hand_while_nothing_is_tried_change_nothing() {
    within("sluice-pause-idle", false, async |place| {
        let stable = place.deploy(APP, "v1", 1).await;
        said(place, &["rollout", "pause"]).await.unwrap();
        place
            .reconciling("kubectl-rollout has paused the Deployment")
            .await;
        said(place, &["rollout", "resume"]).await.unwrap();
        assert_eq!(place.settled(APP).await.stable, stable);
        assert!(!is_paused(place).await);
    })
    .await;
}

/// What kubectl says of a command about the Deployment.
async fn said(place: &Place, command: &[&str]) -> Result<String, String> {
    let deployment = format!("deployment/{APP}");
    let of = ["--namespace", &place.namespace, &deployment];
    let (words, flags) = command.split_at(if command[0] == "rollout" { 2 } else { 1 });
    kubectl(&[words, &of, flags].concat()).await
}

async fn is_paused(place: &Place) -> bool {
    place.live(&deployment(APP, "", 1)).await.data["spec"]["paused"] == true
}
