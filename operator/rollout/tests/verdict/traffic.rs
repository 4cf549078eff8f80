//! Simulated traffic: every request is placed by the coin, and fails by its arm's rate.

use sluice_evidence::{ArmDelta, Growth, Stratum};
use sluice_rollout::observation::ClosedEvidence;
use sluice_rollout::policy::Rules;
use sluice_rollout::verdict::Analysis;

pub fn rules() -> Rules {
    Rules {
        max_error_rate: 0.01,
        max_relative_risk: 1.5,
        alpha: 0.001,
        promotion_alpha: 0.05,
        hung_after_ms: 10_000,
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    /// Uniform within (0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// How many of `n` happen, each with chance `p`: by the gaps between them.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p <= 0.0 {
            return 0;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let miss = (1.0 - p).ln();
        let mut left = n as f64;
        let mut hits = 0;
        loop {
            left -= (self.unit().ln() / miss).floor() + 1.0;
            if left < 0.0 {
                return hits;
            }
            hits += 1;
        }
    }
}

/// The traffic of one moment.
#[derive(Clone, Copy, Default)]
pub struct Scene {
    /// Share of the candidate.
    pub weight: f64,
    /// Failures a request.
    pub stable: f64,
    /// Failures a request.
    pub candidate: f64,
    /// 4xx answers a request of the candidate; stable gives none.
    pub candidate_4xx: f64,
}

impl Scene {
    /// Failures of either arm, no 4xx answers.
    pub fn of(weight: f64, stable: f64, candidate: f64) -> Self {
        Self {
            weight,
            stable,
            candidate,
            ..Self::default()
        }
    }

    /// The candidate is as good as stable.
    pub fn same(weight: f64, rate: f64) -> Self {
        Self::of(weight, rate, rate)
    }
}

/// One rollout under simulated traffic.
pub struct Run {
    pub analysis: Analysis,
    pub random: Random,
    pub now: i64,
    pub fence: i64,
    pub requests: (u64, u64),
    pub failures: (u64, u64),
}

impl Run {
    pub fn new(seed: u64) -> Self {
        Self::by(&rules(), seed)
    }

    /// Judged by other rules.
    pub fn by(rules: &Rules, seed: u64) -> Self {
        Self {
            analysis: Analysis::new(rules, ClosedEvidence::default()),
            random: Random(seed.wrapping_mul(0x1000_0001)),
            now: 1_000_000,
            fence: 1,
            requests: (0, 0),
            failures: (0, 0),
        }
    }

    /// `ms` of traffic at `per_second` requests through `proxies`, each of which reports every
    /// 250 ms, or after 50 ms in which a request failed.
    pub fn traffic(&mut self, scene: Scene, per_second: u64, proxies: u64, ms: i64) {
        let mut open = vec![Stratum::default(); proxies as usize];
        let rate = per_second as f64 / proxies as f64 / 20.0;
        for tick in 1..=ms / 50 {
            self.now += 50;
            for (proxy, stratum) in open.iter_mut().enumerate() {
                let whole = rate.floor();
                let n = whole as u64 + u64::from(self.random.unit() < rate - whole);
                let seen = draw(&mut self.random, scene, n);
                plus(stratum, &seen);
                let failed = stratum.stable.failures + stratum.candidate.failures > 0;
                if failed || tick % 5 == 0 {
                    let stratum = std::mem::take(stratum);
                    self.add(proxy, &stratum);
                    let wrong = failed || stratum.candidate.client_errors > 0;
                    if wrong && self.condemned() {
                        return;
                    }
                }
            }
        }
    }

    /// `n` requests of one report.
    pub fn report(&mut self, scene: Scene, n: u64) {
        let stratum = draw(&mut self.random, scene, n);
        self.now += 250;
        self.add(0, &stratum);
    }

    fn add(&mut self, proxy: usize, stratum: &Stratum) {
        self.requests.0 += stratum.stable.requests;
        self.requests.1 += stratum.candidate.requests;
        self.failures.0 += stratum.stable.failures;
        self.failures.1 += stratum.candidate.failures;
        let growth = Growth {
            fence: self.fence,
            reporter: format!("shop/proxy-{proxy}"),
            stratum: *stratum,
            pods: Vec::new(),
        };
        self.analysis.add(&growth, self.now);
    }

    pub fn condemned(&mut self) -> bool {
        self.view().condemned.is_some()
    }

    pub fn view(&mut self) -> sluice_rollout::observation::EvidenceView {
        self.analysis.view(self.fence, self.now)
    }
}

/// One stratum of a proxy of which nothing more is known.
pub fn see(analysis: &mut Analysis, fence: i64, stratum: &Stratum, at: i64) {
    let growth = Growth {
        fence,
        stratum: *stratum,
        ..Growth::default()
    };
    analysis.add(&growth, at);
}

pub fn draw(random: &mut Random, scene: Scene, n: u64) -> Stratum {
    let candidate = random.binomial(n, scene.weight);
    Stratum {
        stable: arm(random, n - candidate, scene.stable),
        candidate: ArmDelta {
            client_errors: random.binomial(candidate, scene.candidate_4xx),
            ..arm(random, candidate, scene.candidate)
        },
    }
}

fn arm(random: &mut Random, requests: u64, rate: f64) -> ArmDelta {
    ArmDelta {
        requests,
        failures: random.binomial(requests, rate),
        client_errors: 0,
    }
}

pub fn plus(sum: &mut Stratum, more: &Stratum) {
    sum.stable.requests += more.stable.requests;
    sum.stable.failures += more.stable.failures;
    sum.candidate.requests += more.candidate.requests;
    sum.candidate.failures += more.candidate.failures;
    sum.candidate.client_errors += more.candidate.client_errors;
}

/// The p-quantile of what was seen.
pub fn quantile(mut seen: Vec<u64>, p: f64) -> u64 {
    seen.sort_unstable();
    seen[((seen.len() - 1) as f64 * p) as usize]
}
