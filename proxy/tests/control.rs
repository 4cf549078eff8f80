//! The proxy and a control plane, over TLS.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use sluice_evidence::v1::{AppliedSplit, ServerNote};
use sluice_proxy::{
    config::Lookup,
    control::Reporter,
    evidence::{End, Failure, Key},
    shared::Shared,
};
use sluice_xds::{Kind, metadata::EndpointFacts, names::Arm};
use support::{
    LISTENER, ROUTE, Split,
    plane::{Plane, Talk},
    xds,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

fn at(weight: u32, fence: i64) -> Split {
    Split {
        weight,
        fence,
        ..Split::default()
    }
}

struct Connected {
    shared: Arc<Shared>,
    talk: Talk,
}

fn connect(plane: &Plane) -> Connected {
    let shared = Shared::new(EndpointFacts::default());
    let talk = plane.connect(&shared, None);
    Connected { shared, talk }
}

fn weight(shared: &Shared) -> Option<u32> {
    match shared.snapshot.load().lookup(LISTENER) {
        Lookup::Found(listener) => Some(listener.http()?.branches[1].weight),
        Lookup::Absent | Lookup::Unknown => None,
    }
}

fn applies(fence: i64) -> impl Fn(&sluice_evidence::v1::ProxyReport) -> bool {
    let applied = AppliedSplit {
        service: "shop/cart".to_owned(),
        fence,
    };
    move |report| report.applied.contains(&applied)
}

#[tokio::test]
async fn a_destination_is_fetched_when_it_is_first_used_and_its_fence_is_reported() {
    let mut plane = Plane::start();
    plane.set(at(10, 1).resources());
    let proxy = connect(&plane);
    let found = proxy.shared.resolve(LISTENER).await;
    assert!(matches!(found, Lookup::Found(_)));
    plane.report(applies(1)).await;
    let none = proxy.shared.resolve("outbound/203.0.113.9:443").await;
    assert!(matches!(none, Lookup::Absent));

    plane.set(at(25, 2).resources());
    plane.report(applies(2)).await;
    assert_eq!(weight(&proxy.shared), Some(25));
}

#[tokio::test]
async fn without_its_control_plane_a_proxy_goes_on_and_catches_up_when_it_is_back() {
    let mut plane = Plane::start();
    plane.set(at(10, 1).resources());
    let proxy = connect(&plane);
    proxy.shared.resolve(LISTENER).await;
    plane.report(applies(1)).await;
    plane.stop();
    plane.set(at(50, 2).resources());
    assert_eq!(weight(&proxy.shared), Some(10));
    plane.restart();
    plane.report(applies(2)).await;
    assert_eq!(weight(&proxy.shared), Some(50));
}

#[tokio::test]
async fn a_refused_route_is_reported_and_the_former_one_stays_in_force() {
    let mut plane = Plane::start();
    plane.set(at(10, 1).resources());
    let proxy = connect(&plane);
    proxy.shared.resolve(LISTENER).await;
    let bare = xds::route(&at(90, 2).branches(), None);
    plane.set(vec![(Kind::Route, ROUTE, bare)]);
    assert!(plane.rejection().await.contains("needs its split"));
    let report = plane.report(|report| !report.rejections.is_empty()).await;
    assert_eq!(report.rejections[0].name, ROUTE);
    assert_eq!(weight(&proxy.shared), Some(10));
    assert!(applies(1)(&report));
    plane.set(at(90, 3).resources());
    let report = plane.report(applies(3)).await;
    assert!(report.rejections.is_empty());
}

#[tokio::test]
async fn the_last_evidence_is_sent_before_leaving() {
    let mut plane = Plane::start();
    plane.set(at(10, 1).resources());
    let proxy = connect(&plane);
    proxy.shared.resolve(LISTENER).await;
    plane.report(applies(1)).await;
    let counters = proxy.shared.evidence.counters(&key());
    counters.uncoined(Arm::Stable);
    let left = tokio::spawn(proxy.talk.leave());
    let last = plane.report(|report| !report.records.is_empty()).await;
    assert_eq!(last.records[0].stable.as_ref().unwrap().uncoined, 1);
    left.await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_renewed_is_read_again() {
    let mut plane = Plane::start();
    plane.set(at(10, 1).resources());
    std::fs::write(plane.file("token"), "expired").unwrap();
    let proxy = connect(&plane);
    assert_eq!(plane.rejection().await, "no token");
    std::fs::write(plane.file("token"), "let-me-in").unwrap();
    proxy.shared.contacted().await;
}

fn key() -> Key {
    Key {
        service: "shop/cart".to_owned(),
        revision: "abc".to_owned(),
        fence: 1,
    }
}

const OK: End<'_> = End {
    failure: None,
    client_error: false,
    answered_in: None,
    unreached: false,
    pod: None,
};

const FAILED: End<'_> = End {
    failure: Some(Failure::Server),
    ..OK
};

#[tokio::test(start_paused = true)]
async fn a_failure_of_either_arm_is_told_at_once_with_both_arms_but_at_most_twenty_times_a_second()
{
    let shared = Shared::new(EndpointFacts::default());
    let counters = shared.evidence.counters(&key());
    let (reports, mut sent) = mpsc::channel(64);
    let (notes, received) = mpsc::channel(4);
    let (_leave, leaving) = watch::channel(false);
    let reporter = Reporter::new(shared.clone());
    tokio::spawn(reporter.run(reports, received, leaving));
    assert_eq!(
        sent.recv().await.unwrap().records.len(),
        1,
        "the first has everything"
    );
    notes.send(ServerNote { interval_ms: 250 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    for arm in Arm::ALL {
        counters.ended(Arm::Stable, OK);
        counters.ended(arm, FAILED);
        let start = Instant::now();
        let report = sent.recv().await.unwrap();
        assert!(start.elapsed() <= Duration::from_millis(51));
        assert!(report.records[0].stable.is_some() && report.records[0].candidate.is_some());
    }
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(1) {
        counters.ended(Arm::Candidate, FAILED);
        tokio::time::sleep(Duration::from_millis(1)).await;
        while sent.try_recv().is_ok() {
            count += 1;
        }
    }
    assert!((18..=21).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn without_failures_records_go_at_the_interval_asked_for_and_keep_alives_every_three_seconds()
{
    let shared = Shared::new(EndpointFacts::default());
    let counters = shared.evidence.counters(&key());
    let (reports, mut sent) = mpsc::channel(64);
    let (notes, received) = mpsc::channel(4);
    let (_leave, leaving) = watch::channel(false);
    tokio::spawn(Reporter::new(shared.clone()).run(reports, received, leaving));
    sent.recv().await.unwrap();
    notes.send(ServerNote { interval_ms: 250 }).await.unwrap();
    let start = Instant::now();
    counters.ended(Arm::Stable, OK);
    let report = sent.recv().await.unwrap();
    assert_eq!(report.records.len(), 1);
    assert!(
        start.elapsed() <= Duration::from_millis(260),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    let report = sent.recv().await.unwrap();
    assert!(report.records.is_empty());
    assert!(
        (2_000..3_000).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
}
