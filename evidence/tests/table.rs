//! What a table says of proxies, and what it does with peers that misbehave.
#![allow(clippy::unwrap_used)]

use sluice_evidence::{
    AWAY_AFTER_MS, Cursor, FORGET_AFTER_MS, Identity, InboundCursor, Refused, Standing, Table,
    relay, v1,
};

const SERVICE: &str = "shop/cart";

fn entry(pod: &str, sequence: u64, fence: Option<i64>) -> relay::ProxyEntry {
    relay::ProxyEntry {
        pod_uid: format!("uid-{pod}"),
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        sequence,
        connected: true,
        applied: fence
            .into_iter()
            .map(|fence| v1::AppliedSplit {
                service: SERVICE.to_owned(),
                fence,
            })
            .collect(),
        views: vec![SERVICE.to_owned()],
        ..Default::default()
    }
}

fn record(fence: i64, coined: u64, server_errors: u64) -> v1::Record {
    v1::Record {
        service: SERVICE.to_owned(),
        revision: "rev".to_owned(),
        fence,
        stable: Some(v1::ArmCounts {
            coined,
            ..Default::default()
        }),
        candidate: Some(v1::ArmCounts {
            coined,
            server_errors,
            ..Default::default()
        }),
        pods: Vec::new(),
    }
}

fn candidate_requests(cursor: &mut Cursor, table: &Table, after_fence: i64) -> u64 {
    let services = [SERVICE.to_owned()];
    cursor
        .take(table, &services, "rev", after_fence)
        .iter()
        .map(|growth| growth.stratum.candidate.requests)
        .sum()
}

#[test]
fn each_proxy_is_applied_behind_or_away() {
    let mut table = Table::new("leader", 0);
    let now = 100_000;
    table.merge("a", &entry("new", 1, Some(7)), now).unwrap();
    table.merge("a", &entry("later", 1, Some(8)), now).unwrap();
    table.merge("a", &entry("old", 1, Some(6)), now).unwrap();
    table.merge("a", &entry("bare", 1, None), now).unwrap();
    let mut silent = entry("silent", 1, Some(7));
    silent.silent_ms = AWAY_AFTER_MS as u64 + 1;
    table.merge("a", &silent, now).unwrap();
    let mut elsewhere = entry("elsewhere", 1, None);
    elsewhere.views = vec!["shop/other".to_owned()];
    table.merge("a", &elsewhere, now).unwrap();

    let standing = table.standing(SERVICE, 7, now);
    assert_eq!(
        standing,
        Standing {
            expected: 5,
            applied: 2,
            behind: 2,
            away: 1,
            laggards: vec![
                "shop/bare: has no route of it yet".to_owned(),
                "shop/old: routes by fence 6".to_owned(),
                "shop/silent: not heard of for 10 s".to_owned(),
            ],
            refusal: None,
        }
    );
}

#[test]
fn a_proxy_from_which_a_service_is_kept_is_not_waited_for_although_it_is_silent() {
    let mut table = Table::new("serving", 0);
    let identity = |namespace: &str| Identity {
        pod_uid: format!("uid-{namespace}"),
        namespace: namespace.to_owned(),
        pod: "client".to_owned(),
        ..Identity::default()
    };
    let report = v1::ProxyReport {
        applied: entry("", 0, Some(6)).applied,
        ..Default::default()
    };
    for namespace in ["shop", "other"] {
        let views = [SERVICE.to_owned()];
        table
            .report(&identity(namespace), &report, &views, 0)
            .unwrap();
    }
    let now = AWAY_AFTER_MS as u64 + 1;
    assert_eq!(table.standing(SERVICE, 7, now).away, 2);
    let told = table.sequence();
    let is_kept =
        |identity: &Identity, service: &str| identity.namespace == "other" && service == SERVICE;
    assert!(table.forget_services(is_kept));
    assert_eq!(table.standing(SERVICE, 7, now).expected, 1);

    // Other tables hear of it, and of nothing else.
    let outgoing = table.outgoing(told, now);
    let told: Vec<_> = outgoing
        .iter()
        .map(|entry| entry.namespace.as_str())
        .collect();
    assert_eq!(told, ["other"]);
    assert!(outgoing[0].views.is_empty() && outgoing[0].applied.is_empty());
    assert!(!table.forget_services(is_kept));
}

