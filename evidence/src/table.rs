//! The mergeable table of proxies: at a serving replica of its own, at the leader of all.

use std::collections::BTreeMap;

use crate::life::{Life, read_views};
use crate::{relay, v1};

/// A proxy that was silent for longer is forgotten, with its counters.
pub const FORGET_AFTER_MS: i64 = 600_000;
/// Most lives of proxies in one table.
const MAX_LIVES: usize = 50_000;
/// Most lives of one pod: the process start is the proxy's own word.
const MAX_LIVES_OF_A_POD: usize = 8;
pub(crate) const MAX_NAME_LEN: usize = 253;

/// (pod uid, process start in ms since 1970).
pub(crate) type LifeKey = (String, u64);

/// Who a proxy is, from its token and from nothing in its messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The pod's uid.
    pub pod_uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Its service account.
    pub service_account: String,
}

/// An entry that a table does not take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Without a uid two proxies cannot be told apart.
    #[error("an entry without pod uid: its token is not bound to a pod; use a projected token")]
    NoPod,
    /// No Kubernetes name is that long.
    #[error("{field} of a proxy is longer than {max} bytes: refuse this peer")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// The bound.
        max: usize,
    },
    /// The table is full of proxies that were heard of lately.
    #[error(
        "the table holds {max} proxies already: further ones bear no witness; look for a peer that makes up pods"
    )]
    Full {
        /// The bound.
        max: usize,
    },
}

/// All that is known of proxies. Merging is commutative, associative and idempotent within the
/// bounds: counters by max, a replica's word on a proxy by its sequence.
#[derive(Debug)]
pub struct Table {
    replica: String,
    pub(crate) lives: BTreeMap<LifeKey, Life>,
    sequence: u64,
    dropped: u64,
    max_lives: usize,
}

impl Table {
    /// An empty table of the replica with this pod name. `started_ms`, milliseconds since 1970,
    /// lets the entries of a replica that starts again under the same name supersede the old.
    #[must_use]
    pub fn new(replica: &str, started_ms: u64) -> Self {
        Self {
            replica: replica.to_owned(),
            lives: BTreeMap::new(),
            // A million changes a millisecond are left between two starts.
            sequence: started_ms.saturating_mul(1 << 20),
            dropped: 0,
            max_lives: MAX_LIVES,
        }
    }

    /// Takes in a proxy's report to this replica. `views`: the services whose routes it
    /// subscribes to. Gives how many parts were over a bound and left out.
    ///
    /// # Errors
    /// See [`Refused`]; the table is as before.
    pub fn report(
        &mut self,
        identity: &Identity,
        report: &v1::ProxyReport,
        views: &[String],
        now_ms: u64,
    ) -> Result<u64, Refused> {
        let entry = relay::ProxyEntry {
            pod_uid: identity.pod_uid.clone(),
            namespace: identity.namespace.clone(),
            pod: identity.pod.clone(),
            service_account: identity.service_account.clone(),
            process_start_ms: report.process_start_ms,
            sequence: self.sequence + 1,
            connected: true,
            silent_ms: 0,
            version: report.version.clone(),
            applied: report.applied.clone(),
            records: report.records.clone(),
            rejections: report.rejections.clone(),
            views: views.to_vec(),
            inbound: report.inbound.clone(),
        };
        let replica = self.replica.clone();
        self.merge(&replica, &entry, now_ms)
    }

    /// A pod's subscriptions changed at this replica. Nothing happens before its first report.
    pub fn set_views(&mut self, pod_uid: &str, views: &[String]) {
        self.change_own(pod_uid, None, |seat| seat.views = read_views(views).0);
    }

    /// Forgets, of what this replica says of proxies, the services that are kept from them: they
    /// are not expected to route them. Gives whether there were any.
    pub fn forget_services(&mut self, is_kept: impl Fn(&Identity, &str) -> bool) -> bool {
        let stamp = self.sequence + 1;
        for life in self.lives.values_mut() {
            let identity = &life.identity;
            let Some(seat) = life.seats.get_mut(&self.replica) else {
                continue;
            };
            let before = (seat.views.len(), seat.applied.len());
            seat.views.retain(|service| !is_kept(identity, service));
            seat.applied
                .retain(|service, _| !is_kept(identity, service));
            if before != (seat.views.len(), seat.applied.len()) {
                seat.sequence = stamp;
                self.sequence = stamp;
            }
        }
        self.sequence == stamp
    }

    /// A proxy's stream at this replica ended.
    pub fn disconnected(&mut self, pod_uid: &str, process_start_ms: u64) {
        self.change_own(pod_uid, Some(process_start_ms), |seat| {
            seat.connected = false;
        });
    }

    fn change_own(
        &mut self,
        pod_uid: &str,
        process_start_ms: Option<u64>,
        change: impl Fn(&mut crate::life::Seat),
    ) {
        let stamp = self.sequence + 1;
        let (first, last) = match process_start_ms {
            Some(start) => (start, start),
            None => (0, u64::MAX),
        };
        let lives = self
            .lives
            .range_mut((pod_uid.to_owned(), first)..=(pod_uid.to_owned(), last));
        for (_, life) in lives {
            let Some(seat) = life.seats.get_mut(&self.replica) else {
                continue;
            };
            change(seat);
            seat.sequence = stamp;
            self.sequence = stamp;
        }
    }

