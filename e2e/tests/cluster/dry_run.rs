//! What a server-side dry run says, and that it leaves no trace.

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::{
    app::{deployment, rollout},
    place::within,
};

const APP: &str = "web";

#[tokio::test]
async fn a_dry_run_of_a_release_shows_the_hold_and_nothing_comes_of_it() {
    within("sluice-dry-run", false, async |place| {
        place.deploy(APP, "v1", 1).await;
        let git = deployment(APP, "v1", 1);
        let before = place.live(&git).await;

        let told = place.dry_run(&deployment(APP, "v2", 1)).await;
        assert_eq!(told.data["spec"]["paused"], true, "as the real one will be");
        let longer = rollout(APP, json!({"workload": {"name": APP}, "deadline": "9h"}));
        let told = place.dry_run(&longer).await;
        assert_eq!(told.data["spec"]["deadline"], "9h");

        let after = place.live(&git).await;
        assert_eq!(after.metadata.generation, before.metadata.generation);
        assert_eq!(after.data["spec"], before.data["spec"]);
        // The next real release is met as if nothing had been said.
        place.release(APP, "v3", 1).await;
        let status = place.status(APP).await;
        assert_eq!(
            (status.observed_generation, status.history.len()),
            (Some(1), 0)
        );
        let sets: Api<ReplicaSet> = Api::namespaced(place.client.clone(), &place.namespace);
        let sets = sets.list(&ListParams::default()).await.unwrap();
        let made = serde_json::to_string(&sets.items).unwrap();
        assert!(made.contains("--ui-message=v3") && !made.contains("--ui-message=v2"));
        let events = serde_json::to_string(&place.events().await).unwrap();
        assert!(!events.contains("Replaced"), "{events}");
    })
    .await;
}
