//! Counters of what the proxy saw, as `sluice.evidence.v1` wants them.
//!
//! One [`Counters`] for each (service, revision, fence), both arms behind one lock, so that they
//! are always read at one instant. Workers add; the reporter reads.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sluice_evidence::v1::{ArmCounts, PodCounts, Record};
use sluice_xds::names::Arm;
use tokio::{sync::Notify, time::Instant};

/// Upper edges of the duration buckets in milliseconds; one more bucket is for what is above.
const EDGES_MS: [u128; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000];

/// Most pods of the candidate that are told apart under one key.
const MAX_PODS: usize = 32;

/// Refused connects to one endpoint within this time are one event.
const CONNECT_EVENT: Duration = Duration::from_secs(1);

/// Counters that nothing adds to any more are kept this long: a stream that breaks may have
/// swallowed the last report of them.
const KEEP: Duration = Duration::from_secs(600);

/// What counters are about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `NAMESPACE/NAME` of the Service.
    pub service: String,
    /// The candidate revision.
    pub revision: String,
    /// The split's fence.
    pub fence: i64,
}

/// A class of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// HTTP status 500 or above.
    Server,
    /// A gRPC status that the server is to blame for.
    Grpc,
    /// No connection, or the far proxy had none to its application.
    Connect,
    /// The connection or the stream broke, or the body was cut.
    Reset,
    /// Still running at the hung line.
    Hung,
}

/// How a request of the coin ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct End<'a> {
    /// What went wrong at the first attempt; an event of its own.
    pub failure: Option<Failure>,
    /// Whether the answer was a 4xx.
    pub client_error: bool,
    /// From the first byte of the request to the last of the answer; none without an answer.
    pub answered_in: Option<Duration>,
    /// The first attempt was made to nobody: its pod refused the connection.
    pub unreached: bool,
    /// The pod of the first attempt.
    pub pod: Option<&'a str>,
}

/// Counters of both arms under one key.
#[derive(Debug)]
pub struct Counters {
    key: Key,
    arms: Mutex<Arms>,
    alarm: Arc<Notify>,
}

#[derive(Debug, Clone, PartialEq)]
struct Arms {
    stable: ArmCounts,
    candidate: ArmCounts,
    /// The candidate's by pod: (coined, failures).
    pods: BTreeMap<String, (u64, u64)>,
}

impl Arms {
    fn of(&mut self, arm: Arm) -> &mut ArmCounts {
        match arm {
            Arm::Stable => &mut self.stable,
            Arm::Candidate => &mut self.candidate,
        }
    }

    /// Only of the candidate it is asked which pod failed.
    fn count_pod(&mut self, pod: &str, failed: bool) {
        if !self.pods.contains_key(pod) {
            if self.pods.len() >= MAX_PODS {
                return;
            }
            self.pods.insert(pod.to_owned(), (0, 0));
        }
        if let Some((coined, failures)) = self.pods.get_mut(pod) {
            *coined += 1;
            *failures += u64::from(failed);
        }
    }
}

impl Counters {
    fn new(key: Key, alarm: Arc<Notify>) -> Self {
        let zero = ArmCounts {
            duration_buckets: vec![0; EDGES_MS.len() + 1],
            ..ArmCounts::default()
        };
        Self {
            key,
            arms: Mutex::new(Arms {
                stable: zero.clone(),
                candidate: zero,
                pods: BTreeMap::new(),
            }),
            alarm,
        }
    }

    /// A request that the coin placed in `arm` has ended, or is hung.
    pub fn ended(&self, arm: Arm, end: End<'_>) {
        let mut arms = self.arms.lock();
        if let (Arm::Candidate, Some(pod)) = (arm, end.pod) {
            arms.count_pod(pod, end.failure.is_some());
        }
        let counts = arms.of(arm);
        counts.coined += 1;
        counts.unreached += u64::from(end.unreached);
        counts.client_errors += u64::from(end.client_error);
        if let Some(duration) = end.answered_in {
            counts.duration_buckets[bucket(duration)] += 1;
        }
        let Some(failure) = end.failure else {
            // While a revision is tried, 4xx of either arm are evidence that cannot wait.
            if end.client_error && !self.key.revision.is_empty() {
                self.alarm.notify_one();
            }
            return;
        };
        match failure {
            Failure::Server => counts.server_errors += 1,
            Failure::Grpc => counts.grpc_errors += 1,
            Failure::Connect => counts.connect_failures += 1,
            Failure::Reset => counts.resets += 1,
            Failure::Hung => counts.hung += 1,
        }
        drop(arms);
        self.alarm.notify_one();
    }

    /// A request came to `arm` otherwise than by the coin.
    pub fn uncoined(&self, arm: Arm) {
        self.arms.lock().of(arm).uncoined += 1;
    }

    /// What they are about.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    fn record(&self) -> Record {
        let arms = self.arms.lock().clone();
        Record {
            service: self.key.service.clone(),
            revision: self.key.revision.clone(),
            fence: self.key.fence,
            stable: Some(arms.stable),
            candidate: Some(arms.candidate),
            pods: arms
                .pods
                .into_iter()
                .map(|(pod, (coined, failures))| PodCounts {
                    pod,
                    coined,
                    failures,
                })
                .collect(),
        }
    }
}

fn bucket(duration: Duration) -> usize {
    let ms = duration.as_micros().div_ceil(1000);
    EDGES_MS.partition_point(|edge| *edge < ms)
}

