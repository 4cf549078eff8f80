//! Pods come and go, of the application and of Sluice, under load: nobody notices.

use sluice_e2e::world::SYSTEM;

use crate::{
    demo::{self, NAMESPACE, Traffic, replace_pod, restart, rolled_out},
    node,
};

const RATE: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_of_either_tier_costs_no_request() {
    let client = node::client().await;
    demo::settled(&client).await;
    let traffic = Traffic::start(RATE).await;
    tokio::join!(
        replace_pod(&client, "frontend"),
        replace_pod(&client, "backend")
    );
    traffic.goes_on(RATE as usize).await;
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_stable_revision_is_never_held_and_costs_no_request() {
    let client = node::client().await;
    let before = demo::settled(&client).await;
    let traffic = Traffic::start(RATE).await;
    let observer = traffic.watch(&client);
    for tier in ["frontend", "backend"] {
        restart(&client, NAMESPACE, tier).await;
    }
    tokio::join!(
        rolled_out(&client, NAMESPACE, "frontend"),
        rolled_out(&client, NAMESPACE, "backend"),
    );
    traffic.goes_on(RATE as usize).await;
    for (_, look) in observer.since(std::time::Duration::ZERO) {
        assert_eq!((look.phase.as_str(), look.weight), ("Idle", 0), "{look:?}");
        assert_eq!(look.stable, before.stable);
    }
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_gateway_costs_no_request() {
    let client = node::client().await;
    demo::settled(&client).await;
    let traffic = Traffic::start(RATE).await;
    restart(&client, NAMESPACE, "gateway").await;
    rolled_out(&client, NAMESPACE, "gateway").await;
    traffic.goes_on(RATE as usize).await;
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_sluice_itself_costs_no_request() {
    let client = node::client().await;
    demo::settled(&client).await;
    let traffic = Traffic::start(RATE).await;
    for role in ["sluice-serving", "sluice-controller"] {
        restart(&client, SYSTEM, role).await;
    }
    tokio::join!(
        rolled_out(&client, SYSTEM, "sluice-serving"),
        rolled_out(&client, SYSTEM, "sluice-controller"),
    );
    traffic.goes_on(RATE as usize).await;
    demo::settled(&client).await;
    traffic.end().await;
}
