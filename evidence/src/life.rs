//! One life of one proxy process: what each replica says of it, and its counters.

use std::collections::{BTreeMap, BTreeSet};

use crate::inbound::Inbound;
use crate::table::MAX_NAME_LEN;
use crate::{Identity, relay, v1};

/// Most records of one life; the newest fences stay.
pub(crate) const MAX_RECORDS: usize = 256;
/// Most services that one life may name as applied, and as viewed.
const MAX_SERVICES: usize = 4096;
/// Most refused resources that are kept.
const MAX_REJECTIONS: usize = 64;
/// Most replicas whose word on one proxy is kept; the least recent contact goes first.
const MAX_SEATS: usize = 16;
/// Most pods of one record.
const MAX_PODS: usize = 32;
/// Duration buckets of `v1::ArmCounts`.
const BUCKETS: usize = 12;
/// `NAMESPACE/NAME`: two DNS names and a slash.
const MAX_SERVICE_LEN: usize = 63 + 1 + 253;
const MAX_REVISION_LEN: usize = 64;
const MAX_VERSION_LEN: usize = 64;
const MAX_RESOURCE_LEN: usize = 512;
const MAX_REASON_LEN: usize = 1024;

/// Ordered by fence first, so that the oldest record is the first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordKey {
    pub fence: i64,
    pub service: String,
    pub revision: String,
}

/// A record and when it last grew.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub stable: v1::ArmCounts,
    pub candidate: v1::ArmCounts,
    /// The candidate's by pod: (coined, failures).
    pub pods: BTreeMap<String, (u64, u64)>,
    pub changed: u64,
}

/// The last word of one replica on a proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seat {
    pub sequence: u64,
    /// Local time of the proxy's last report to that replica, ms.
    pub contact_ms: i64,
    pub connected: bool,
    pub version: String,
    pub applied: BTreeMap<String, i64>,
    pub rejections: Vec<v1::Rejection>,
    pub views: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    pub identity: Identity,
    pub seats: BTreeMap<String, Seat>,
    pub records: BTreeMap<RecordKey, Kept>,
    /// The table's sequence when any record last grew.
    pub records_changed: u64,
    /// Who sent requests to its pod, and the table's sequence when that last grew.
    pub inbound: Inbound,
    pub inbound_changed: u64,
    /// When the pod was told to be deleted, local ms; see [`Life::is_gone`].
    pub gone_ms: Option<i64>,
}

impl Life {
    /// The word of the replica with the newest contact.
    pub fn latest(&self) -> Option<&Seat> {
        self.seats
            .iter()
            .max_by_key(|(replica, seat)| (seat.contact_ms, *replica))
            .map(|(_, seat)| seat)
    }

    /// Newest contact with any replica, local ms; the distant past if there was none.
    pub fn contact_ms(&self) -> i64 {
        self.latest().map_or(i64::MIN, |seat| seat.contact_ms)
    }

    /// Nothing is expected of it: its pod was told to be deleted, and it has not spoken since.
    /// One that still speaks lives, whatever a lagging cache said.
    pub fn is_gone(&self) -> bool {
        self.gone_ms.is_some_and(|at| self.contact_ms() <= at)
    }

    /// Merges one replica's entry; gives how many parts of it were over a bound and left out.
    pub fn merge(
        &mut self,
        replica: &str,
        entry: &relay::ProxyEntry,
        contact_ms: i64,
        stamp: u64,
    ) -> u64 {
        let records: u64 = entry
            .records
            .iter()
            .map(|record| self.merge_record(record, stamp))
            .sum();
        let inbound = entry.inbound.as_ref().map_or(0, |told| {
            let (grew, dropped) = self.inbound.merge(told);
            if grew {
                self.inbound_changed = stamp;
            }
            dropped
        });
        records + inbound + self.merge_seat(replica, entry, contact_ms)
    }

    fn merge_seat(&mut self, replica: &str, entry: &relay::ProxyEntry, contact_ms: i64) -> u64 {
        if self
            .seats
            .get(replica)
            .is_some_and(|seat| seat.sequence >= entry.sequence)
        {
            return 0;
        }
        let (seat, dropped) = Seat::read(entry, contact_ms);
        self.seats.insert(replica.to_owned(), seat);
        if self.seats.len() <= MAX_SEATS {
            return dropped;
        }
        let oldest = self
            .seats
            .iter()
            .min_by_key(|(_, seat)| seat.contact_ms)
            .map(|(replica, _)| replica.clone());
        if let Some(oldest) = oldest {
            self.seats.remove(&oldest);
        }
        dropped + 1
    }

    fn merge_record(&mut self, record: &v1::Record, stamp: u64) -> u64 {
        if !is_service(&record.service) || record.revision.len() > MAX_REVISION_LEN {
            return 1;
        }
        let key = RecordKey {
            fence: record.fence,
            service: record.service.clone(),
            revision: record.revision.clone(),
        };
        let kept = self.records.entry(key).or_default();
        let mut dropped = 0;
        let mut grew = false;
        for (held, told) in [
            (&mut kept.stable, &record.stable),
            (&mut kept.candidate, &record.candidate),
        ] {
            let Some(told) = told else { continue };
            grew |= raise(held, told);
            dropped += u64::from(told.duration_buckets.len() > BUCKETS);
        }
        for told in &record.pods {
            let is_new = !kept.pods.contains_key(&told.pod);
            if told.pod.len() > MAX_NAME_LEN || (is_new && kept.pods.len() >= MAX_PODS) {
                dropped += 1;
                continue;
            }
            let held = kept.pods.entry(told.pod.clone()).or_default();
            let larger = (held.0.max(told.coined), held.1.max(told.failures));
            grew |= larger != *held;
            *held = larger;
        }
        if grew {
            kept.changed = stamp;
            self.records_changed = stamp;
        }
        while self.records.len() > MAX_RECORDS {
            self.records.pop_first();
            dropped += 1;
        }
        dropped
    }

