//! Requests that come to governed pods from outside the mesh: nobody splits them, and nobody
//! judges what becomes of them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use parking_lot::Mutex;
use sluice_evidence::{Arrivals, InboundCursor, Table};
use tokio::time::Instant;

use super::{
    Controller,
    facts::{Key, PodFacts},
    mapping,
    status::Fact,
    watches::Namespace,
};

/// Over which requests are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// The condition changes at most once in this time.
const EVERY: Duration = Duration::from_secs(10);
/// A smaller share, and fewer requests, are nobody's edge.
const LEAST_SHARE: f64 = 0.01;
const LEAST_REQUESTS: u64 = 10;
/// A proxy that was not heard of for longer is connected no more, ms.
const CONNECTED_MS: i64 = 15_000;
/// Its address is remembered for longer than requests are counted.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Pods that were come to wake their MeshRollouts after this time.
const DELAY: Duration = Duration::from_secs(3);

/// The addresses of pods whose proxies are connected.
#[derive(Default)]
pub struct Meshed {
    /// When a pod was seen there last, and its uid.
    addresses: Mutex<HashMap<IpAddr, (Instant, String)>>,
    /// How far the table was read for pods that were come to.
    read: Mutex<u64>,
}

impl Meshed {
    /// Whether requests from there to any of these Services (`NAMESPACE/NAME`) come through the
    /// mesh. A proxy that may not see a Service passes requests to it on as they are.
    fn has(&self, address: IpAddr, table: &Table, services: &[String]) -> bool {
        let addresses = self.addresses.lock();
        let pod = addresses.get(&address);
        pod.is_some_and(|(_, uid)| table.routes(uid, services))
    }
}

/// What came to the pods of one MeshRollout lately.
#[derive(Default)]
pub struct Bypass {
    cursor: InboundCursor,
    samples: VecDeque<(Instant, Arrivals)>,
    looked: Option<Instant>,
    told: Option<Fact>,
}

/// Requests of the window, by where they came from.
#[derive(Debug, Default, PartialEq)]
struct Shares {
    all: u64,
    outside: u64,
    /// Where most of those from outside came from.
    top: Option<IpAddr>,
}

impl Bypass {
    /// Whether it is time to look again.
    fn is_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now >= looked + EVERY)
    }

    /// When the condition may change although nobody comes any more.
    fn again(&self) -> Option<Instant> {
        self.looked
            .filter(|_| !self.samples.is_empty())
            .map(|looked| looked + EVERY)
    }

    fn sample<'a>(&mut self, table: &Table, pods: impl Iterator<Item = &'a str>, now: Instant) {
        self.looked = Some(now);
        let came = self.cursor.take(table, pods);
        if came != Arrivals::default() {
            self.samples.push_back((now, came));
        }
        self.samples.retain(|(at, _)| *at + WINDOW > now);
    }

    fn shares(&self, is_meshed: impl Fn(IpAddr) -> bool) -> Shares {
        let sum = Arrivals::default();
        let sum = self
            .samples
            .iter()
            .fold(sum, |sum, (_, came)| sum.plus(came));
        let mut shares = Shares {
            all: sum.others,
            ..Shares::default()
        };
        let mut most = 0;
        for (address, came) in sum.from {
            let requests = came.requests.saturating_sub(came.probes);
            shares.all += requests;
            if is_meshed(address) {
                continue;
            }
            shares.outside += requests;
            if requests > most {
                most = requests;
                shares.top = Some(address);
            }
        }
        shares
    }
}

/// The condition. `source`: who most of them came from.
fn fact(shares: &Shares, source: &str) -> Fact {
    let share = shares.outside as f64 / shares.all.max(1) as f64;
    if share < LEAST_SHARE || shares.outside < LEAST_REQUESTS {
        return Fact {
            kind: "Bypassed",
            status: "False",
            reason: "ThroughTheMesh",
            message: "requests to its pods come through the mesh".to_owned(),
        };
    }
    Fact {
        kind: "Bypassed",
        status: "True",
        reason: "OutsideTheMesh",
        message: format!(
            "{:.0} % of the requests to its pods in the last minute came from outside the mesh, most of them from {source}: \
             they are neither split nor judged. Inject a sidecar into their source, or send them through a Sluice gateway; \
             where it has one, let its namespace see the Service (annotation networking.istio.io/exportTo)",
            (100.0 * share).max(1.0)
        ),
    }
}