#[test]
fn at_most_ten_laggards_are_named() {
    let mut table = Table::new("leader", 0);
    for n in 0..30 {
        table
            .merge("a", &entry(&format!("p{n}"), 1, None), 0)
            .unwrap();
    }
    let standing = table.standing(SERVICE, 1, 0);
    assert_eq!((standing.behind, standing.laggards.len()), (30, 10));
}

#[test]
fn the_replica_with_the_newest_contact_says_what_a_proxy_routes_by() {
    let mut table = Table::new("leader", 0);
    table.merge("b", &entry("p", 3, Some(7)), 9_000).unwrap();
    let mut left = entry("p", 900, Some(6));
    left.connected = false;
    left.silent_ms = 4_000;
    table.merge("a", &left, 10_000).unwrap();
    let standing = table.standing(SERVICE, 7, 10_000);
    assert_eq!((standing.expected, standing.applied), (1, 1));
}

#[test]
fn a_late_entry_of_one_replica_changes_nothing() {
    let mut table = Table::new("leader", 0);
    table.merge("a", &entry("p", 5, Some(7)), 1_000).unwrap();
    table.merge("a", &entry("p", 4, Some(6)), 2_000).unwrap();
    assert_eq!(table.standing(SERVICE, 7, 2_000).applied, 1);
}

#[test]
fn a_replaced_process_is_not_waited_for() {
    let mut table = Table::new("leader", 0);
    table.merge("a", &entry("p", 1, Some(6)), 0).unwrap();
    let mut restarted = entry("p", 1, Some(7));
    restarted.process_start_ms = 99;
    table.merge("a", &restarted, 5_000).unwrap();
    let standing = table.standing(SERVICE, 7, 20_000);
    assert_eq!((standing.expected, standing.away), (1, 1));
    let standing = table.standing(SERVICE, 7, 6_000);
    assert_eq!((standing.expected, standing.applied), (1, 1));
}

#[test]
fn a_deleted_pod_is_not_waited_for_but_its_counters_still_count() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", 1, None);
    told.records = vec![record(7, 10, 0)];
    table.merge("a", &told, 0).unwrap();
    table.forget("uid-p", 500);
    told.sequence = 2;
    told.silent_ms = 1_000;
    table.merge("a", &told, 1_000).unwrap();
    told.process_start_ms = 5;
    table.merge("a", &told, 1_000).unwrap();
    assert_eq!(table.standing(SERVICE, 7, 1_000), Standing::default());
    assert_eq!(table.pod_uids().count(), 0);
    assert_eq!(candidate_requests(&mut Cursor::default(), &table, 0), 20);
}

#[test]
fn a_proxy_that_speaks_after_it_was_taken_for_deleted_is_waited_for_again() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", 1, None);
    table.merge("a", &told, 0).unwrap();
    table.forget("uid-p", 500);
    assert_eq!(table.standing(SERVICE, 7, 500), Standing::default());
    told.sequence = 2;
    table.merge("a", &told, 1_000).unwrap();
    assert_eq!(table.standing(SERVICE, 7, 1_000).expected, 1);
}

#[test]
fn a_proxy_silent_for_ten_minutes_is_forgotten_and_counted_only_once_when_it_returns() {
    let mut table = Table::new("leader", 0);
    let mut cursor = Cursor::default();
    let mut told = entry("p", 1, None);
    told.records = vec![record(7, 10, 0)];
    table.merge("a", &told, 0).unwrap();
    assert_eq!(candidate_requests(&mut cursor, &table, 0), 10);

    let later = FORGET_AFTER_MS as u64 + 1;
    table.expire(later);
    assert_eq!(table.standing(SERVICE, 7, later), Standing::default());
    told.silent_ms = later;
    table.merge("b", &told, later).unwrap();
    assert_eq!(table.pod_uids().count(), 0, "an old entry revives nobody");

    told.silent_ms = 0;
    told.records = vec![record(7, 12, 0)];
    table.merge("b", &told, later).unwrap();
    assert_eq!(candidate_requests(&mut cursor, &table, 0), 2);
}

