//! The apiserver is away for the controller, longer than its Lease holds, and then the candidate
//! turns bad.

use std::time::Duration;

use sluice_e2e::faults::{
    call::Verb,
    rule::{Action, Asked, Rule},
    stage::until,
};
use tokio::time::{Instant, sleep};

use crate::ground::{Ground, steps};

/// The Lease has lapsed for certain.
const LAPSED: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_turns_bad_while_the_lease_has_lapsed_is_off_traffic_in_seconds() {
    let silent = Action::Delay(Duration::from_secs(300));
    for (how, action) in [("gone", Action::Drop), ("silent", silent)] {
        let ground = Ground::new(&format!("eject-{how}"), steps("60s")).await;
        ground.scene.deploy("v2").await.unwrap();
        ground.phase("Observing").await;
        ground.scene.followed().await.unwrap();
        let is_watch = |asked: &Asked| asked.call.verb == Verb::Watch;
        ground.layer().add(Rule::always(Action::Drop, is_watch));
        ground.layer().add(Rule::always(action, |_| true));
        ground.layer().end_watches();
        sleep(LAPSED).await;
        assert!(ground.candidate_shares().iter().all(|share| *share == 50));
        ground.scene.candidate_fails(50);
        let bad = Instant::now();
        until("the candidate to be off traffic", async || {
            let shares = ground.candidate_shares();
            Ok(shares.iter().all(|share| *share == 0).then_some(()))
        })
        .await
        .unwrap();
        let took = bad.elapsed();
        println!("apiserver {how}: off traffic after {took:.2?}");
        assert!(took < SOON, "{took:?}");
        ground.layer().heal();
        let status = ground.ended("RolledBack").await;
        let told = "while the apiserver did not answer";
        assert!(status.verdict.contains(told), "{}", status.verdict);
        ground.close().await;
    }
}
