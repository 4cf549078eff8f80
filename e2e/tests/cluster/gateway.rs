//! The demo's gateway before an application of a test's own.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{
    node::{self, wait_until},
    place::{Place, is},
};

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/gitops/apps/demo/gateway.yaml"
);

/// Starts it before this application, on a NodePort that no other test has; the demo's is 30080.
pub async fn start(place: &Place, app: &str, port: u16) -> SocketAddr {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let backend = format!("{app}.{}.svc", place.namespace);
    let text = text
        .replace("frontend.demo.svc", &backend)
        .replace("30080", &port.to_string());
    for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        place.apply(&object).await;
    }
    wait_until("the gateway to be ready", async || {
        let pods = place.pods("app=gateway").await;
        Ok(pods.len() == 2 && pods.iter().all(|pod| is(pod, "Ready")))
    })
    .await;
    SocketAddr::new(node::gateway().ip(), port)
}
