//! Both ends of the relay against each other, over loopback and with real certificates.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use sluice_evidence::{
    Identity,
    v1::{AppliedSplit, ProxyReport},
};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    leader,
    sender::{self, MutualTls},
};
use crate::{
    lease::Leadership,
    serving::{
        Hub,
        tests::{eject, report, split},
    },
    tls::tests::Ca,
};

const SERVICE: &str = "bookinfo/reviews";

/// A leader on loopback, and its address.
async fn start(ca: &Ca, shutdown: &CancellationToken) -> (Arc<leader::Hub>, SocketAddr) {
    start_as(Leadership::always(), ca, shutdown).await
}

async fn start_as(
    leadership: Leadership,
    ca: &Ca,
    shutdown: &CancellationToken,
) -> (Arc<leader::Hub>, SocketAddr) {
    let hub = leader::Hub::new(
        "controller-1",
        leadership,
        Box::new(|_| ()),
        Box::new(|| ()),
    );
    let hub = Arc::new(hub);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (publish, certs) = watch::channel(Some(ca.certs("sluice-controller")));
    let serving = leader::serve(listener, hub.clone(), certs, shutdown.clone());
    tokio::spawn(async move {
        let _publish = publish;
        serving.await
    });
    (hub, address)
}

fn sender(
    ca: &Ca,
    account: &str,
    hub: &Arc<Hub>,
    address: SocketAddr,
) -> watch::Sender<Option<SocketAddr>> {
    let (lease, leader) = watch::channel(Some(address));
    let (publish, certs) = watch::channel(Some(ca.certs(account)));
    let sending = sender::run(hub.clone(), leader, MutualTls::new(certs, "sluice-system"));
    tokio::spawn(async move {
        let _publish = publish;
        sending.await;
    });
    lease
}

/// How many proxies the leader knows to route by this fence.
fn applied(hub: &leader::Hub, fence: i64) -> u32 {
    hub.with_table(|table| table.standing(SERVICE, fence, hub.now_ms()))
        .applied
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap();
}

fn say(hub: &Hub, pod: &str, fence: i64) {
    let identity = Identity {
        pod_uid: format!("uid-{pod}"),
        namespace: "bookinfo".into(),
        pod: pod.into(),
        service_account: "default".into(),
    };
    let applied = vec![AppliedSplit {
        service: SERVICE.into(),
        fence,
    }];
    let said = ProxyReport {
        process_start_ms: 1,
        applied,
        ..ProxyReport::default()
    };
    report(hub, &identity, &said, &BTreeSet::from([SERVICE.to_owned()]));
}

#[tokio::test]
async fn proxies_of_all_replicas_come_together_at_the_leader_and_at_the_next_one() {
    let (ca, first, second) = (
        Ca::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let (leader, address) = start(&ca, &first).await;
    let replicas =
        ["serving-1", "serving-2"].map(|name| Hub::new("cluster.local", name, Default::default()));
    let leases = replicas
        .each_ref()
        .map(|hub| sender(&ca, "sluice-serving", hub, address));
    say(&replicas[0], "a", 1);
    say(&replicas[1], "b", 1);
    until(|| applied(&leader, 1) == 2).await;
    until(|| leader.hears("serving-1") && leader.hears("serving-2")).await;

    // The leader dies; the Lease names another, which has heard of nobody.
    first.cancel();
    let (next, address) = start(&ca, &second).await;
    say(&replicas[1], "b", 2);
    for lease in &leases {
        lease.send_replace(Some(address));
    }
    until(|| applied(&next, 1) == 2).await;
    assert_eq!(applied(&next, 2), 1);
}

#[tokio::test]
async fn a_stranger_and_another_role_are_not_listened_to() {
    let (ca, other, shutdown) = (Ca::new(), Ca::new(), CancellationToken::new());
    let (leader, address) = start(&ca, &shutdown).await;
    let [stranger, role, honest] = ["stranger", "role", "honest"]
        .map(|name| Hub::new("cluster.local", name, Default::default()));
    for hub in [&stranger, &role, &honest] {
        say(hub, hub.replica(), 1);
    }
    let _leases = [
        sender(&other, "sluice-serving", &stranger, address),
        sender(&ca, "sluice-controller", &role, address),
        sender(&ca, "sluice-serving", &honest, address),
    ];
    until(|| leader.hears("honest")).await;
    assert!(!leader.hears("stranger") && !leader.hears("role"));
    assert_eq!(applied(&leader, 1), 1);
}

#[tokio::test]
async fn a_leader_whose_lease_has_lapsed_still_hears_and_ejects() {
    let (ca, shutdown) = (Ca::new(), CancellationToken::new());
    let lapsed = Leadership::until(Instant::now());
    let (leader, address) = start_as(lapsed, &ca, &shutdown).await;
    let replica = Hub::new("cluster.local", "serving-1", Default::default());
    replica.apply_split(&split(7, 10));
    let _lease = sender(&ca, "sluice-serving", &replica, address);
    until(|| leader.hears("serving-1")).await;
    leader.ejects.add(eject(7));
    until(|| replica.ejects() == [eject(7)]).await;
    assert!(leader.hears("serving-1"), "it has stayed all the while");
}

#[tokio::test]
async fn the_next_leader_carries_an_eject_to_the_replicas_that_the_first_could_not_reach() {
    let (ca, first, second) = (
        Ca::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let (leader, address) = start(&ca, &first).await;
    let [reached, cut_off] =
        ["serving-1", "serving-2"].map(|name| Hub::new("cluster.local", name, Default::default()));
    for replica in [&reached, &cut_off] {
        replica.apply_split(&split(7, 10));
    }
    let lease = sender(&ca, "sluice-serving", &reached, address);
    leader.ejects.add(eject(7));
    until(|| reached.ejects() == [eject(7)]).await;
    first.cancel();

    let (next, address) = start(&ca, &second).await;
    lease.send_replace(Some(address));
    let _other = sender(&ca, "sluice-serving", &cut_off, address);
    until(|| next.ejects.of("bookinfo", "reviews") == Some(eject(7))).await;
    until(|| cut_off.ejects() == [eject(7)]).await;
}
