//! What comes into force, when, and what is refused.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use envoy_types::pb::google::protobuf::Any;
use sluice_proxy::{
    config::{Change, Lookup, Mode, Snapshot, Store},
    evidence::Evidence,
};
use sluice_xds::Kind;
use support::{CANDIDATE, LISTENER, ROUTE, STABLE, Split, xds};

struct Fixture {
    store: Store,
    evidence: Arc<Evidence>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            store: Store::default(),
            evidence: Arc::default(),
        }
    }

    fn set(&mut self, kind: Kind, name: &str, body: &Any) -> &mut Self {
        self.store.apply(kind, name, Change::Set(body)).unwrap();
        self.store.settle();
        self
    }

    fn remove(&mut self, kind: Kind, name: &str) -> &mut Self {
        self.store.apply(kind, name, Change::Remove).unwrap();
        self.store.settle();
        self
    }

    /// Cluster and endpoints of an arm.
    fn arm(&mut self, name: &str, port: u16) -> &mut Self {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        self.set(Kind::Cluster, name, &xds::cluster(name, false))
            .set(Kind::Endpoints, name, &xds::endpoints(name, &[address]))
    }

    fn route(&mut self, weight: u32, fence: i64) -> &mut Self {
        let split = Split {
            weight,
            fence,
            ..Split::default()
        };
        let body = xds::route(&split.branches(), Some(&split.facts()));
        self.set(Kind::Route, ROUTE, &body)
    }

    fn listener(&mut self) -> &mut Self {
        self.set(Kind::Listener, LISTENER, &xds::http_listener(ROUTE))
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot(|key| self.evidence.counters(key))
    }

    fn applied(&self) -> BTreeMap<String, i64> {
        self.snapshot().applied
    }

    fn weights(&self) -> Vec<u32> {
        match self.snapshot().lookup(LISTENER) {
            Lookup::Found(listener) => {
                let route = listener.http().unwrap();
                route.branches.iter().map(|branch| branch.weight).collect()
            }
            Lookup::Absent | Lookup::Unknown => Vec::new(),
        }
    }

    fn refusal(&mut self, kind: Kind, body: &Any) -> String {
        let applied = self.store.apply(kind, "x", Change::Set(body));
        applied.unwrap_err().to_string()
    }
}

fn fence(fence: i64) -> BTreeMap<String, i64> {
    BTreeMap::from([("shop/cart".to_owned(), fence)])
}

#[test]
fn a_listener_serves_only_when_everything_below_it_is_there() {
    let mut fixture = Fixture::new();
    fixture.listener().route(10, 1).arm(STABLE, 1);
    assert!(matches!(
        fixture.snapshot().lookup(LISTENER),
        Lookup::Unknown
    ));
    assert_eq!(fixture.store.warming(), [LISTENER]);
    let wanted = fixture.store.wanted(Kind::Cluster);
    assert_eq!(wanted.iter().collect::<Vec<_>>(), [CANDIDATE, STABLE]);
    fixture.set(Kind::Cluster, CANDIDATE, &xds::cluster(CANDIDATE, false));
    assert!(fixture.weights().is_empty(), "endpoints are missing");
    fixture.set(Kind::Endpoints, CANDIDATE, &xds::endpoints(CANDIDATE, &[]));
    assert_eq!(fixture.weights(), [90, 10]);
    assert_eq!(fixture.applied(), fence(1));
    assert!(fixture.store.warming().is_empty());
}

#[test]
fn a_new_route_waits_for_its_clusters_while_the_old_one_serves_and_is_reported() {
    let mut fixture = Fixture::new();
    let whole = "outbound|80||cart.shop.svc.cluster.local";
    fixture
        .listener()
        .set(Kind::Route, ROUTE, &xds::route(&[(whole, 1)], None))
        .arm(whole, 1);
    assert_eq!(fixture.weights(), [1]);
    fixture.route(10, 4).arm(STABLE, 1);
    assert_eq!(fixture.weights(), [1], "the candidate's cluster is missing");
    assert_eq!(fixture.applied(), BTreeMap::new());
    assert!(
        fixture.store.wanted(Kind::Cluster).contains(whole),
        "in force"
    );
    fixture.arm(CANDIDATE, 2);
    assert_eq!(fixture.weights(), [90, 10]);
    assert_eq!(fixture.applied(), fence(4));
    assert!(
        !fixture.store.wanted(Kind::Cluster).contains(whole),
        "not used any more"
    );
}

