//! Merging is commutative, associative and idempotent, and strata add up to the counters.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sluice_evidence::{ArmDelta, Cursor, Growth, Standing, Stratum, Table, relay, v1};

const SERVICES: [&str; 2] = ["shop/cart", "shop/till"];

/// What one proxy counted from its start: after each step the record as it then was.
#[derive(Debug, Clone)]
struct Step {
    pod: u8,
    service: usize,
    fence: i64,
    add: [u64; 4],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3u8, 0..2usize, 1..4i64, prop::array::uniform4(0..5u64));
    prop::collection::vec(step, 1..40).prop_map(|steps| {
        steps
            .into_iter()
            .map(|(pod, service, fence, add)| Step {
                pod,
                service,
                fence,
                add,
            })
            .collect()
    })
}

/// Each proxy's entries as two replicas would send them: cumulative, in the order they were made.
fn entries(steps: &[Step]) -> Vec<(String, relay::ProxyEntry)> {
    let mut totals = std::collections::BTreeMap::<_, [u64; 4]>::new();
    let made = steps.iter().enumerate().map(|(n, step)| {
        let total = totals
            .entry((step.pod, step.service, step.fence))
            .or_default();
        for (total, add) in total.iter_mut().zip(step.add) {
            *total += add;
        }
        let [stable, failures, candidate, candidate_failures] = *total;
        let arm = |coined: u64, server_errors| v1::ArmCounts {
            coined: coined + server_errors,
            server_errors,
            client_errors: coined / 2,
            ..Default::default()
        };
        let entry = relay::ProxyEntry {
            pod_uid: format!("uid-{}", step.pod),
            pod: format!("p{}", step.pod),
            sequence: n as u64 + 1,
            silent_ms: 1_000 * (steps.len() - n) as u64,
            applied: vec![v1::AppliedSplit {
                service: SERVICES[step.service].to_owned(),
                fence: step.fence,
            }],
            records: vec![v1::Record {
                service: SERVICES[step.service].to_owned(),
                revision: "rev".to_owned(),
                fence: step.fence,
                stable: Some(arm(stable, failures)),
                candidate: Some(arm(candidate, candidate_failures)),
                pods: vec![v1::PodCounts {
                    pod: format!("v2-{}", step.pod % 2),
                    coined: candidate + candidate_failures,
                    failures: candidate_failures,
                }],
            }],
            inbound: Some(v1::Inbound {
                generation: n as u64 / 16,
                sources: vec![v1::Source {
                    address: format!("10.0.0.{}", step.fence),
                    requests: stable,
                    probes: failures,
                }],
                others: candidate,
            }),
            ..Default::default()
        };
        (format!("replica-{}", n % 2), entry)
    });
    made.collect()
}

fn merged(entries: &[(String, relay::ProxyEntry)]) -> Table {
    let mut table = Table::new("leader", 0);
    for (replica, entry) in entries {
        table.merge(replica, entry, 60_000).unwrap();
    }
    table
}

fn take(cursor: &mut Cursor, table: &Table) -> Vec<Growth> {
    cursor.take(table, &SERVICES.map(str::to_owned), "rev", 0)
}

/// Totals of both arms by fence, and (requests, failures) of each pod.
type Sums = (
    std::collections::BTreeMap<i64, Stratum>,
    std::collections::BTreeMap<String, (u64, u64)>,
);

fn sum(growths: &[Growth]) -> Sums {
    let mut sums = Sums::default();
    for Growth {
        fence,
        stratum,
        pods,
        ..
    } in growths
    {
        for (pod, delta) in pods {
            let total = sums.1.entry(pod.clone()).or_default();
            *total = (total.0 + delta.requests, total.1 + delta.failures);
        }
        let total = sums.0.entry(*fence).or_default();
        for (total, arm) in [
            (&mut total.stable, &stratum.stable),
            (&mut total.candidate, &stratum.candidate),
        ] {
            *total = ArmDelta {
                requests: total.requests + arm.requests,
                failures: total.failures + arm.failures,
                client_errors: total.client_errors + arm.client_errors,
            };
        }
    }
    sums
}

/// All that a table says of the world.
fn said(table: &Table) -> (Vec<Growth>, [Standing; 2], Vec<(u64, bool)>) {
    let standings = SERVICES.map(|service| table.standing(service, 2, 60_000));
    let pods = (0..3).flat_map(|pod| (1..4).map(move |last| (pod, last)));
    let inbound = pods.map(|(pod, last)| {
        let address = [10, 0, 0, last].into();
        table.came_from(&format!("uid-{pod}"), address, 60_000)
    });
    let inbound = inbound.collect();
    (take(&mut Cursor::default(), table), standings, inbound)
}

proptest! {
    #[test]
    fn order_repetition_and_loss_of_older_entries_do_not_matter(
        steps in steps(),
        seed in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
    ) {
        let told = entries(&steps);
        let mut shuffled = told.clone();
        for (n, index) in seed.iter().enumerate() {
            let other = index.index(told.len());
            shuffled.swap(n % told.len(), other);
            shuffled.push(told[other].clone());
        }
        prop_assert_eq!(said(&merged(&told)), said(&merged(&shuffled)));
    }

    #[test]
    fn it_does_not_matter_through_how_many_tables_an_entry_went(steps in steps()) {
        let told = entries(&steps);
        let mut through = Table::new("leader", 0);
        for replica in ["replica-0", "replica-1"] {
            let mut serving = Table::new(replica, 0);
            for (_, entry) in told.iter().filter(|(name, _)| name == replica) {
                serving.merge(replica, entry, 60_000).unwrap();
            }
            for entry in serving.outgoing(0, 60_000) {
                through.merge(replica, &entry, 60_000).unwrap();
            }
        }
        prop_assert_eq!(said(&merged(&told)), said(&through));
    }

    #[test]
    fn strata_add_up_to_the_final_counters_whatever_the_cadence(
        steps in steps(),
        looks in prop::collection::vec(any::<bool>(), 40),
    ) {
        let told = entries(&steps);
        let mut table = Table::new("leader", 0);
        let mut cursor = Cursor::default();
        let mut strata = Vec::new();
        for ((replica, entry), look) in told.iter().zip(looks) {
            table.merge(replica, entry, 60_000).unwrap();
            if look {
                strata.extend(take(&mut cursor, &table));
            }
        }
        strata.extend(take(&mut cursor, &table));
        let whole = take(&mut Cursor::default(), &table);
        prop_assert_eq!(sum(&strata), sum(&whole));
        prop_assert!(take(&mut cursor, &table).is_empty());
    }
}