#[test]
fn a_refusal_is_shown_for_the_service_it_is_about_and_for_no_other() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", 1, Some(6));
    told.rejections = vec![v1::Rejection {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        name: "outbound|80|candidate|cart.shop.svc.cluster.local".to_owned(),
        reason: "lb_policy RANDOM is not supported".to_owned(),
    }];
    table.merge("a", &told, 0).unwrap();
    assert_eq!(
        table.standing(SERVICE, 7, 0).refusal.unwrap(),
        "shop/p refuses outbound|80|candidate|cart.shop.svc.cluster.local: lb_policy RANDOM is not supported"
    );
    told.sequence = 2;
    told.rejections[0].name = "outbound|80||oxcart.shop.svc.cluster.local".to_owned();
    table.merge("a", &told, 0).unwrap();
    assert_eq!(table.standing(SERVICE, 7, 0).refusal, None);
}

#[test]
fn a_replica_streams_the_whole_first_and_changes_later() {
    let identity = |pod: &str| Identity {
        pod_uid: format!("uid-{pod}"),
        pod: pod.to_owned(),
        ..Default::default()
    };
    let report = |records: Vec<v1::Record>| v1::ProxyReport {
        process_start_ms: 1,
        records,
        ..Default::default()
    };
    let mut serving = Table::new("a", 1_000);
    let mut leader = Table::new("leader", 5_000);
    let mut send = |serving: &Table, since: u64| {
        let entries = serving.outgoing(since, 50);
        for entry in &entries {
            leader.merge("a", entry, 99).unwrap();
        }
        let sizes: Vec<_> = entries.iter().map(|e| e.records.len()).collect();
        (
            sizes,
            candidate_requests(&mut Cursor::default(), &leader, 0),
        )
    };

    let both = vec![record(1, 10, 1), record(2, 5, 0)];
    serving
        .report(&identity("p"), &report(both), &[], 10)
        .unwrap();
    serving
        .report(&identity("q"), &report(vec![]), &[], 20)
        .unwrap();
    assert_eq!(send(&serving, 0), (vec![2, 0], 15));

    let since = serving.sequence();
    assert_eq!(send(&serving, since), (vec![], 15), "nothing changed");
    serving
        .report(&identity("p"), &report(vec![record(2, 8, 0)]), &[], 30)
        .unwrap();
    assert_eq!(send(&serving, since), (vec![1], 18), "only what changed");

    let since = serving.sequence();
    serving.disconnected("uid-q", 1);
    serving.set_views("uid-q", &[SERVICE.to_owned()]);
    let entry = &serving.outgoing(since, 120)[0];
    assert_eq!(
        (entry.pod.as_str(), entry.connected, entry.silent_ms),
        ("q", false, 100)
    );
    assert_eq!(entry.views, [SERVICE]);
}

#[test]
fn a_replica_that_starts_again_supersedes_what_it_said_before() {
    let mut leader = Table::new("leader", 0);
    let identity = Identity {
        pod_uid: "uid".to_owned(),
        ..Default::default()
    };
    for (started_ms, fence) in [(1_000, 6), (2_000, 7)] {
        let mut serving = Table::new("a", started_ms);
        let report = v1::ProxyReport {
            applied: vec![v1::AppliedSplit {
                service: SERVICE.to_owned(),
                fence,
            }],
            ..Default::default()
        };
        serving.report(&identity, &report, &[], 0).unwrap();
        leader.merge("a", &serving.outgoing(0, 0)[0], 0).unwrap();
    }
    assert_eq!(leader.standing(SERVICE, 7, 0).applied, 1);
}