    /// The entry that tells another table what changed in this life after `since`.
    pub fn outgoing(
        &self,
        (pod_uid, process_start_ms): (&str, u64),
        seat: &Seat,
        since: u64,
        now_ms: i64,
    ) -> relay::ProxyEntry {
        relay::ProxyEntry {
            pod_uid: pod_uid.to_owned(),
            namespace: self.identity.namespace.clone(),
            pod: self.identity.pod.clone(),
            service_account: self.identity.service_account.clone(),
            process_start_ms,
            sequence: seat.sequence,
            connected: seat.connected,
            silent_ms: u64::try_from(now_ms.saturating_sub(seat.contact_ms)).unwrap_or(0),
            version: seat.version.clone(),
            applied: seat
                .applied
                .iter()
                .map(|(service, &fence)| v1::AppliedSplit {
                    service: service.clone(),
                    fence,
                })
                .collect(),
            records: self
                .records
                .iter()
                .filter(|(_, kept)| kept.changed > since)
                .map(|(key, kept)| v1::Record {
                    service: key.service.clone(),
                    revision: key.revision.clone(),
                    fence: key.fence,
                    stable: Some(kept.stable.clone()),
                    candidate: Some(kept.candidate.clone()),
                    pods: kept.wire_pods(),
                })
                .collect(),
            rejections: seat.rejections.clone(),
            views: seat.views.iter().cloned().collect(),
            inbound: (self.inbound_changed > since).then(|| self.inbound.to_wire()),
        }
    }
}

impl Kept {
    fn wire_pods(&self) -> Vec<v1::PodCounts> {
        let pod = |(pod, &(coined, failures)): (&String, &(u64, u64))| v1::PodCounts {
            pod: pod.clone(),
            coined,
            failures,
        };
        self.pods.iter().map(pod).collect()
    }
}

impl Seat {
    fn read(entry: &relay::ProxyEntry, contact_ms: i64) -> (Self, u64) {
        let applied: BTreeMap<_, _> = entry
            .applied
            .iter()
            .filter(|split| is_service(&split.service))
            .take(MAX_SERVICES)
            .map(|split| (split.service.clone(), split.fence))
            .collect();
        let (views, views_dropped) = read_views(&entry.views);
        let rejections: Vec<_> = entry
            .rejections
            .iter()
            .take(MAX_REJECTIONS)
            .map(|rejection| v1::Rejection {
                type_url: cut(&rejection.type_url, MAX_RESOURCE_LEN),
                name: cut(&rejection.name, MAX_RESOURCE_LEN),
                reason: cut(&rejection.reason, MAX_REASON_LEN),
            })
            .collect();
        let dropped =
            entry.applied.len() - applied.len() + entry.rejections.len() - rejections.len();
        let seat = Self {
            sequence: entry.sequence,
            contact_ms,
            connected: entry.connected,
            version: cut(&entry.version, MAX_VERSION_LEN),
            applied,
            rejections,
            views,
        };
        (seat, dropped as u64 + views_dropped)
    }
}

/// The views that are kept of a list, and how many are not.
pub(crate) fn read_views(views: &[String]) -> (BTreeSet<String>, u64) {
    let kept: BTreeSet<_> = views
        .iter()
        .filter(|service| is_service(service))
        .take(MAX_SERVICES)
        .cloned()
        .collect();
    let dropped = views.len() - kept.len();
    (kept, dropped as u64)
}

fn is_service(service: &str) -> bool {
    !service.is_empty() && service.len() <= MAX_SERVICE_LEN
}

/// At most `max` bytes of a text that only people read.
fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

/// Raises every counter to the larger of both; says whether any grew.
fn raise(held: &mut v1::ArmCounts, told: &v1::ArmCounts) -> bool {
    let mut grew = false;
    let mut up = |held: &mut u64, told: u64| {
        grew |= told > *held;
        *held = told.max(*held);
    };
    up(&mut held.coined, told.coined);
    up(&mut held.server_errors, told.server_errors);
    up(&mut held.grpc_errors, told.grpc_errors);
    up(&mut held.connect_failures, told.connect_failures);
    up(&mut held.resets, told.resets);
    up(&mut held.hung, told.hung);
    up(&mut held.client_errors, told.client_errors);
    up(&mut held.uncoined, told.uncoined);
    up(&mut held.unreached, told.unreached);
    let told = &told.duration_buckets[..told.duration_buckets.len().min(BUCKETS)];
    if held.duration_buckets.len() < told.len() {
        held.duration_buckets.resize(told.len(), 0);
    }
    for (held, &told) in held.duration_buckets.iter_mut().zip(told) {
        up(held, told);
    }
    grew
}
