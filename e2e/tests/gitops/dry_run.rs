//! A dry run has no side effects. (What the hold webhook says to one: `cluster/dry_run.rs`.)

use serde_json::Value;
use sluice_e2e::helm;

use crate::place::Place;

/// Else the apiserver refuses every dry run that a webhook is asked about.
#[test]
fn every_webhook_declares_that_it_has_no_side_effects() {
    let documents = helm::parse(&helm::render(&[]).unwrap());
    let hooks: Vec<&Value> = documents
        .iter()
        .filter(|document| document["kind"] == "MutatingWebhookConfiguration")
        .flat_map(|document| document["webhooks"].as_array().unwrap())
        .collect();
    assert_eq!(hooks.len(), 5);
    for hook in hooks {
        assert_eq!(hook["sideEffects"], "None", "{}", hook["name"]);
    }
}

#[tokio::test]
async fn a_dry_run_of_a_change_says_what_would_come_of_it_and_changes_nothing() {
    let place = Place::new("gitops-dry-run").await;
    let rollout = |deadline: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: MeshRollout\nmetadata: {{name: reviews}}\n\
             spec: {{workload: {{name: reviews}}, deadline: {deadline}}}\n"
        )
    };
    let before = place.apply(&rollout("1h")).await.unwrap();
    let tried = place.try_out(&rollout("3h")).await.unwrap();
    assert_eq!(tried.data["spec"]["deadline"], "3h");
    assert_eq!(tried.metadata.generation, Some(2));
    let api = place.api(before.types.as_ref().unwrap());
    assert_eq!(api.get("reviews").await.unwrap(), before);
}