#[test]
fn a_hostile_proxy_takes_a_bounded_place_and_what_is_left_out_is_counted() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", 1, None);
    told.records = (0..1_000).map(|fence| record(fence, 1, 0)).collect();
    told.records.push(v1::Record {
        service: "s".repeat(10_000),
        ..record(2_000, 1, 0)
    });
    told.records.push(v1::Record {
        revision: "r".repeat(10_000),
        ..record(2_000, 1, 0)
    });
    told.applied = (0..10_000)
        .map(|n| v1::AppliedSplit {
            service: format!("shop/s{n}"),
            fence: 1,
        })
        .collect();
    told.rejections = vec![
        v1::Rejection {
            name: "x".repeat(100_000),
            reason: "é".repeat(100_000),
            ..Default::default()
        };
        1_000
    ];
    let dropped = table.merge("a", &told, 0).unwrap();
    assert_eq!(dropped, 744 + 2 + 5_904 + 936);
    assert_eq!(table.dropped(), dropped);
    assert_eq!(
        candidate_requests(&mut Cursor::default(), &table, -1),
        256,
        "the newest fences stay"
    );

    for start in 0..100 {
        told.process_start_ms = start;
        table.merge("a", &told, 0).unwrap();
    }
    assert_eq!(table.pod_uids().count(), 8, "lives of one pod");
}

#[test]
fn entries_without_a_pod_or_with_endless_names_are_refused() {
    let mut table = Table::new("leader", 0);
    let anonymous = relay::ProxyEntry::default();
    assert_eq!(table.merge("a", &anonymous, 0), Err(Refused::NoPod));
    let endless = entry(&"p".repeat(300), 1, None);
    assert!(matches!(
        table.merge("a", &endless, 0),
        Err(Refused::TooLong { max: 253, .. })
    ));
    assert_eq!(table.pod_uids().count(), 0);
}

#[test]
fn counters_at_the_end_of_their_range_neither_wrap_nor_panic() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", u64::MAX, Some(i64::MAX));
    told.silent_ms = 5;
    let everything = v1::ArmCounts {
        coined: u64::MAX,
        server_errors: u64::MAX,
        grpc_errors: u64::MAX,
        ..Default::default()
    };
    told.records = vec![v1::Record {
        candidate: Some(everything),
        ..record(i64::MAX, u64::MAX, 0)
    }];
    table.merge("a", &told, 0).unwrap();
    let services = [SERVICE.to_owned()];
    let strata = Cursor::default().take(&table, &services, "rev", 0);
    assert_eq!(strata[0].stratum.candidate.failures, u64::MAX);
}

#[test]
fn evidence_of_closed_fences_and_other_revisions_is_not_taken() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", 1, None);
    told.records = vec![record(6, 1, 0), record(7, 10, 0)];
    told.records.push(v1::Record {
        revision: "other".to_owned(),
        ..record(7, 100, 0)
    });
    told.records.push(v1::Record {
        service: "shop/other".to_owned(),
        ..record(7, 1_000, 0)
    });
    table.merge("a", &told, 0).unwrap();
    let mut cursor = Cursor::default();
    assert_eq!(candidate_requests(&mut cursor, &table, 6), 10);
    let both = [SERVICE.to_owned(), "shop/other".to_owned()];
    let strata = cursor.take(&table, &both, "rev", 6);
    assert_eq!(strata.len(), 1, "only the service that is new");
    assert_eq!(strata[0].stratum.candidate.requests, 1_000);
}

fn inbound(generation: u64, sources: &[(&str, u64)], others: u64) -> v1::Inbound {
    let source = |&(address, requests): &(&str, u64)| v1::Source {
        address: address.to_owned(),
        requests,
        probes: 0,
    };
    v1::Inbound {
        generation,
        sources: sources.iter().map(source).collect(),
        others,
    }
}

fn came(pod: &str, sequence: u64, inbound: v1::Inbound) -> relay::ProxyEntry {
    relay::ProxyEntry {
        inbound: Some(inbound),
        ..entry(pod, sequence, None)
    }
}

const CLIENT: &str = "10.0.0.1";

