//! Who sends requests to this pod, by address: cumulative, and bounded.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, header::USER_AGENT};
use parking_lot::Mutex;
use sluice_evidence::v1;
use tokio::time::Instant;

/// Most addresses that are told apart.
const MAX_SOURCES: usize = 256;
/// An address that was away for longer is forgotten when there is no room.
const KEEP: Duration = Duration::from_secs(600);
/// How those begin that watch a pod and are not its users: the kubelet and Prometheus. Who lies
/// about it hides from the condition Bypassed; all requests count where claims are compared.
const WATCHERS: [&[u8]; 2] = [b"kube-probe/", b"Prometheus/"];

/// The counters of one address.
#[derive(Debug, Default)]
pub struct Source {
    requests: AtomicU64,
    probes: AtomicU64,
}

impl Source {
    /// A request came.
    pub fn request(&self, headers: &HeaderMap) {
        self.requests.fetch_add(1, Relaxed);
        let agent = headers.get(USER_AGENT).map(http::HeaderValue::as_bytes);
        if agent.is_some_and(|agent| WATCHERS.iter().any(|watcher| agent.starts_with(watcher))) {
            self.probes.fetch_add(1, Relaxed);
        }
    }

    /// A raw connection came. One whose client says nothing first may be a TCP probe.
    pub fn connection(&self, client_spoke: bool) {
        self.requests.fetch_add(1, Relaxed);
        if !client_spoke {
            self.probes.fetch_add(1, Relaxed);
        }
    }

    fn read(&self) -> (u64, u64) {
        // In this order, so that there are never more probes than requests.
        let probes = self.probes.load(Relaxed);
        (self.requests.load(Relaxed), probes)
    }
}

/// All addresses.
#[derive(Debug, Default)]
pub struct Sources(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    generation: u64,
    sources: HashMap<IpAddr, (Arc<Source>, Instant)>,
    others: Arc<Source>,
}

impl Sources {
    /// The counters of the address that a connection came from; the same ones each time, those
    /// of all others when there is no room.
    pub fn of(&self, address: IpAddr) -> Arc<Source> {
        let address = address.to_canonical();
        let now = Instant::now();
        let mut held = self.0.lock();
        if let Some((source, used)) = held.sources.get_mut(&address) {
            *used = now;
            return source.clone();
        }
        if held.sources.len() >= MAX_SOURCES && !held.make_room(now) {
            return held.others.clone();
        }
        let source = Arc::<Source>::default();
        held.sources.insert(address, (source.clone(), now));
        source
    }

    /// What came so far.
    pub fn report(&self) -> v1::Inbound {
        let held = self.0.lock();
        let mut sources: Vec<_> = held
            .sources
            .iter()
            .map(|(address, (source, _))| {
                let (requests, probes) = source.read();
                v1::Source {
                    address: address.to_string(),
                    requests,
                    probes,
                }
            })
            .filter(|source| source.requests > 0)
            .collect();
        sources.sort_unstable_by(|a, b| a.address.cmp(&b.address));
        v1::Inbound {
            generation: held.generation,
            sources,
            others: held.others.read().0,
        }
    }
}

impl Held {
    /// Forgets addresses without connections that were away for long; whether there were any.
    fn make_room(&mut self, now: Instant) -> bool {
        let before = self.sources.len();
        self.sources.retain(|_, (source, used)| {
            Arc::strong_count(source) > 1 || now.duration_since(*used) < KEEP
        });
        let has_room = self.sources.len() < before;
        self.generation += u64::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        [10, 0, high, low].into()
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_told_apart_up_to_a_bound_and_forgotten_when_long_away() {
        let sources = Sources::default();
        for n in 0..300 {
            sources.of(address(n)).connection(true);
        }
        let told = sources.report();
        assert_eq!(
            (told.sources.len(), told.others, told.generation),
            (256, 44, 0)
        );
        let in_use = sources.of(address(7));
        tokio::time::advance(KEEP).await;
        sources.of(address(900)).connection(true);
        let told = sources.report();
        assert_eq!((told.sources.len(), told.generation), (2, 1));
        in_use.connection(true);
        let seven = sources
            .report()
            .sources
            .into_iter()
            .find(|s| s.address == "10.0.0.7");
        assert_eq!(seven.map(|s| s.requests), Some(2));
    }

    #[test]
    fn probes_and_scrapes_are_told_apart_from_users() {
        let sources = Sources::default();
        let source = sources.of([10, 0, 0, 1].into());
        for agent in ["kube-probe/1.34", "Prometheus/3.0", "curl/8", ""] {
            let agent = http::HeaderValue::from_static(agent);
            source.request(&HeaderMap::from_iter([(USER_AGENT, agent)]));
        }
        let told = sources.report().sources.remove(0);
        assert_eq!((told.requests, told.probes), (4, 2));
    }
}