#[test]
fn what_is_in_force_survives_the_removal_of_what_it_needs() {
    let mut fixture = Fixture::new();
    fixture
        .listener()
        .route(10, 1)
        .arm(STABLE, 1)
        .arm(CANDIDATE, 2);
    fixture
        .remove(Kind::Cluster, CANDIDATE)
        .remove(Kind::Endpoints, CANDIDATE)
        .remove(Kind::Route, ROUTE);
    assert_eq!(fixture.weights(), [90, 10]);
    fixture.remove(Kind::Listener, LISTENER);
    assert!(matches!(
        fixture.snapshot().lookup(LISTENER),
        Lookup::Absent
    ));
    for kind in [Kind::Route, Kind::Cluster, Kind::Endpoints] {
        assert!(fixture.store.wanted(kind).is_empty(), "{kind}");
    }
    assert_eq!(fixture.applied(), BTreeMap::new());
}

#[test]
fn new_endpoints_are_in_force_at_once_and_counters_stay_under_their_key() {
    let mut fixture = Fixture::new();
    fixture
        .listener()
        .route(10, 1)
        .arm(STABLE, 1)
        .arm(CANDIDATE, 2);
    let counters = |fixture: &Fixture| match fixture.snapshot().lookup(LISTENER) {
        Lookup::Found(listener) => listener
            .http()
            .unwrap()
            .split
            .as_ref()
            .unwrap()
            .counters
            .clone(),
        Lookup::Absent | Lookup::Unknown => panic!("not in force"),
    };
    let before = counters(&fixture);
    fixture.arm(STABLE, 3);
    assert!(
        fixture
            .snapshot()
            .addresses()
            .contains(&SocketAddr::from(([10, 0, 0, 1], 3)))
    );
    assert!(Arc::ptr_eq(&before, &counters(&fixture)));
    fixture.route(25, 2);
    assert!(!Arc::ptr_eq(&before, &counters(&fixture)), "another fence");
}

#[test]
fn of_two_ports_of_a_service_the_smaller_fence_is_reported() {
    let mut fixture = Fixture::new();
    fixture
        .listener()
        .route(10, 7)
        .arm(STABLE, 1)
        .arm(CANDIDATE, 2);
    let split = Split {
        fence: 6,
        ..Split::default()
    };
    let tcp = xds::tcp_listener(&split.branches(), Some(&split.facts()));
    fixture.set(
        Kind::Listener,
        "outbound/cart.shop.svc.cluster.local:81",
        &tcp,
    );
    assert_eq!(fixture.applied(), fence(6));
}

#[test]
fn a_listener_of_unknown_protocol_has_both_routes() {
    let mut fixture = Fixture::new();
    let split = Split::default();
    let detect = xds::detect_listener(ROUTE, &split.branches(), Some(&split.facts()));
    fixture
        .set(Kind::Listener, LISTENER, &detect)
        .route(0, 1)
        .arm(STABLE, 1)
        .arm(CANDIDATE, 2);
    let Lookup::Found(listener) = fixture.snapshot().lookup(LISTENER) else {
        panic!("not in force");
    };
    assert!(matches!(listener.mode, Mode::Detect { .. }));
}

#[test]
fn what_is_not_supported_is_refused_with_a_reason_and_the_former_version_stays() {
    let mut fixture = Fixture::new();
    fixture
        .listener()
        .route(10, 1)
        .arm(STABLE, 1)
        .arm(CANDIDATE, 2);
    let bare = xds::route(&[(STABLE, 90), (CANDIDATE, 10)], None);
    let error = fixture
        .store
        .apply(Kind::Route, ROUTE, Change::Set(&bare))
        .unwrap_err();
    assert!(
        error.to_string().contains("two arms needs its split"),
        "{error}"
    );
    fixture.store.settle();
    assert_eq!(fixture.weights(), [90, 10]);

    let nothing = xds::route(&[(STABLE, 0), (CANDIDATE, 0)], None);
    assert!(
        fixture
            .refusal(Kind::Route, &nothing)
            .contains("weights sum to 0")
    );
    let odd = xds::cluster("blackhole", false);
    assert!(
        fixture
            .refusal(Kind::Cluster, &odd)
            .contains("outbound|PORT|ARM|HOST")
    );
    let other = xds::cluster(STABLE, false);
    assert!(fixture.refusal(Kind::Listener, &other).contains("expected"));
    let junk = Any {
        value: vec![0xff; 9],
        ..xds::http_listener(ROUTE)
    };
    assert!(
        fixture
            .refusal(Kind::Listener, &junk)
            .contains("not a valid")
    );
}
