#![allow(clippy::unwrap_used)]

use sluice_evidence::{
    relay::ProxyEntry,
    v1::{AppliedSplit, ArmCounts, Inbound, PodCounts, Record, Source},
};
use sluice_rollout::{
    policy::Policy,
    state::{Arm, PodFault},
};

use super::*;
use crate::controller::fixtures::rollout;

fn rules() -> Rules {
    Policy::from_spec(&rollout("web", "web").spec())
        .unwrap()
        .rules
}

fn candidate(through_fence: i64) -> Candidate {
    let arm = Arm {
        revision: "r2".to_owned(),
        ..Arm::default()
    };
    let mut candidate = Candidate {
        arm,
        ..Candidate::default()
    };
    candidate.closed.through_fence = through_fence;
    candidate
}

fn table(sequence: u64, fence: i64, coined: u64) -> ProxyEntry {
    let counts = ArmCounts {
        coined,
        ..ArmCounts::default()
    };
    ProxyEntry {
        pod_uid: "p".to_owned(),
        sequence,
        connected: true,
        applied: vec![AppliedSplit {
            service: "shop/web".to_owned(),
            fence,
        }],
        records: vec![Record {
            service: "shop/web".to_owned(),
            revision: "r2".to_owned(),
            fence,
            stable: Some(counts.clone()),
            candidate: Some(counts),
            ..Record::default()
        }],
        views: vec!["shop/web".to_owned()],
        ..ProxyEntry::default()
    }
}

fn services() -> Vec<String> {
    vec!["shop/web".to_owned()]
}

#[test]
fn every_request_is_counted_once() {
    let mut seen = Table::new("leader", 0);
    let mut evidence = Evidence::of(None, 1, &candidate(1), &rules());
    seen.merge("a", &table(1, 2, 100), 0).unwrap();
    assert_eq!(
        evidence.read(&seen, &services(), 2, 0).candidate.requests,
        100
    );
    assert_eq!(
        evidence.read(&seen, &services(), 2, 0).candidate.requests,
        100
    );
    seen.merge("a", &table(2, 2, 150), 0).unwrap();
    assert_eq!(
        evidence.read(&seen, &services(), 2, 0).candidate.requests,
        150
    );
}

#[test]
fn a_new_leader_goes_on_from_the_state_and_counts_no_fence_twice() {
    let mut seen = Table::new("leader", 0);
    seen.merge("a", &table(1, 2, 100), 0).unwrap();
    let mut first = Evidence::of(None, 1, &candidate(1), &rules());
    let closed = first.read(&seen, &services(), 2, 0).closed;
    assert_eq!(closed.through_fence, 2);
    seen.merge("a", &table(2, 3, 30), 0).unwrap();
    let next = Candidate {
        closed,
        ..candidate(0)
    };
    let mut second = Evidence::of(Some(first), 2, &next, &rules());
    assert_eq!(
        second.read(&seen, &services(), 3, 0).candidate.requests,
        130
    );
}

#[test]
fn another_try_of_the_revision_begins_without_the_old_evidence() {
    let mut seen = Table::new("leader", 0);
    seen.merge("a", &table(1, 2, 100), 0).unwrap();
    let mut first = Evidence::of(None, 1, &candidate(1), &rules());
    assert_eq!(first.read(&seen, &services(), 2, 0).candidate.requests, 100);
    let again = Candidate {
        started: 5,
        ..candidate(8)
    };
    let mut second = Evidence::of(Some(first), 1, &again, &rules());
    assert_eq!(second.read(&seen, &services(), 9, 0).candidate.requests, 0);
}

#[test]
fn proxies_are_applied_or_behind_by_the_fence_of_the_split() {
    let mut seen = Table::new("leader", 0);
    seen.merge("a", &table(1, 2, 0), 0).unwrap();
    let (view, _) = standing(&seen, &services(), Some(2), true, 0);
    assert_eq!((view.expected, view.applied, view.behind), (1, 1, 0));
    let (view, laggards) = standing(&seen, &services(), Some(3), true, 0);
    assert_eq!((view.applied, view.behind, laggards.len()), (0, 1, 1));
    let (view, _) = standing(&seen, &services(), None, true, 0);
    assert_eq!(view.expected, 0);
}

/// A proxy's word, and what came to the candidate's pod `v2` from each of two clients.
fn scene(claims: &[(&str, u64)], came: &[(&str, u64)], sequence: u64) -> Table {
    let mut seen = Table::new("leader", 0);
    for &(client, coined) in claims {
        let mut entry = table(sequence, 2, coined);
        entry.pod_uid = client.to_owned();
        entry.pod = client.to_owned();
        entry.namespace = "shop".to_owned();
        seen.merge("a", &entry, 0).unwrap();
    }
    let sources = came.iter().map(|&(client, requests)| Source {
        address: address(client).to_string(),
        requests,
        probes: 0,
    });
    let entry = ProxyEntry {
        pod_uid: "v2".to_owned(),
        sequence,
        inbound: Some(Inbound {
            generation: 0,
            sources: sources.collect(),
            others: 0,
        }),
        ..ProxyEntry::default()
    };
    seen.merge("a", &entry, 0).unwrap();
    seen
}

fn address(client: &str) -> IpAddr {
    let last = if client == "honest" { 1 } else { 2 };
    [10, 0, 0, last].into()
}

