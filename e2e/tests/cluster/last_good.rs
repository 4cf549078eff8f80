//! Nobody is there to ask: no apiserver, no operator. Proxies that restart serve what they served.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, ResourceExt};
use sluice_e2e::{
    ledger::Ledger,
    load::{self, Load},
    world::SYSTEM,
};

use crate::{
    demo::{self, NAMESPACE, Traffic, rolled_out, scale},
    node::{self, afterwards, say, start_apiserver, stop_apiserver, wait_until},
    place::{is_going, pods},
    proxy::Proxy,
};

const RATE: u32 = 100;
/// For which nobody is there.
const MINUTES: usize = 3;
/// The parts of the operator that proxies hear of.
const OPERATOR: [&str; 2] = ["serving", "controller"];
const LAST_GOOD: &str = "sluice_last_good_timestamp_seconds";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_restart_while_nobody_is_there_to_ask_serve_what_they_served() {
    let client = node::client().await;
    demo::settled(&client).await;
    let proxies = proxies(&client).await;
    let replicas = [
        replicas(&client, OPERATOR[0]).await,
        replicas(&client, OPERATOR[1]).await,
    ];
    let traffic = Traffic::start(RATE).await;
    let outage = async {
        for role in OPERATOR {
            scale(&client, SYSTEM, &format!("sluice-{role}"), 0).await;
            wait_until(&format!("the {role} replicas to be gone"), async || {
                let selector = format!("app.kubernetes.io/component={role}");
                Ok(pods(&client, SYSTEM, &selector).await?.is_empty())
            })
            .await;
        }
        stop_apiserver().await;
        for _ in 0..MINUTES {
            traffic.goes_on(60 * RATE as usize).await;
        }
        traffic.end().await;

        restart(&proxies).await;
        let traffic = Traffic::start(RATE).await;
        traffic.goes_on(10 * RATE as usize).await;
        // The backend calls nobody, so its sidecar has nothing to keep.
        let callers = proxies
            .iter()
            .filter(|proxy| !proxy.pod.starts_with("backend"));
        for proxy in callers {
            assert!(proxy.metric(LAST_GOOD).unwrap() > 0.0, "{proxy:?}");
        }
        traffic.end().await;
    };
    let back = async {
        start_apiserver(&client).await;
        for (role, replicas) in OPERATOR.iter().zip(replicas) {
            scale(&client, SYSTEM, &format!("sluice-{role}"), replicas).await;
        }
    };
    afterwards(outage, back).await;

    let traffic = Traffic::start(RATE).await;
    for role in OPERATOR {
        rolled_out(&client, SYSTEM, &format!("sluice-{role}")).await;
    }
    for proxy in &proxies {
        wait_until(
            &format!("{proxy:?} to hear the control plane"),
            async || Ok(proxy.metric(LAST_GOOD)? == 0.0),
        )
        .await;
    }
    demo::settled(&client).await;
    traffic.goes_on(RATE as usize).await;
    traffic.end().await;
}

/// The gateways, and the sidecars of both tiers.
pub async fn proxies(client: &Client) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for (app, kind) in [
        ("gateway", "gateway"),
        ("frontend", "sidecar"),
        ("backend", "sidecar"),
    ] {
        let all = pods(client, NAMESPACE, &format!("app={app}"))
            .await
            .unwrap();
        let all = all.iter().filter(|pod| !is_going(pod));
        proxies.extend(all.map(|pod| Proxy {
            pod: pod.name_any(),
            kind,
        }));
    }
    proxies
}

async fn replicas(client: &Client, role: &str) -> i32 {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM);
    let deployment = deployments.get(&format!("sluice-{role}")).await.unwrap();
    deployment.spec.and_then(|spec| spec.replicas).unwrap()
}

/// Ends every proxy, one after the other, by turns as a kubelet does and as a lack of memory
/// does, and waits until each is ready again. All the time there is load: what it loses is in
/// flight at a proxy that ends, or meets a pod where none listens.
async fn restart(proxies: &[Proxy]) {
    let ledger = Arc::new(Ledger::default());
    let load = Load {
        gateway: node::gateway(),
        host: "demo.local".to_owned(),
        rate: RATE,
        connections: 8,
        path: "/".to_owned(),
        others: Vec::new(),
        two_tier_every: 2,
    };
    let running = load::start(load, ledger.clone());
    for (proxy, signal) in proxies.iter().zip(["-TERM", "-KILL"].into_iter().cycle()) {
        let before = proxy.process().unwrap();
        proxy.signal(signal).unwrap();
        wait_until(
            &format!("{proxy:?} to be ready after {signal}"),
            async || {
                ensure!(
                    proxy.process()? != before,
                    "process {before} is still there"
                );
                Ok(proxy
                    .ask(15021, "GET /healthz/ready")?
                    .starts_with("HTTP/1.1 200"))
            },
        )
        .await;
    }
    running.stop().await;
    let totals = ledger.totals(Duration::ZERO, Duration::MAX);
    say(&format!(
        "{} proxies restarted without anybody to ask, one after the other: of {} requests meanwhile {} failed, {} lost",
        proxies.len(),
        totals.sent,
        totals.failed,
        totals.lost
    ));
}