    /// Merges what `replica` says of one proxy. Gives how many parts were over a bound and left
    /// out.
    ///
    /// # Errors
    /// See [`Refused`]; the table is as before.
    pub fn merge(
        &mut self,
        replica: &str,
        entry: &relay::ProxyEntry,
        now_ms: u64,
    ) -> Result<u64, Refused> {
        check(replica, entry)?;
        let now = signed(now_ms);
        let contact_ms = now.saturating_sub(signed(entry.silent_ms));
        let key = (entry.pod_uid.clone(), entry.process_start_ms);
        if !self.lives.contains_key(&key) {
            if now.saturating_sub(contact_ms) > FORGET_AFTER_MS {
                return Ok(0);
            }
            let gone_ms = self
                .lives_of(&entry.pod_uid)
                .filter_map(|(_, life)| life.gone_ms)
                .max();
            self.make_room(&entry.pod_uid, now_ms)?;
            let life = Life {
                identity: Identity {
                    pod_uid: entry.pod_uid.clone(),
                    namespace: entry.namespace.clone(),
                    pod: entry.pod.clone(),
                    service_account: entry.service_account.clone(),
                },
                gone_ms,
                ..Life::default()
            };
            self.lives.insert(key.clone(), life);
        }
        self.sequence += 1;
        let stamp = self.sequence;
        let dropped = self
            .lives
            .get_mut(&key)
            .map_or(0, |life| life.merge(replica, entry, contact_ms, stamp));
        self.dropped += dropped;
        Ok(dropped)
    }

    fn make_room(&mut self, pod_uid: &str, now_ms: u64) -> Result<(), Refused> {
        if self.lives_of(pod_uid).count() >= MAX_LIVES_OF_A_POD {
            let oldest = self
                .lives_of(pod_uid)
                .min_by_key(|(_, life)| life.contact_ms())
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.lives.remove(&oldest);
                self.dropped += 1;
            }
        }
        if self.lives.len() < self.max_lives {
            return Ok(());
        }
        self.expire(now_ms);
        if self.lives.len() < self.max_lives {
            return Ok(());
        }
        Err(Refused::Full {
            max: self.max_lives,
        })
    }

    pub(crate) fn lives_of(&self, pod_uid: &str) -> impl Iterator<Item = (&LifeKey, &Life)> {
        self.lives
            .range((pod_uid.to_owned(), 0)..=(pod_uid.to_owned(), u64::MAX))
    }

    /// The pod was deleted: nothing is expected of its proxy any more, unless that speaks again.
    /// Its counters stay until it has been silent for [`FORGET_AFTER_MS`].
    pub fn forget(&mut self, pod_uid: &str, now_ms: u64) {
        let lives = self
            .lives
            .range_mut((pod_uid.to_owned(), 0)..=(pod_uid.to_owned(), u64::MAX));
        for (_, life) in lives {
            life.gone_ms = Some(signed(now_ms));
        }
    }

    /// Forgets the proxies that have been silent for [`FORGET_AFTER_MS`].
    pub fn expire(&mut self, now_ms: u64) {
        let now = signed(now_ms);
        self.lives
            .retain(|_, life| now.saturating_sub(life.contact_ms()) <= FORGET_AFTER_MS);
    }

    /// Uids of the pods that something is expected of: the caller forgets those that are no
    /// more.
    pub fn pod_uids(&self) -> impl Iterator<Item = &str> {
        self.lives
            .iter()
            .filter(|(_, life)| !life.is_gone())
            .map(|((pod_uid, _), _)| pod_uid.as_str())
    }

    /// Grows with every change. A sender notes it before [`Table::outgoing`] and gives it as
    /// `since` the next time.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Parts of messages that were left out because of a bound, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Entries of this replica's own proxies that changed after `since`, with those of their
    /// records that grew after it; 0 gives the whole.
    #[must_use]
    pub fn outgoing(&self, since: u64, now_ms: u64) -> Vec<relay::ProxyEntry> {
        self.lives
            .iter()
            .filter_map(|((pod_uid, start), life)| {
                let seat = life.seats.get(&self.replica)?;
                if seat.sequence <= since {
                    return None;
                }
                Some(life.outgoing((pod_uid, *start), seat, since, signed(now_ms)))
            })
            .collect()
    }
}

/// Milliseconds as a signed number, so that a contact may lie before the clock's zero.
pub(crate) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn check(replica: &str, entry: &relay::ProxyEntry) -> Result<(), Refused> {
    if entry.pod_uid.is_empty() {
        return Err(Refused::NoPod);
    }
    let fields = [
        ("the replica's name", replica),
        ("the pod uid", &entry.pod_uid),
        ("the namespace", &entry.namespace),
        ("the pod's name", &entry.pod),
        ("the service account", &entry.service_account),
    ];
    let too_long = fields
        .into_iter()
        .find(|(_, value)| value.len() > MAX_NAME_LEN);
    match too_long {
        Some((field, _)) => Err(Refused::TooLong {
            field,
            max: MAX_NAME_LEN,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(pod_uid: &str, silent_ms: u64) -> relay::ProxyEntry {
        relay::ProxyEntry {
            pod_uid: pod_uid.to_owned(),
            sequence: 1,
            silent_ms,
            ..Default::default()
        }
    }

    #[test]
    fn a_full_table_refuses_new_proxies_until_old_ones_are_forgotten() {
        let mut table = Table::new("r", 0);
        table.max_lives = 2;
        table.merge("a", &entry("p1", 0), 0).unwrap();
        table.merge("a", &entry("p2", 0), 1000).unwrap();
        assert_eq!(
            table.merge("a", &entry("p3", 0), 2000),
            Err(Refused::Full { max: 2 })
        );
        let later = 500 + FORGET_AFTER_MS as u64;
        table.merge("a", &entry("p3", 0), later).unwrap();
        let pods: Vec<_> = table.pod_uids().collect();
        assert_eq!(pods, ["p2", "p3"]);
    }
}
