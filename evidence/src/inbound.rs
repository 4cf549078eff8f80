//! Who sent requests to a proxy's own pod, by address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::Table;
use crate::table::{LifeKey, signed};
use crate::v1;

/// Most addresses of one life.
const MAX_SOURCES: usize = 256;

/// Requests from one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// All of them.
    pub requests: u64,
    /// Those among them that are, or may be, probes and scrapes.
    pub probes: u64,
}

/// Cumulative counters of what came in, in one life of one proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inbound {
    generation: u64,
    sources: BTreeMap<IpAddr, Came>,
    others: u64,
}

/// What came in between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// By address.
    pub from: BTreeMap<IpAddr, Came>,
    /// Of addresses that are not told apart.
    pub others: u64,
}

impl Inbound {
    /// Takes in what a proxy says: of an older generation nothing, of the same the larger
    /// counters, of a newer one all. Gives whether anything grew, and how many addresses are
    /// left out.
    pub(crate) fn merge(&mut self, told: &v1::Inbound) -> (bool, u64) {
        if told.generation < self.generation {
            return (false, 0);
        }
        let mut grew = told.generation > self.generation;
        if grew {
            self.generation = told.generation;
            self.sources.clear();
        }
        let mut dropped = 0;
        for source in &told.sources {
            let Ok(address) = source.address.parse::<IpAddr>() else {
                dropped += 1;
                continue;
            };
            if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&address) {
                dropped += 1;
                continue;
            }
            let held = self.sources.entry(address.to_canonical()).or_default();
            let larger = Came {
                requests: held.requests.max(source.requests),
                probes: held.probes.max(source.probes),
            };
            grew |= larger != *held;
            *held = larger;
        }
        grew |= told.others > self.others;
        self.others = self.others.max(told.others);
        (grew, dropped)
    }

    pub(crate) fn to_wire(&self) -> v1::Inbound {
        let source = |(address, came): (&IpAddr, &Came)| v1::Source {
            address: address.to_string(),
            requests: came.requests,
            probes: came.probes,
        };
        v1::Inbound {
            generation: self.generation,
            sources: self.sources.iter().map(source).collect(),
            others: self.others,
        }
    }
}

/// How far somebody has read what came in to some pods.
#[derive(Debug, Clone, Default)]
pub struct InboundCursor {
    read: BTreeMap<LifeKey, Inbound>,
}

impl InboundCursor {
    /// What came in to these pods (their uids) since the last call; nothing of a proxy that is
    /// seen for the first time.
    pub fn take<'a>(&mut self, table: &Table, pods: impl Iterator<Item = &'a str>) -> Arrivals {
        let mut arrivals = Arrivals::default();
        let mut read = BTreeMap::new();
        for (key, life) in pods.flat_map(|uid| table.lives_of(uid)) {
            let now = &life.inbound;
            if let Some(before) = self.read.get(key) {
                arrivals.add(before, now);
            }
            read.insert(key.clone(), now.clone());
        }
        self.read = read;
        arrivals
    }
}

impl Arrivals {
    fn add(&mut self, before: &Inbound, now: &Inbound) {
        for (address, now) in &now.sources {
            let before = before.sources.get(address).copied().unwrap_or_default();
            // An address that was forgotten in between begins anew.
            let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let more = Came {
                requests: since(now.requests, before.requests),
                probes: since(now.probes, before.probes),
            };
            if more != Came::default() {
                let sum = self.from.entry(*address).or_default();
                sum.requests = sum.requests.saturating_add(more.requests);
                sum.probes = sum.probes.saturating_add(more.probes);
            }
        }
        let others = now.others.saturating_sub(before.others);
        self.others = self.others.saturating_add(others);
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (address, came) in &other.from {
            let sum = self.from.entry(*address).or_default();
            sum.requests = sum.requests.saturating_add(came.requests);
            sum.probes = sum.probes.saturating_add(came.probes);
        }
        self.others = self.others.saturating_add(other.others);
        self
    }
}

