//! A proxy that asks for what it must not see, and one that speaks of it.

use std::{io, sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use parking_lot::Mutex;
use serde_json::json;
use sluice_crds::Mesh;
use sluice_mesh::{Input, ObjectKey};
use sluice_xds::Kind;
use tracing_subscriber::fmt;

use super::{
    harness::{Ads, Harness, parse},
    reports::{entry, open, report},
};

const LISTENER: &str = "outbound/10.96.0.7:80";
const ROUTE: &str = "reviews.bookinfo.svc.cluster.local:80";
/// Every name under which `bookinfo/reviews` can be asked for, and the same of a Service that
/// does not exist.
const NAMES: [(Kind, &str, &str); 7] = [
    (Kind::Listener, LISTENER, "outbound/10.96.0.9:80"),
    (
        Kind::Listener,
        "outbound/reviews.bookinfo.svc.cluster.local:80",
        "outbound/revisal.bookinfo.svc.cluster.local:80",
    ),
    (Kind::Route, ROUTE, "revisal.bookinfo.svc.cluster.local:80"),
    (
        Kind::Cluster,
        "outbound|80||reviews.bookinfo.svc.cluster.local",
        "outbound|80||revisal.bookinfo.svc.cluster.local",
    ),
    (
        Kind::Cluster,
        "outbound|80|candidate|reviews.bookinfo.svc.cluster.local",
        "outbound|80|candidate|revisal.bookinfo.svc.cluster.local",
    ),
    (
        Kind::Endpoints,
        "outbound|80||reviews.bookinfo.svc.cluster.local",
        "outbound|80||revisal.bookinfo.svc.cluster.local",
    ),
    (
        Kind::Endpoints,
        "outbound|80|candidate|reviews.bookinfo.svc.cluster.local",
        "outbound|80|candidate|revisal.bookinfo.svc.cluster.local",
    ),
];

/// What a stream says to the first question for a name, without the name itself.
async fn answer(harness: &Harness, token: &str, kind: Kind, name: &str) -> DeltaDiscoveryResponse {
    let mut ads = harness.ads(token).await.unwrap();
    let ask = DeltaDiscoveryRequest {
        // Whatever a proxy calls itself.
        node: Some(Node {
            id: "sidecar~10.0.0.7~client.bookinfo~bookinfo".to_owned(),
            ..Node::default()
        }),
        type_url: kind.type_url(),
        resource_names_subscribe: vec![name.to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    ads.requests.send(ask).await.unwrap();
    let mut told = ads.next().await;
    for removed in &mut told.removed_resources {
        *removed = removed.replace(name, "NAME");
    }
    told
}

#[tokio::test]
async fn what_a_proxy_must_not_see_is_answered_as_what_does_not_exist_under_every_name() {
    let harness = Harness::new();
    harness.reviews();
    harness.split(1, 10);
    harness.export(".,friends");
    for (kind, name, absent) in NAMES {
        let denied = answer(&harness, "evil/curious", kind, name).await;
        let nothing = answer(&harness, "evil/curious", kind, absent).await;
        assert_eq!(denied, nothing, "{kind} {name}");
        assert_eq!(denied.removed_resources, ["NAME"]);
        for token in ["bookinfo/client", "friends/client"] {
            let seen = answer(&harness, token, kind, name).await;
            assert_eq!(seen.resources.len(), 1, "{token}: {kind} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_a_hidden_service_is_not_told() {
    let harness = Harness::new();
    harness.reviews();
    harness.export(".");
    let mut ads = harness.ads("evil/curious").await.unwrap();
    for (kind, name, _) in NAMES {
        ads.subscribe(kind, &[name]).await;
        ads.next().await;
    }
    harness.split(1, 10);
    harness.split(2, 25);
    let key = ObjectKey::new("bookinfo", "reviews-1");
    harness.hub.remove(Input::Pod, &key);
    let key = ObjectKey::new("bookinfo", "reviews");
    harness.hub.remove(Input::Service, &key);
    assert!(ads.is_silent().await);
}

/// Listener and route of `reviews` on one stream.
async fn subscribed(harness: &Harness, token: &str) -> Ads {
    let mut ads = harness.ads(token).await.unwrap();
    for (kind, name) in [(Kind::Listener, LISTENER), (Kind::Route, ROUTE)] {
        ads.subscribe(kind, &[name]).await;
        assert_eq!(ads.next().await.resources[0].name, name);
    }
    ads
}

/// What the next two responses bring, and take away; sorted.
async fn two(ads: &mut Ads) -> (Vec<String>, Vec<String>) {
    let (mut brought, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let told = tokio::time::timeout(Duration::from_secs(30), ads.next());
        let told = told.await.expect("a response");
        brought.extend(told.resources.into_iter().map(|resource| resource.name));
        taken.extend(told.removed_resources);
    }
    brought.sort();
    taken.sort();
    (brought, taken)
}

#[tokio::test(start_paused = true)]
async fn a_service_is_taken_from_those_who_may_not_see_it_any_more_and_given_back() {
    let harness = Harness::new();
    harness.reviews();
    let mut own = subscribed(&harness, "bookinfo/client").await;
    let mut other = subscribed(&harness, "other/client").await;
    let both = vec![LISTENER.to_owned(), ROUTE.to_owned()];

    harness.export(".");
    assert_eq!(two(&mut other).await, (vec![], both.clone()));
    harness.export(".,other");
    assert_eq!(two(&mut other).await, (both.clone(), vec![]));
    harness.export("team_b");
    assert_eq!(two(&mut other).await, (vec![], both.clone()), "unreadable");

    // The Service says nothing, the mesh does.
    let mesh: Mesh = parse(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Mesh",
        "metadata": {"name": "default"}, "spec": {"defaultServiceExportTo": ["."]},
    }));
    harness.hub.change(|world| world.apply_mesh(&mesh));
    harness.export("");
    assert!(other.is_silent().await);
    let key = ObjectKey::new("", "default");
    harness.hub.remove(Input::Mesh, &key);
    assert_eq!(two(&mut other).await, (both, vec![]));
    assert!(
        own.is_silent().await,
        "its own namespace saw it all the time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hidden_service_takes_nobodys_word_expects_nobody_and_the_log_names_who_spoke() {
    let harness = Harness::new();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = fmt().with_ansi(false).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    harness.reviews();
    harness.export(".");
    let mut ads = harness.ads("evil/liar").await.unwrap();
    ads.subscribe(Kind::Listener, &[LISTENER]).await;
    ads.next().await;
    let liar = open(harness.channel(), "evil/liar").await;
    for round in 1..=3 {
        liar.reports.send(report(round)).await.unwrap();
        let told = entry(&harness, |_| harness.hub.metrics.reports.get() == round).await;
        assert!(told.records.is_empty() && told.applied.is_empty() && told.views.is_empty());
        // The record, and the fence that it claims to route by.
        assert_eq!(harness.hub.metrics.out_of_view.get(), 2 * round);
    }
    let said = String::from_utf8(log.0.lock().clone()).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("WARN")).collect();
    let [line] = lines.as_slice() else {
        panic!("not once: {lines:?}");
    };
    for part in ["\"evil\"", "\"liar\"", "bookinfo/reviews"] {
        assert!(line.contains(part), "{line}");
    }

    // Once it may see the Service, its counters are cumulative: nothing is lost.
    harness.export("*");
    assert_eq!(ads.next().await.resources[0].name, LISTENER);
    liar.reports.send(report(4)).await.unwrap();
    let told = entry(&harness, |entry| !entry.records.is_empty()).await;
    assert_eq!(told.views, ["bookinfo/reviews"]);
    assert_eq!(harness.hub.metrics.out_of_view.get(), 6);
}

#[tokio::test(start_paused = true)]
async fn records_that_never_come_into_view_are_counted_once() {
    let harness = Harness::new();
    harness.reviews();
    let stream = open(harness.channel(), "bookinfo/client").await;
    for _ in 0..20 {
        stream.reports.send(report(5)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(harness.hub.metrics.out_of_view.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_from_which_the_service_is_taken_is_expected_no_more() {
    let harness = Harness::new();
    harness.reviews();
    for token in ["other/here", "other/gone"] {
        let mut ads = harness.ads(token).await.unwrap();
        ads.subscribe(Kind::Listener, &[LISTENER]).await;
        ads.next().await;
        let stream = open(harness.channel(), token).await;
        stream.reports.send(report(5)).await.unwrap();
        let pod = token.strip_prefix("other/").unwrap();
        viewers(&harness, |viewers| {
            viewers.iter().any(|viewer| viewer == pod)
        })
        .await;
    }
    // Both streams have ended: nobody is there who could say that it routes the Service no more.
    harness.export(".");
    viewers(&harness, Vec::is_empty).await;

    // Nor by what was in its view until its stream ended.
    let stream = open(harness.channel(), "other/gone").await;
    stream.reports.send(report(6)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    viewers(&harness, Vec::is_empty).await;
}

/// Waits until the pods that are expected to route `reviews` are such.
async fn viewers(harness: &Harness, wanted: impl Fn(&Vec<String>) -> bool) {
    let mut changes = harness.hub.table_changes();
    loop {
        let service = "bookinfo/reviews";
        let entries = harness.hub.outgoing(0).0.into_iter();
        let expected = entries.filter(|entry| {
            entry.views.iter().any(|view| view == service)
                || entry.applied.iter().any(|split| split.service == service)
        });
        if wanted(&expected.map(|entry| entry.pod).collect()) {
            return;
        }
        tokio::time::timeout(Duration::from_secs(30), changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
