//! What nobody should write: a sentence where it is written or in `Stalled`, the rest untouched.

use serde_json::{Value, json};
use sluice_crds::MeshRolloutStatus;

use crate::{
    app::{deployment, governing, rollout, service},
    place::{Place, within},
};

#[tokio::test]
async fn of_two_meshrollouts_for_one_deployment_the_younger_is_stalled_and_names_the_older() {
    within("sluice-two-rollouts", false, async |place| {
        place.deploy("web", "v1", 1).await;
        let before = place.status("web").await;
        place.apply(&governing("web-too", "web")).await;
        let message = place.condition("web-too", "Stalled", "True").await;
        assert!(
            message.contains("the older MeshRollout web governs this workload"),
            "{message}"
        );
        assert_eq!(substance(&place.status("web").await), substance(&before));
        // The older goes on as if the other were not there.
        let revision = place.release("web", "v2", 1).await;
        place.promote("web", &revision).await;
        place.condition("web-too", "Stalled", "True").await;
        let younger = place.status("web-too").await;
        assert!(
            younger.stable.is_none() && younger.candidate.is_none(),
            "{younger:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_deployment_that_git_itself_pauses_is_named_with_who_does_it_and_left_alone() {
    within("sluice-paused-by-git", false, async |place| {
        place.deploy("web", "v1", 1).await;
        let git = "argocd-controller";
        let mut paused = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"paused": true},
        });
        place.try_apply(git, &paused).await.unwrap();
        let message = place.condition("web", "Stalled", "True").await;
        assert!(
            message.contains("argocd-controller sets spec.paused of the Deployment"),
            "{message}"
        );
        assert_eq!(place.live(&paused).await.data["spec"]["paused"], true);
        paused["spec"] = json!({});
        place.try_apply(git, &paused).await.unwrap();
        place.settled("web").await;
    })
    .await;
}

#[tokio::test]
async fn what_does_not_exist_yet_is_waited_for_with_a_sentence_that_says_what_it_is() {
    within("sluice-missing", false, async |place| {
        place.apply(&governing("ghost", "ghost")).await;
        let spec = json!({"workload": {"name": "web"}, "services": ["nowhere"]});
        place.apply(&deployment("web", "v1", 1)).await;
        place.apply(&rollout("web", spec)).await;
        waits(place, "ghost", "the workload does not exist: create it").await;
        waits(place, "web", "Service nowhere does not exist: create it").await;
        // What was missing comes: no more is needed.
        let mut nowhere = service("web");
        nowhere["metadata"]["name"] = json!("nowhere");
        place.apply(&nowhere).await;
        place.settled("web").await;
        place.apply(&service("ghost")).await;
        place.apply(&deployment("ghost", "v1", 1)).await;
        place.settled("ghost").await;
    })
    .await;
}

async fn waits(place: &Place, name: &str, sentence: &str) {
    for (kind, status) in [("Ready", "Unknown"), ("Reconciling", "True")] {
        let message = place.condition(name, kind, status).await;
        assert!(message.contains(sentence), "{kind}: {message}");
    }
    let conditions = place.status(name).await.conditions;
    assert!(
        conditions.iter().all(|c| c.type_ != "Stalled"),
        "{conditions:?}"
    );
}

#[tokio::test]
async fn falling_steps_are_refused_where_they_are_written_and_change_nothing() {
    within("sluice-falling-steps", false, async |place| {
        place.deploy("web", "v1", 1).await;
        let before = place.live(&governing("web", "web")).await;
        let steps = json!([{"weight": 50}, {"weight": 25}, {"weight": 100}]);
        let falling = rollout(
            "web",
            json!({"workload": {"name": "web"}, "strategy": {"steps": steps}}),
        );
        let refused = place
            .try_apply(crate::place::GIT, &falling)
            .await
            .unwrap_err();
        assert!(
            refused.contains("the weights of spec.strategy.steps must rise"),
            "{refused}"
        );
        let after = place.live(&governing("web", "web")).await;
        assert_eq!(after.data["spec"], before.data["spec"]);
        assert_eq!(after.metadata.generation, before.metadata.generation);
    })
    .await;
}

/// What a decision changes; figures may move by themselves.
fn substance(status: &MeshRolloutStatus) -> (Option<String>, i64, Option<Value>) {
    (status.phase.clone(), status.fence, status.state.clone())
}
