//! What a proxy says of the pods it reached, and of those who came to its own.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use sluice_evidence::v1::ServerNote;
use sluice_proxy::{control::Reporter, shared::Shared};
use sluice_xds::metadata::EndpointFacts;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use support::{
    Proxy, Split,
    client::{self, Client},
    local, nobody,
    server::{self, status},
    until,
};

#[tokio::test]
async fn a_candidates_requests_and_failures_are_told_apart_by_pod() {
    local(async {
        let bad = server::http(|_| async { status(500) }).await;
        let good = server::named("v2").await;
        let proxy = Proxy::with(&Split {
            stable: vec![server::named("v1").await.address],
            candidate: vec![bad.address, good.address],
            weight: 50,
            ..Split::default()
        });
        let mut client = Client::http1(proxy.gateway()).await;
        for _ in 0..400 {
            client.get("/").await;
        }
        let record = proxy.record();
        for (server, failing) in [(&bad, true), (&good, false)] {
            let requests = server.requests.get() as u64;
            let name = server.address.to_string();
            let pod = record.pods.iter().find(|pod| pod.pod == name).unwrap();
            assert_eq!(pod.coined, requests);
            assert_eq!(pod.failures, if failing { requests } else { 0 });
        }
        assert_eq!(record.pods.len(), 2, "stable's pods are not told apart");
    })
    .await;
}

#[tokio::test]
async fn what_reached_no_pod_of_the_candidate_is_no_claim_that_it_did() {
    local(async {
        let proxy = Proxy::with(&Split {
            stable: vec![server::named("v1").await.address],
            candidate: vec![nobody().await],
            weight: 100,
            ..Split::default()
        });
        for _ in 0..5 {
            assert_eq!(client::get(proxy.gateway()).await.text(), "v1");
        }
        let candidate = proxy.candidate();
        assert_eq!((candidate.coined, candidate.unreached), (5, 5));
    })
    .await;
}

#[tokio::test]
async fn no_header_of_a_client_chooses_its_arm() {
    local(async {
        let (v1, v2) = (server::named("v1").await, server::named("v2").await);
        let proxy = Proxy::with(&Split {
            stable: vec![v1.address],
            candidate: vec![v2.address],
            weight: 0,
            ..Split::default()
        });
        let mut client = Client::http1(proxy.gateway()).await;
        for (name, value) in [
            ("x-canary", "always"),
            ("x-sluice-arm", "candidate"),
            ("x-sluice-refused", "1"),
            ("x-envoy-original-dst-host", "127.0.0.1:1"),
            ("host", "candidate.cart.shop.svc.cluster.local"),
        ] {
            let request = http::Request::get("/").header(name, value);
            let request = request.body(http_body_util::Full::default()).unwrap();
            let answer = client::Answer::read(client.send(request).await.unwrap()).await;
            assert_eq!(answer.text(), "v1", "{name}: {value}");
        }
        assert_eq!((proxy.stable().coined, proxy.candidate().coined), (5, 0));
    })
    .await;
}

#[tokio::test]
async fn requests_from_others_are_counted_by_address_and_probes_apart() {
    local(async {
        let application = server::named("v1").await;
        let proxy = Proxy::new();
        let inbound = proxy.inbound(application.address);
        let mut client = Client::http1(inbound).await;
        for agent in ["curl/8", "curl/8", "kube-probe/1.34"] {
            let request = http::Request::get("/").header("user-agent", agent);
            let request = request.body(http_body_util::Full::default()).unwrap();
            client::Answer::read(client.send(request).await.unwrap()).await;
        }
        let told = proxy.shared.sources.report();
        let [source] = told.sources.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!(source.address, "127.0.0.1");
        assert_eq!((source.requests, source.probes), (3, 1));
        assert_eq!(told.others, 0);
    })
    .await;
}

#[tokio::test]
async fn a_raw_connection_in_which_the_client_says_nothing_may_be_a_probe() {
    local(async {
        let echo = server::raw(|mut stream, _| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let proxy = Proxy::new();
        let inbound = proxy.inbound(echo);
        drop(tokio::net::TcpStream::connect(inbound).await.unwrap());
        let is_counted = || !proxy.shared.sources.report().sources.is_empty();
        until("the probe is counted", is_counted).await;
        let counted = || {
            let told = proxy.shared.sources.report().sources.remove(0);
            (told.requests, told.probes)
        };
        assert_eq!(counted(), (1, 1));
        let mut stream = tokio::net::TcpStream::connect(inbound).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x01\x02 hello")
            .await
            .unwrap();
        let mut answer = [0; 8];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer)
            .await
            .unwrap();
        assert_eq!(counted(), (2, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_came_is_told_at_most_once_a_second_and_once_more_at_the_end() {
    let shared = Shared::new(EndpointFacts::default());
    let source = shared.sources.of([10, 0, 0, 9].into());
    let (reports, mut sent) = mpsc::channel(64);
    let (notes, received) = mpsc::channel(4);
    let (leave, leaving) = watch::channel(false);
    tokio::spawn(Reporter::new(shared.clone()).run(reports, received, leaving));
    notes.send(ServerNote { interval_ms: 100 }).await.unwrap();
    let start = Instant::now();
    let mut told = Vec::new();
    while start.elapsed() < Duration::from_secs(5) {
        source.connection(true);
        tokio::time::sleep(Duration::from_millis(10)).await;
        while let Ok(report) = sent.try_recv() {
            told.extend(report.inbound.map(|inbound| inbound.sources[0].requests));
        }
    }
    assert!(
        (4..=6).contains(&told.len()) && told.is_sorted(),
        "{told:?}"
    );
    source.connection(true);
    leave.send_replace(true);
    let mut last = None;
    while let Some(report) = sent.recv().await {
        last = report.inbound.or(last);
    }
    assert_eq!(last, Some(shared.sources.report()));
}
