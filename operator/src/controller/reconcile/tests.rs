#![allow(clippy::unwrap_used)]

use serde_json::json;
use sluice_crds::TrafficSplit;

use super::*;
use crate::controller::fixtures::rollout;

#[tokio::test(start_paused = true)]
async fn a_time_that_has_passed_is_never_a_busy_loop() {
    assert!(instant(0, 10_000) > Instant::now());
}

#[test]
fn pods_stay_as_long_as_the_split_sends_them_requests_whatever_the_state_is_about() {
    let split = |weight: i32| {
        let object: TrafficSplit = serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "TrafficSplit",
            "metadata": {
                "name": "web", "namespace": "shop",
                "ownerReferences": [{
                    "apiVersion": "sluice.dev/v1alpha1", "kind": "MeshRollout", "name": "web",
                    "uid": "web", "controller": true,
                }],
            },
            "spec": {
                "fence": 3, "services": ["web"], "revision": "r2",
                "arms": [
                    {"name": "stable", "weight": 100 - weight},
                    {"name": "candidate", "weight": weight},
                ],
            },
        }))
        .unwrap();
        SplitFacts::of(object)
    };
    let (rollout, namespace) = (rollout("web", "web"), Namespace::default());
    let mut look = Look::blind(&rollout, &namespace, Timestamp::UNIX_EPOCH);
    let idle = State::default();
    let (full, empty) = (split(50), split(0));
    look.split = Some(&full);
    assert_eq!(leaving(&look, &idle), ["r2"]);
    look.split = Some(&empty);
    assert!(leaving(&look, &idle).is_empty());
}