impl Controller {
    /// Remembers where connected proxies are, and wakes those whose pods were come to.
    pub(super) fn survey(&self) {
        let now = Instant::now();
        let (connected, came_to) = self.hub.with_table(|table| {
            let connected = table.heard(CONNECTED_MS, self.hub.now_ms());
            let connected: Vec<_> = connected
                .filter_map(|(namespace, name, uid)| {
                    let address = self.address_of(namespace, name, uid)?;
                    Some((address, (now, uid.to_owned())))
                })
                .collect();
            let mut read = self.meshed.read.lock();
            let came_to: Vec<_> = table
                .came_to(*read)
                .filter_map(|(namespace, name)| self.world.pods.get(namespace, name))
                .collect();
            *read = table.sequence();
            (connected, came_to)
        });
        let mut addresses = self.meshed.addresses.lock();
        addresses.retain(|_, (seen, _)| now.duration_since(*seen) < REMEMBERED);
        addresses.extend(connected);
        drop(addresses);
        for pod in came_to {
            for key in mapping::of_pod(&self.world, &self.own_namespace, &pod) {
                self.queue.wake_at(key, now + DELAY);
            }
        }
    }

    /// Where a pod is, if it is still the one of this uid.
    pub(super) fn address_of(&self, namespace: &str, name: &str, uid: &str) -> Option<IpAddr> {
        let pod = self.world.pods.get(namespace, name)?;
        pod.address.filter(|_| pod.meta.uid == uid)
    }

    /// The condition Bypassed of a MeshRollout over these Services, once anything is known, and
    /// when to look again.
    pub(super) fn bypassed(
        &self,
        key: &Key,
        namespace: &Namespace,
        services: &[String],
        bypass: &mut Bypass,
    ) -> (Option<Fact>, Option<Instant>) {
        let now = Instant::now();
        // A leader that has not heard of every proxy yet would take their pods for outsiders.
        if bypass.is_due(now) && self.relay_is_complete() {
            let pods = governed(namespace, services);
            let names: Vec<_> = services
                .iter()
                .map(|name| format!("{}/{name}", key.namespace))
                .collect();
            let shares = self.hub.with_table(|table| {
                let with_proxy = pods.filter(|uid| table.knows(uid));
                bypass.sample(table, with_proxy, now);
                bypass.shares(|address| self.meshed.has(address, table, &names))
            });
            let is_known = bypass.told.is_some() || shares.all > 0;
            let source = shares.top.map(|address| self.name_of(address));
            let source = source.unwrap_or_default();
            bypass.told = is_known.then(|| fact(&shares, &source));
        }
        (bypass.told.clone(), bypass.again())
    }

    /// The pod at an address, or the address where there is none.
    fn name_of(&self, address: IpAddr) -> String {
        let is_there = |pod: &PodFacts| pod.address == Some(address) && !pod.on_host && pod.lives();
        self.world.pods.find(is_there).map_or_else(
            || address.to_string(),
            |pod| format!("pod {}/{} ({address})", pod.meta.namespace, pod.meta.name),
        )
    }
}