impl Table {
    /// (namespace, name, uid) of the pods whose proxies were heard of in the last `within_ms`.
    pub fn heard(&self, within_ms: i64, now_ms: u64) -> impl Iterator<Item = (&str, &str, &str)> {
        let now = signed(now_ms);
        self.lives
            .iter()
            .filter(move |(_, life)| now.saturating_sub(life.contact_ms()) <= within_ms)
            .map(|((uid, _), life)| {
                let identity = &life.identity;
                (
                    identity.namespace.as_str(),
                    identity.pod.as_str(),
                    uid.as_str(),
                )
            })
    }

    /// (namespace, name) of the pods to which anybody came after `since`.
    pub fn came_to(&self, since: u64) -> impl Iterator<Item = (&str, &str)> {
        self.lives
            .values()
            .filter(move |life| life.inbound_changed > since)
            .map(|life| (life.identity.namespace.as_str(), life.identity.pod.as_str()))
    }

    /// Whether the proxy of this pod was ever heard of.
    #[must_use]
    pub fn knows(&self, pod_uid: &str) -> bool {
        self.lives_of(pod_uid).next().is_some()
    }

    /// Whether the proxy of this pod routes any of these services (`NAMESPACE/NAME`), by the word
    /// of any replica: one that it has just come to may not have heard of them yet.
    #[must_use]
    pub fn routes(&self, pod_uid: &str, services: &[String]) -> bool {
        let lives = self.lives_of(pod_uid);
        let mut seats = lives.flat_map(|(_, life)| life.seats.values());
        seats.any(|seat| services.iter().any(|service| seat.views.contains(service)))
    }

    /// All that came in to a pod from one address, in all lives of its proxy; and whether that
    /// may be less than there was: a life that is silent, or addresses that are not told apart.
    #[must_use]
    pub fn came_from(&self, pod_uid: &str, address: IpAddr, now_ms: u64) -> (u64, bool) {
        let now = signed(now_ms);
        let (mut came, mut vague, mut heard) = (0_u64, false, false);
        for (_, life) in self.lives_of(pod_uid) {
            let source = life.inbound.sources.get(&address);
            came = came.saturating_add(source.map_or(0, |source| source.requests));
            heard |= now.saturating_sub(life.contact_ms()) <= FRESH_MS;
            vague |= life.inbound.others > 0 || life.inbound.generation > 0;
        }
        let one_life = self.lives_of(pod_uid).count() == 1;
        (came, vague || !heard || !one_life)
    }
}

/// What a proxy says that it sent to the candidate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The namespace of its pod.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// Requests, but for those that reached no pod.
    pub requests: u64,
}

impl Table {
    /// What each proxy says that it sent to `revision` under fences after `after_fence`.
    #[must_use]
    pub fn claims(&self, services: &[String], revision: &str, after_fence: i64) -> Vec<Claim> {
        let mut claims = Vec::<Claim>::new();
        for ((pod_uid, _), life) in &self.lives {
            let about = life.records.iter().filter(|(key, _)| {
                key.fence > after_fence
                    && key.revision == revision
                    && services.contains(&key.service)
            });
            let requests = about.fold(0_u64, |sum, (_, kept)| {
                let sent = kept
                    .candidate
                    .coined
                    .saturating_add(kept.candidate.uncoined);
                sum.saturating_add(sent.saturating_sub(kept.candidate.unreached))
            });
            match claims.last_mut() {
                Some(last) if last.pod_uid == *pod_uid => {
                    last.requests = last.requests.saturating_add(requests);
                }
                _ if requests > 0 => claims.push(Claim {
                    namespace: life.identity.namespace.clone(),
                    pod: life.identity.pod.clone(),
                    pod_uid: pod_uid.clone(),
                    requests,
                }),
                _ => {}
            }
        }
        claims
    }
}

/// Whose last word is older may have counted more since.
const FRESH_MS: i64 = 5_000;
