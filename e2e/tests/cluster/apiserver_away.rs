//! The apiserver is away: nothing that runs depends on it.

use std::time::Instant;

use crate::{
    demo::{self, Traffic},
    node::{self, afterwards, say, start_apiserver, stop_apiserver},
    place::within,
};

const RATE: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_without_an_apiserver_cost_no_request_and_rollouts_work_afterwards() {
    let client = node::client().await;
    demo::settled(&client).await;
    let traffic = Traffic::start(RATE).await;
    let outage = async {
        stop_apiserver().await;
        traffic.goes_on(10 * RATE as usize).await;
    };
    afterwards(outage, start_apiserver(&client)).await;
    let back = Instant::now();
    // A step is passed only when every serving replica has reported to the leader again.
    within("sluice-after-outage", false, async |place| {
        place.deploy("web", "v1", 1).await;
        let revision = place.release("web", "v2", 1).await;
        place.promote("web", &revision).await;
    })
    .await;
    let took = back.elapsed().as_secs();
    say(&format!(
        "a new application and its first rollout took {took} s from its return on"
    ));
    demo::settled(&client).await;
    traffic.end().await;
}