/// Uids of the pods that the Services take.
fn governed<'a>(namespace: &'a Namespace, services: &'a [String]) -> impl Iterator<Item = &'a str> {
    let services: Vec<_> = namespace
        .services
        .iter()
        .filter(|service| services.contains(&service.meta.name))
        .collect();
    let pods = namespace.pods.iter();
    let taken = pods.filter(move |pod| services.iter().any(|s| s.takes(&pod.meta.labels)));
    taken.map(|pod| pod.meta.uid.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_evidence::{
        relay::ProxyEntry,
        v1::{Inbound, Source},
    };

    use super::*;

    const MESHED: &str = "10.0.0.1";
    const NGINX: &str = "10.0.0.9";

    fn came(sequence: u64, sources: &[(&str, u64, u64)]) -> ProxyEntry {
        let source = |&(address, requests, probes): &(&str, u64, u64)| Source {
            address: address.to_owned(),
            requests,
            probes,
        };
        ProxyEntry {
            pod_uid: "web-1".to_owned(),
            sequence,
            inbound: Some(Inbound {
                generation: 0,
                sources: sources.iter().map(source).collect(),
                others: 0,
            }),
            ..ProxyEntry::default()
        }
    }

    struct Scene {
        table: Table,
        bypass: Bypass,
        sequence: u64,
    }

    impl Scene {
        fn new() -> Self {
            let mut scene = Self {
                table: Table::new("leader", 0),
                bypass: Bypass::default(),
                sequence: 0,
            };
            scene.look(&[]);
            scene
        }

        /// Counters after some time, and what is said then.
        fn look(&mut self, sources: &[(&str, u64, u64)]) -> Fact {
            self.sequence += 1;
            let entry = came(self.sequence, sources);
            self.table.merge("serving", &entry, 0).unwrap();
            let pods = ["web-1"].into_iter();
            self.bypass.sample(&self.table, pods, Instant::now());
            let shares = self.bypass.shares(|address| address.to_string() == MESHED);
            let source = shares.top.map_or_else(String::new, |top| top.to_string());
            fact(&shares, &source)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_from_outside_are_told_with_their_share_their_source_and_what_to_do() {
        let told = Scene::new().look(&[(MESHED, 300, 0), (NGINX, 100, 0)]);
        assert_eq!((told.kind, told.status), ("Bypassed", "True"));
        for part in ["25 %", NGINX, "Inject a sidecar", "gateway"] {
            assert!(told.message.contains(part), "{}", told.message);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn probes_scrapes_and_a_few_requests_are_no_bypass() {
        let told = Scene::new().look(&[(MESHED, 300, 0), (NGINX, 70, 70)]);
        assert_eq!(told.status, "False");
        let told = Scene::new().look(&[(MESHED, 10_000, 0), (NGINX, 90, 0)]);
        assert_eq!(told.status, "False");
        let told = Scene::new().look(&[(MESHED, 10, 0), (NGINX, 9, 0)]);
        assert_eq!(told.status, "False");
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_after_the_last_request_from_outside_it_is_over() {
        let mut scene = Scene::new();
        assert_eq!(scene.look(&[(NGINX, 100, 0)]).status, "True");
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(scene.look(&[(NGINX, 100, 0)]).status, "True");
        assert!(scene.bypass.again().is_some(), "it looks again by itself");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(scene.look(&[(NGINX, 100, 0)]).status, "False");
        tokio::time::advance(Duration::from_secs(60)).await;
        scene.look(&[(NGINX, 100, 0)]);
        assert_eq!(scene.bypass.again(), None, "nothing to wait for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_does_not_see_the_service_brings_its_requests_from_outside() {
        let mut table = Table::new("leader", 0);
        for (uid, view) in [("sees", "shop/web"), ("blind", "shop/other")] {
            let entry = ProxyEntry {
                pod_uid: uid.to_owned(),
                views: vec![view.to_owned()],
                ..ProxyEntry::default()
            };
            table.merge("serving", &entry, 0).unwrap();
        }
        let meshed = Meshed::default();
        let at = |last: u8| IpAddr::from([10, 0, 0, last]);
        let pods = [(1, "sees"), (2, "blind"), (3, "unheard")];
        let pods = pods.map(|(last, uid)| (at(last), (Instant::now(), uid.to_owned())));
        meshed.addresses.lock().extend(pods);
        let services = ["shop/web".to_owned()];
        let has = [1, 2, 3, 4].map(|last| meshed.has(at(last), &table, &services));
        assert_eq!(has, [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_leader_finds_in_the_counters_is_not_of_the_last_minute() {
        let mut scene = Scene {
            bypass: Bypass::default(),
            ..Scene::new()
        };
        assert_eq!(scene.look(&[(NGINX, 1_000_000, 0)]).status, "False");
        assert!(!scene.bypass.is_due(Instant::now()));
        tokio::time::advance(EVERY).await;
        assert!(scene.bypass.is_due(Instant::now()));
        assert_eq!(scene.look(&[(NGINX, 1_000_100, 0)]).status, "True");
    }
}