/// Whether anybody is doubted, after the claims were held against what came in six seconds.
fn doubts(claims: &[(&str, u64)], came: &[(&str, u64)], pods: &[&str]) -> Vec<String> {
    let seen = scene(claims, came, 1);
    let to = Arrived {
        pods: pods.to_vec(),
        address_of: &|_, name, _| Some(address(name)),
    };
    let mut evidence = Evidence::of(None, 1, &candidate(1), &rules());
    evidence.claims = seen.claims(&services(), "r2", 1);
    evidence.hold(&seen, &to, 0);
    evidence.news()
}

#[test]
fn who_claims_more_than_the_candidates_pods_saw_is_named_and_an_honest_one_is_not() {
    let came = [("honest", 400), ("forger", 10)];
    let told = doubts(&[("honest", 400), ("forger", 5_000)], &came, &["v2"]);
    assert_eq!(
        told,
        [
            "the proxy of pod shop/forger says that it sent the candidate 5000 requests, of which the \
          candidate's pods saw 10: its word does not count against the revision"
        ]
    );
    // What is still on its way is no lie.
    let told = doubts(&[("honest", 850), ("forger", 70)], &came, &["v2"]);
    assert_eq!(told, [""; 0]);
}

#[test]
fn nobody_is_doubted_where_the_candidates_pods_cannot_tell() {
    let claims = [("honest", 400), ("forger", 5_000)];
    assert_eq!(
        doubts(&claims, &[], &["v2"]),
        [""; 0],
        "they do not see that port"
    );
    let came = [("honest", 400), ("forger", 10)];
    assert_eq!(
        doubts(&claims, &came, &["v2", "bare"]),
        [""; 0],
        "a pod without a proxy"
    );
    assert_eq!(doubts(&claims, &came, &[]), [""; 0]);
}

#[test]
fn what_a_doubted_proxy_says_condemns_nobody_and_helps_no_promotion() {
    let came = [("honest", 2_000), ("forger", 10)];
    let mut seen = scene(&[("honest", 2_000)], &came, 1);
    let mut lies = table(2, 2, 4_000);
    lies.pod = "forger".to_owned();
    lies.pod_uid = "forger".to_owned();
    lies.namespace = "shop".to_owned();
    for record in &mut lies.records {
        record.candidate.as_mut().unwrap().server_errors = 3_000;
    }
    seen.merge("a", &lies, 0).unwrap();
    let to = Arrived {
        pods: vec!["v2"],
        address_of: &|_, name, _| Some(address(name)),
    };
    let mut evidence = Evidence::of(None, 1, &candidate(1), &rules());
    evidence.claims = seen.claims(&services(), "r2", 1);
    evidence.hold(&seen, &to, 0);
    let view = evidence.read(&seen, &services(), 2, 10_000);
    assert_eq!((view.condemned, view.contested), (None, None));
    assert_eq!(view.doubted.len(), 1);
    assert!(
        !view.sufficient,
        "its failures still stand against a promotion"
    );
    assert_eq!(view.candidate.requests, 6_000);
}

#[test]
fn whom_a_person_has_set_aside_is_left_out_of_everything() {
    let mut seen = scene(&[("honest", 2_000)], &[], 1);
    let mut lies = table(2, 2, 4_000);
    lies.pod = "forger".to_owned();
    lies.pod_uid = "forger".to_owned();
    lies.namespace = "shop".to_owned();
    lies.records[0].candidate.as_mut().unwrap().server_errors = 3_000;
    seen.merge("a", &lies, 0).unwrap();
    let set_aside = Candidate {
        set_aside: vec![Witness::Proxy("shop/forger".to_owned())],
        ..candidate(1)
    };
    let mut evidence = Evidence::of(None, 1, &set_aside, &rules());
    let view = evidence.read(&seen, &services(), 2, 10_000);
    assert!(view.sufficient && view.condemned.is_none());
    assert_eq!(view.candidate.requests, 2_000);
}

#[test]
fn what_a_pod_that_is_left_out_has_answered_counts_neither_for_nor_against() {
    let mut seen = Table::new("leader", 0);
    let mut told = table(1, 2, 4_000);
    let counts = told.records[0].candidate.as_mut().unwrap();
    counts.server_errors = 1_000;
    let pod = |pod: &str, coined, failures| PodCounts {
        pod: pod.to_owned(),
        coined,
        failures,
    };
    told.records[0].pods = vec![pod("broken", 1_000, 1_000), pod("sound", 3_000, 0)];
    seen.merge("a", &told, 0).unwrap();
    let fault = PodFault {
        pod: "broken".to_owned(),
        ..PodFault::default()
    };
    let without = Candidate {
        pod_fault: Some(fault),
        ..candidate(1)
    };
    let whole = Evidence::of(None, 1, &candidate(1), &rules()).read(&seen, &services(), 2, 0);
    assert!(!whole.sufficient && whole.candidate.failures == 1_000);
    let mut evidence = Evidence::of(None, 1, &without, &rules());
    let view = evidence.read(&seen, &services(), 2, 0);
    assert!(view.sufficient && view.condemned.is_none(), "{view:?}");
    assert_eq!(
        (view.candidate.requests, view.candidate.failures),
        (3_000, 0)
    );
}