#[test]
fn who_came_to_a_pod_is_counted_once_however_often_it_is_told() {
    let mut table = Table::new("leader", 0);
    let mut cursor = InboundCursor::default();
    let mut look = |table: &Table| {
        let arrivals = cursor.take(table, ["uid-p"].into_iter());
        let came = arrivals.from.get(&CLIENT.parse().unwrap()).copied();
        (came.unwrap_or_default().requests, arrivals.others)
    };
    table
        .merge("a", &came("p", 1, inbound(0, &[(CLIENT, 5)], 1)), 0)
        .unwrap();
    assert_eq!(
        look(&table),
        (0, 0),
        "what came before the first look is not news"
    );
    table
        .merge("a", &came("p", 2, inbound(0, &[(CLIENT, 9)], 4)), 0)
        .unwrap();
    table
        .merge("b", &came("p", 1, inbound(0, &[(CLIENT, 7)], 2)), 0)
        .unwrap();
    assert_eq!(look(&table), (4, 3));
    assert_eq!(look(&table), (0, 0));
    // An address was forgotten by the proxy, and came back.
    table
        .merge("a", &came("p", 3, inbound(1, &[(CLIENT, 2)], 4)), 0)
        .unwrap();
    table
        .merge("b", &came("p", 2, inbound(0, &[(CLIENT, 99)], 4)), 0)
        .unwrap();
    assert_eq!(look(&table), (2, 0));
}

#[test]
fn what_came_from_an_address_cannot_be_told_of_a_silent_or_a_crowded_proxy() {
    let mut table = Table::new("leader", 0);
    let told = |table: &Table, now| table.came_from("uid-p", CLIENT.parse().unwrap(), now);
    table
        .merge("a", &came("p", 1, inbound(0, &[(CLIENT, 5)], 0)), 0)
        .unwrap();
    assert_eq!(told(&table, 5_000), (5, false));
    assert_eq!(told(&table, 5_001), (5, true), "it was not heard of lately");
    assert_eq!(
        table.came_from("uid-q", CLIENT.parse().unwrap(), 0),
        (0, true)
    );
    table
        .merge("a", &came("p", 2, inbound(0, &[(CLIENT, 5)], 1)), 0)
        .unwrap();
    assert_eq!(
        told(&table, 0),
        (5, true),
        "some addresses are not told apart"
    );
}

#[test]
fn claims_leave_out_what_reached_no_pod_and_other_revisions() {
    let mut table = Table::new("leader", 0);
    let mut told = entry("p", 1, None);
    let mut record = record(7, 100, 0);
    if let Some(candidate) = &mut record.candidate {
        candidate.uncoined = 10;
        candidate.unreached = 30;
    }
    told.records = vec![
        v1::Record {
            fence: 8,
            ..record.clone()
        },
        v1::Record {
            revision: "other".to_owned(),
            ..record.clone()
        },
        v1::Record { fence: 6, ..record },
    ];
    table.merge("a", &told, 0).unwrap();
    let claims = table.claims(&[SERVICE.to_owned()], "rev", 6);
    assert_eq!(claims.len(), 1);
    assert_eq!((claims[0].pod.as_str(), claims[0].requests), ("p", 80));
}

#[test]
fn endless_addresses_and_pods_take_a_bounded_place() {
    let mut table = Table::new("leader", 0);
    let addresses: Vec<String> = (0..10_000)
        .map(|n| format!("10.0.{}.{}", n / 250, n % 250))
        .collect();
    let sources: Vec<(&str, u64)> = addresses.iter().map(|a| (a.as_str(), 1)).collect();
    let mut told = came("p", 1, inbound(0, &sources, 0));
    let pod = |n| v1::PodCounts {
        pod: format!("pod-{n}"),
        coined: 1,
        failures: 0,
    };
    told.records = vec![v1::Record {
        pods: (0..10_000).map(pod).collect(),
        ..record(1, 1, 0)
    }];
    assert_eq!(table.merge("a", &told, 0), Ok(9_744 + 9_968));
    let entry = table.outgoing(0, 0);
    assert!(
        entry.is_empty(),
        "another replica's proxy is not ours to tell of"
    );
    let nonsense = came("q", 1, inbound(0, &[("not an address", 1)], 0));
    assert_eq!(table.merge("a", &nonsense, 0), Ok(1));
}
