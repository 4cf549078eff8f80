use std::time::Duration;

use envoy_types::pb::envoy::{
    config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest,
};
use sluice_evidence::{
    relay::ProxyEntry,
    v1::{
        AppliedSplit, ArmCounts, ProxyReport, Record, ServerNote, evidence_client::EvidenceClient,
    },
};
use sluice_xds::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming, transport::Channel};

use super::harness::{Harness, authorize};

const LISTENER: &str = "outbound/10.96.0.7:80";

pub(super) struct Reports {
    pub reports: mpsc::Sender<ProxyReport>,
    notes: Streaming<ServerNote>,
}

pub(super) async fn open(channel: Channel, token: &str) -> Reports {
    let (reports, receiver) = mpsc::channel(16);
    let mut request = Request::new(ReceiverStream::new(receiver));
    authorize(&mut request, token);
    let notes = EvidenceClient::new(channel)
        .report(request)
        .await
        .unwrap()
        .into_inner();
    Reports { reports, notes }
}

pub(super) fn report(coined: u64) -> ProxyReport {
    ProxyReport {
        process_start_ms: 7,
        applied: vec![AppliedSplit {
            service: "bookinfo/reviews".into(),
            fence: 1,
        }],
        records: vec![Record {
            service: "bookinfo/reviews".into(),
            revision: "r2".into(),
            fence: 1,
            stable: Some(ArmCounts {
                coined,
                ..ArmCounts::default()
            }),
            candidate: None,
            ..Record::default()
        }],
        ..ProxyReport::default()
    }
}

/// The one entry of the table, once it satisfies this.
pub(super) async fn entry(harness: &Harness, wanted: impl Fn(&ProxyEntry) -> bool) -> ProxyEntry {
    let mut changes = harness.hub.table_changes();
    loop {
        if let [entry] = harness.hub.outgoing(0).0.as_slice()
            && wanted(entry)
        {
            return entry.clone();
        }
        tokio::time::timeout(Duration::from_secs(30), changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_goes_to_the_table_under_the_tokens_name() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Listener, &[LISTENER]).await;
    ads.next().await;
    let stream = open(harness.channel(), "bookinfo/client").await;
    stream.reports.send(report(5)).await.unwrap();
    let entry = entry(&harness, |entry| !entry.records.is_empty()).await;
    assert_eq!(
        (entry.pod_uid.as_str(), entry.pod.as_str()),
        ("uid-client", "client")
    );
    assert_eq!(entry.views, ["bookinfo/reviews"]);
    assert_eq!(entry.records[0].stable.as_ref().unwrap().coined, 5);
    assert!(entry.connected);
}

#[tokio::test(start_paused = true)]
async fn records_of_a_service_out_of_view_wait_until_it_comes_into_view() {
    let harness = Harness::new();
    harness.reviews();
    let stream = open(harness.channel(), "bookinfo/client").await;
    stream.reports.send(report(5)).await.unwrap();
    let before = entry(&harness, |_| true).await;
    assert!(
        before.records.is_empty(),
        "nobody may bear witness of what it does not route"
    );
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Listener, &[LISTENER]).await;
    ads.next().await;
    let after = entry(&harness, |entry| !entry.records.is_empty()).await;
    assert_eq!(after.views, ["bookinfo/reviews"]);
}

#[tokio::test(start_paused = true)]
async fn another_pods_view_is_no_ones_own() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("bookinfo/honest").await.unwrap();
    ads.subscribe(Kind::Listener, &[LISTENER]).await;
    ads.next().await;
    let liar = open(harness.channel(), "evil/liar").await;
    liar.reports.send(report(1_000_000)).await.unwrap();
    let entry = entry(&harness, |entry| entry.pod == "liar").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(entry.records.is_empty() && harness.hub.outgoing(0).0[0].records.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_who_its_token_says_whatever_its_node_says() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("evil/liar").await.unwrap();
    let pretends = DeltaDiscoveryRequest {
        node: Some(Node {
            id: "sidecar~10.0.0.7~client.bookinfo~bookinfo".to_owned(),
            ..Node::default()
        }),
        type_url: Kind::Listener.type_url(),
        resource_names_subscribe: vec![LISTENER.to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    ads.requests.send(pretends).await.unwrap();
    ads.next().await;
    let liar = open(harness.channel(), "evil/liar").await;
    liar.reports.send(report(1_000_000)).await.unwrap();
    let entry = entry(&harness, |entry| !entry.records.is_empty()).await;
    // It may bear witness of what it calls, under its own name.
    assert_eq!(
        (entry.namespace.as_str(), entry.pod.as_str()),
        ("evil", "liar")
    );
    assert_eq!(entry.pod_uid, "uid-liar");
}

#[tokio::test(start_paused = true)]
async fn proxies_hear_of_us_each_second_and_are_asked_often_while_a_candidate_is_tried() {
    let harness = Harness::new();
    harness.reviews();
    let mut ads = harness.ads("bookinfo/client").await.unwrap();
    ads.subscribe(Kind::Listener, &[LISTENER]).await;
    ads.next().await;
    let mut stream = open(harness.channel(), "bookinfo/client").await;
    assert_eq!(
        stream.notes.message().await.unwrap().unwrap().interval_ms,
        5000
    );
    harness.split(1, 10);
    let before = tokio::time::Instant::now();
    assert_eq!(
        stream.notes.message().await.unwrap().unwrap().interval_ms,
        250
    );
    assert!(before.elapsed() <= Duration::from_millis(1100));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_goes_is_told_as_disconnected() {
    let harness = Harness::new();
    let stream = open(harness.channel(), "bookinfo/client").await;
    stream.reports.send(report(1)).await.unwrap();
    entry(&harness, |entry| entry.connected).await;
    drop(stream);
    entry(&harness, |entry| !entry.connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_or_changes_its_process_is_closed() {
    let harness = Harness::new();
    let mut silent = open(harness.channel(), "bookinfo/client").await;
    let closed = loop {
        if let Err(closed) = silent.notes.message().await {
            break closed;
        }
    };
    assert_eq!(closed.code(), Code::DeadlineExceeded);

    let mut odd = open(harness.channel(), "bookinfo/client").await;
    for process_start_ms in [1, 2] {
        odd.reports
            .send(ProxyReport {
                process_start_ms,
                ..report(1)
            })
            .await
            .unwrap();
    }
    let closed = loop {
        if let Err(closed) = odd.notes.message().await {
            break closed;
        }
    };
    assert_eq!(closed.code(), Code::InvalidArgument);
}
