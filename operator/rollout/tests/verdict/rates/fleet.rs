//! Proxies whose reports are lost or come twice, which start anew and follow late, under a leader
//! that is replaced: through the real table and cursor.

use std::collections::BTreeMap;

use sluice_evidence::{
    Cursor, Identity, Table,
    v1::{ArmCounts, ProxyReport, Record},
};
use sluice_rollout::{observation::ClosedEvidence, verdict::Analysis};

use crate::traffic::{Random, Scene, draw, rules};

const SERVICE: &str = "shop/web";
const REVISION: &str = "r2";
/// Between two reports.
const EVERY_MS: i64 = 250;
/// A request that has not ended by then has failed.
const HUNG_MS: i64 = 10_000;

/// Chances, each of one report.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// It does not arrive; the next one tells of the same counters.
    pub lost: f64,
    /// The one before arrives once more, after it.
    pub replayed: f64,
    /// The proxy starts anew; what it counted since its last report is gone.
    pub restarted: f64,
    /// The proxy still routes by the weight before.
    pub late: f64,
    /// Another leader begins, from what was written and what proxies tell it.
    pub leader_replaced: f64,
    /// Of a request, in either arm: that it never ends.
    pub hung: f64,
}

struct Proxy {
    identity: Identity,
    started_ms: u64,
    /// By fence.
    records: BTreeMap<i64, Record>,
    before: Option<ProxyReport>,
}

/// A request that hangs.
struct Hung {
    ends: i64,
    proxy: usize,
    fence: i64,
    is_candidate: bool,
}

/// One rollout, judged from what its proxies report.
pub struct Fleet {
    faults: Faults,
    proxies: Vec<Proxy>,
    hung: Vec<Hung>,
    table: Table,
    cursor: Cursor,
    analysis: Analysis,
    /// As the state holds it.
    closed: ClosedEvidence,
    random: Random,
    now: i64,
    fence: i64,
    weight: f64,
    weight_before: f64,
    condemned: bool,
}

impl Fleet {
    pub fn new(seed: u64, proxies: usize, faults: Faults) -> Self {
        let proxy = |n| Proxy {
            identity: Identity {
                pod_uid: format!("uid-{n}"),
                namespace: "shop".to_owned(),
                pod: format!("proxy-{n}"),
                service_account: "shop".to_owned(),
            },
            started_ms: 1,
            records: BTreeMap::new(),
            before: None,
        };
        Self {
            faults,
            proxies: (0..proxies).map(proxy).collect(),
            hung: Vec::new(),
            table: Table::new("leader", 1),
            cursor: Cursor::default(),
            analysis: Analysis::new(&rules(), ClosedEvidence::default()),
            closed: ClosedEvidence::default(),
            random: Random(seed.wrapping_mul(0x1000_0001)),
            now: 1_000_000,
            fence: 0,
            weight: 0.0,
            weight_before: 0.0,
            condemned: false,
        }
    }

    /// Another weight, by a new fence: what was seen under the one before is closed.
    pub fn shift(&mut self, weight: f64) {
        let view = self.analysis.view(self.fence, self.now);
        if self.fence > 0 {
            self.closed = view.closed;
        }
        self.fence += 1;
        self.weight_before = std::mem::replace(&mut self.weight, weight);
    }

    /// Seconds of traffic in which each request fails with this chance, whatever its arm.
    pub fn traffic(&mut self, rate: f64, per_second: u64, seconds: i64) {
        let each = per_second as f64 * EVERY_MS as f64 / 1_000.0 / self.proxies.len() as f64;
        for _ in 0..seconds * 1_000 / EVERY_MS {
            self.now += EVERY_MS;
            for proxy in 0..self.proxies.len() {
                let more = self.random.unit() < each.fract();
                self.requests(proxy, rate, each as u64 + u64::from(more));
            }
            self.end_hung();
            for proxy in 0..self.proxies.len() {
                self.report(proxy);
            }
            if self.random.unit() < self.faults.leader_replaced {
                self.replace_leader();
            }
            self.look();
        }
    }

    pub fn condemned(&self) -> bool {
        self.condemned
    }

    fn requests(&mut self, proxy: usize, rate: f64, requests: u64) {
        let is_late = self.fence > 1 && self.random.unit() < self.faults.late;
        let (fence, weight) = if is_late {
            (self.fence - 1, self.weight_before)
        } else {
            (self.fence, self.weight)
        };
        let hung = self.random.binomial(requests, self.faults.hung);
        for _ in 0..hung {
            let is_candidate = self.random.unit() < weight;
            self.hung.push(Hung {
                ends: self.now + HUNG_MS,
                proxy,
                fence,
                is_candidate,
            });
        }
        let scene = Scene::same(weight, rate);
        let seen = draw(&mut self.random, scene, requests - hung);
        let (stable, candidate) = (seen.stable, seen.candidate);
        self.proxies[proxy].count(fence, false, stable.requests, stable.failures);
        self.proxies[proxy].count(fence, true, candidate.requests, candidate.failures);
    }

    fn end_hung(&mut self) {
        let now = self.now;
        let (ended, left) = std::mem::take(&mut self.hung)
            .into_iter()
            .partition(|hung| hung.ends <= now);
        self.hung = left;
        for hung in ended {
            self.proxies[hung.proxy].count(hung.fence, hung.is_candidate, 1, 1);
        }
    }

    fn report(&mut self, proxy: usize) {
        let happens = |random: &mut Random, chance| random.unit() < chance;
        let one = &mut self.proxies[proxy];
        if happens(&mut self.random, self.faults.restarted) {
            one.records.clear();
            one.started_ms = self.now as u64;
            return;
        }
        if happens(&mut self.random, self.faults.lost) {
            return;
        }
        let report = ProxyReport {
            process_start_ms: one.started_ms,
            records: one.records.values().cloned().collect(),
            ..ProxyReport::default()
        };
        let again = one.before.replace(report.clone());
        let again = again.filter(|_| happens(&mut self.random, self.faults.replayed));
        for told in [Some(report), again].into_iter().flatten() {
            self.table
                .report(&one.identity, &told, &[], self.now as u64)
                .unwrap();
        }
    }

    fn replace_leader(&mut self) {
        self.table = Table::new("leader", self.now as u64);
        self.cursor = Cursor::default();
        self.analysis = Analysis::new(&rules(), self.closed.clone());
    }

    fn look(&mut self) {
        let services = [SERVICE.to_owned()];
        let after = self.closed.through_fence;
        let mut failed = false;
        for growth in self.cursor.take(&self.table, &services, REVISION, after) {
            failed |= growth.stratum.candidate.failures > 0;
            self.analysis.add(&growth, self.now);
        }
        if failed && !self.condemned {
            let view = self.analysis.view(self.fence, self.now);
            self.condemned = view.condemned.is_some();
        }
    }
}

impl Proxy {
    fn count(&mut self, fence: i64, is_candidate: bool, requests: u64, failures: u64) {
        let record = self.records.entry(fence).or_insert_with(|| Record {
            service: SERVICE.to_owned(),
            revision: REVISION.to_owned(),
            fence,
            stable: Some(ArmCounts::default()),
            candidate: Some(ArmCounts::default()),
            pods: Vec::new(),
        });
        let arm = if is_candidate {
            &mut record.candidate
        } else {
            &mut record.stable
        };
        let counts = arm.get_or_insert_default();
        counts.coined += requests;
        counts.server_errors += failures;
    }
}