/// All counters of this process.
#[derive(Debug, Default)]
pub struct Evidence {
    counters: Mutex<BTreeMap<Key, (Arc<Counters>, Instant)>>,
    refusals: Mutex<HashMap<SocketAddr, Instant>>,
    alarm: Arc<Notify>,
}

impl Evidence {
    /// The counters of this key; the same ones each time.
    pub fn counters(&self, key: &Key) -> Arc<Counters> {
        let mut all = self.counters.lock();
        let make = || {
            (
                Arc::new(Counters::new(key.clone(), self.alarm.clone())),
                Instant::now(),
            )
        };
        let (counters, used) = all.entry(key.clone()).or_insert_with(make);
        *used = Instant::now();
        counters.clone()
    }

    /// Whether a refused connect to `address` is an event of its own: the first one in a second
    /// is, over all workers.
    pub fn is_new_connect_failure(&self, address: SocketAddr) -> bool {
        let now = Instant::now();
        let mut refusals = self.refusals.lock();
        refusals.retain(|_, since| now.duration_since(*since) < CONNECT_EVENT);
        if refusals.contains_key(&address) {
            return false;
        }
        refusals.insert(address, now);
        true
    }

    /// Resolves when a failure was counted since it last did.
    pub async fn failure(&self) {
        self.alarm.notified().await;
    }

    /// The records that differ from what `sent` holds; they are in it afterwards. Counters that
    /// only this registry holds, unchanged since long, are forgotten.
    pub fn changed(&self, sent: &mut BTreeMap<Key, Record>) -> Vec<Record> {
        let now = Instant::now();
        let mut all = self.counters.lock();
        all.retain(|_, (counters, used)| {
            if Arc::strong_count(counters) > 1 {
                *used = now;
            }
            now.duration_since(*used) < KEEP
        });
        sent.retain(|key, _| all.contains_key(key));
        let mut changed = Vec::new();
        for (key, (counters, _)) in all.iter() {
            let record = counters.record();
            if sent.get(key) != Some(&record) {
                sent.insert(key.clone(), record.clone());
                changed.push(record);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            service: "shop/cart".to_owned(),
            revision: "abc".to_owned(),
            fence: 3,
        }
    }

    const OK: End<'_> = End {
        failure: None,
        client_error: false,
        answered_in: Some(Duration::from_millis(7)),
        unreached: false,
        pod: None,
    };

    #[test]
    fn a_duration_falls_below_its_upper_edge() {
        for (micros, index) in [
            (0, 0),
            (5_000, 0),
            (5_001, 1),
            (10_000, 1),
            (10_000_000, 10),
            (10_000_001, 11),
        ] {
            assert_eq!(bucket(Duration::from_micros(micros)), index, "{micros}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_records_that_changed_are_reported_again() {
        let evidence = Evidence::default();
        let counters = evidence.counters(&key());
        let mut sent = BTreeMap::new();
        counters.ended(Arm::Stable, OK);
        assert_eq!(evidence.changed(&mut sent).len(), 1);
        assert!(evidence.changed(&mut sent).is_empty());
        counters.uncoined(Arm::Candidate);
        let records = evidence.changed(&mut sent);
        let candidate = records[0]
            .candidate
            .as_ref()
            .map(|c| (c.coined, c.uncoined));
        assert_eq!(candidate, Some((0, 1)));
        assert_eq!(
            records[0].stable.as_ref().map(|c| c.duration_buckets[1]),
            Some(1)
        );
    }

    #[test]
    fn the_candidates_pods_are_told_apart_up_to_a_bound_and_stables_are_not() {
        let evidence = Evidence::default();
        let counters = evidence.counters(&key());
        let failure = Some(Failure::Server);
        for n in 0..40 {
            let pod = format!("v2-{n:02}");
            let pod = Some(pod.as_str());
            counters.ended(Arm::Candidate, End { pod, ..OK });
            counters.ended(Arm::Candidate, End { pod, failure, ..OK });
            counters.ended(Arm::Stable, End { pod, ..OK });
        }
        let record = counters.record();
        assert_eq!(record.pods.len(), MAX_PODS);
        assert!(
            record
                .pods
                .iter()
                .all(|pod| (pod.coined, pod.failures) == (2, 1))
        );
        assert_eq!(record.candidate.map(|counts| counts.coined), Some(80));
    }

    #[tokio::test(start_paused = true)]
    async fn counters_without_a_split_are_kept_for_ten_minutes_and_then_forgotten() {
        let evidence = Evidence::default();
        evidence.counters(&key()).ended(Arm::Stable, OK);
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(evidence.changed(&mut BTreeMap::new()).len(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(evidence.changed(&mut BTreeMap::new()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn refused_connects_to_an_endpoint_in_one_second_are_one_event() {
        let evidence = Evidence::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let other = SocketAddr::from(([10, 0, 0, 2], 80));
        assert!(evidence.is_new_connect_failure(address));
        assert!(!evidence.is_new_connect_failure(address));
        assert!(evidence.is_new_connect_failure(other));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(evidence.is_new_connect_failure(address));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_either_arm_raises_the_alarm_and_nothing_else_does() {
        let evidence = Evidence::default();
        let counters = evidence.counters(&key());
        counters.ended(Arm::Stable, OK);
        let quiet = tokio::time::timeout(Duration::from_secs(1), evidence.failure()).await;
        assert!(quiet.is_err());
        for arm in Arm::ALL {
            let failure = Some(Failure::Reset);
            counters.ended(arm, End { failure, ..OK });
            evidence.failure().await;
        }
    }
}
