//! One proxy that lies, one pod that is broken, one gateway that bears witness alone.

use sluice_evidence::{ArmDelta, Growth, Stratum};
use sluice_rollout::observation::{ClosedEvidence, EvidenceView, Witness};
use sluice_rollout::verdict::{Analysis, Ignored};

use crate::traffic::{Random, Scene, draw, quantile, rules};

/// Many proxies, each with a rate of its own; the candidate with one pod or two.
struct Mesh {
    analysis: Analysis,
    random: Random,
    now: i64,
    fence: i64,
    /// Requests a second of each proxy.
    rates: Vec<f64>,
    scene: Scene,
    /// The first proxy says that all its candidate requests fail, and all in one pod.
    forges: bool,
    /// The candidate's pods, with the failures a request that each adds to the scene's.
    pods: Vec<f64>,
    /// Pods that were there before those.
    deleted: usize,
    failures: u64,
}

const EVERY_MS: i64 = 250;

impl Mesh {
    fn new(seed: u64, rates: &[f64], scene: Scene) -> Self {
        Self {
            analysis: Analysis::new(&rules(), ClosedEvidence::default()),
            random: Random(seed.wrapping_mul(0x1000_0001)),
            now: 1_000_000,
            fence: 1,
            rates: rates.to_vec(),
            scene,
            forges: false,
            pods: Vec::new(),
            deleted: 0,
            failures: 0,
        }
    }

    /// A quarter of a second; what is known then.
    fn report(&mut self) -> EvidenceView {
        self.now += EVERY_MS;
        for proxy in 0..self.rates.len() {
            let growth = self.growth(proxy);
            self.failures += growth.stratum.candidate.failures;
            self.analysis.add(&growth, self.now);
        }
        self.analysis.view(self.fence, self.now)
    }

    fn growth(&mut self, proxy: usize) -> Growth {
        let mean = self.rates[proxy] * EVERY_MS as f64 / 1_000.0;
        let more = self.random.unit() < mean.fract();
        let mut stratum = draw(&mut self.random, self.scene, mean as u64 + u64::from(more));
        let pods = self.spread(&mut stratum.candidate);
        if self.forges && proxy == 0 {
            stratum.candidate.requests = stratum.candidate.requests.max(1);
            stratum.candidate.failures = stratum.candidate.requests;
            stratum.stable.failures = 0;
            return Growth {
                fence: self.fence,
                reporter: format!("shop/proxy-{proxy}"),
                pods: vec![("web-0".to_owned(), stratum.candidate)],
                stratum,
            };
        }
        Growth {
            fence: self.fence,
            reporter: format!("shop/proxy-{proxy}"),
            stratum,
            pods,
        }
    }

    /// Shares the candidate's requests out among its pods.
    fn spread(&mut self, candidate: &mut ArmDelta) -> Vec<(String, ArmDelta)> {
        let mut left = candidate.requests;
        let mut broken = 0;
        let mut spread = Vec::new();
        for (n, rate) in self.pods.iter().enumerate() {
            let rest = self.pods.len() - n;
            let requests = self.random.binomial(left, 1.0 / rest as f64);
            left -= requests;
            let failures = self.random.binomial(requests, *rate);
            broken += failures;
            let delta = ArmDelta {
                requests,
                failures,
                client_errors: 0,
            };
            spread.push((format!("web-{}", self.deleted + n), delta));
        }
        candidate.failures = (candidate.failures + broken).min(candidate.requests);
        spread
    }

    /// Reports until something is so, at most for so many seconds; the last view.
    fn until(&mut self, seconds: i64, holds: impl Fn(&EvidenceView) -> bool) -> EvidenceView {
        let end = self.now + seconds * 1_000;
        loop {
            let view = self.report();
            if holds(&view) || self.now >= end {
                return view;
            }
        }
    }
}

fn accused(view: &EvidenceView) -> Option<Witness> {
    view.contested
        .as_ref()
        .map(|contest| contest.witness.clone())
}

#[test]
fn one_forging_proxy_among_five_or_fifty_condemns_no_good_release_and_is_named() {
    for (proxies, per_second, rate) in [
        (5, 100.0, 0.001),
        (50, 20.0, 0.001),
        (50, 20.0, 0.0),
        (5, 100.0, 0.01),
        (2, 100.0, 0.001),
    ] {
        let runs = 100;
        let mut condemned = 0;
        let mut named = 0;
        for seed in 1..=runs {
            let mut mesh = Mesh::new(seed, &vec![per_second; proxies], Scene::of(0.1, rate, rate));
            mesh.pods = vec![0.0, 0.0];
            // Half of them lie from the first request of the step on.
            mesh.until(if seed % 2 == 0 { 20 } else { 0 }, |_| false);
            mesh.forges = true;
            let view = mesh.until(30, |view| view.condemned.is_some());
            condemned += u64::from(view.condemned.is_some());
            let forger = Witness::Proxy("shop/proxy-0".to_owned());
            named += u64::from(accused(&view) == Some(forger));
            assert!(!view.sufficient, "a contested release is not promoted");
        }
        println!(
            "a forger among {proxies} at {rate}: {condemned} of {runs} condemned, {named} named"
        );
        assert!(condemned <= runs / 20 && named >= runs * 9 / 10);
    }
}

#[test]
fn a_contested_candidate_is_condemned_as_soon_as_others_see_it_fail() {
    let took = (1..=100).map(|seed| {
        let mut mesh = Mesh::new(seed, &[100.0; 5], Scene::of(0.1, 0.001, 0.001));
        mesh.forges = true;
        let view = mesh.until(30, |view| view.contested.is_some());
        assert!(
            view.contested.is_some() && view.condemned.is_none(),
            "{view:?}"
        );
        mesh.scene.candidate = 0.33;
        let start = mesh.now;
        let view = mesh.until(60, |view| view.condemned.is_some());
        assert!(view.condemned.is_some() && view.contested.is_none());
        (mesh.now - start) as u64
    });
    let median = quantile(took.collect(), 0.5);
    println!("confirmed by the others after {median} ms");
    assert!(median <= 1_000);
}

#[test]
fn a_bad_release_behind_one_gateway_is_condemned_as_fast_with_an_idle_sidecar_beside_it() {
    for beside in [&[][..], &[0.0], &[0.2], &[0.2; 20]] {
        let failures = (1..=200).map(|seed| {
            let rates = [&[500.0][..], beside].concat();
            let mut mesh = Mesh::new(seed, &rates, Scene::of(0.1, 0.0, 0.33));
            let view = mesh.until(60, |view| view.condemned.is_some());
            assert!(view.condemned.is_some());
            mesh.failures
        });
        let median = quantile(failures.collect(), 0.5);
        println!("a gateway and {} idle: {median} failures", beside.len());
        // A report of a quarter of a second holds four.
        assert!(median <= 12);
    }
}

#[test]
fn a_bad_release_is_condemned_as_fast_when_several_proxies_share_its_requests() {
    for rates in [&[250.0; 2][..], &[100.0; 5], &[450.0, 50.0], &[10.0; 50]] {
        let seen: Vec<_> = (1..=200)
            .map(|seed| {
                let mut mesh = Mesh::new(seed, rates, Scene::of(0.1, 0.0, 0.33));
                let start = mesh.now;
                let view = mesh.until(60, |view| view.condemned.is_some());
                assert!(view.condemned.is_some(), "seed {seed}");
                (mesh.now - start) as u64
            })
            .collect();
        let (median, worst) = (quantile(seen.clone(), 0.5), quantile(seen, 0.99));
        println!("{} proxies: {median} ms, p99 {worst}", rates.len());
        assert!(median <= 1_000 && worst <= 4_000);
    }
}

#[test]
fn a_good_release_behind_a_gateway_passes_with_an_idle_sidecar_beside_it() {
    for (rate, seconds) in [(0.001, 120), (0.012, 600)] {
        let passed = (1..=50).filter(|&seed| {
            let mut mesh = Mesh::new(seed, &[200.0, 0.1], Scene::of(0.1, rate, rate));
            mesh.until(seconds, |view| view.sufficient).sufficient
        });
        let passed = passed.count();
        println!("at {rate}: {passed} of 50 within {seconds} s");
        assert!(passed >= 45);
    }
}

#[test]
fn what_others_see_fail_is_not_outvoted_by_one_that_claims_a_million_good_requests() {
    let mut analysis = Analysis::new(&rules(), ClosedEvidence::default());
    let arm = |requests, failures| ArmDelta {
        requests,
        failures,
        client_errors: 0,
    };
    let mut tell = |reporter: &str, stable, candidate| {
        let growth = Growth {
            fence: 1,
            reporter: reporter.to_owned(),
            stratum: Stratum { stable, candidate },
            pods: Vec::new(),
        };
        analysis.add(&growth, 1_000);
    };
    tell("shop/honest", arm(2_000, 20), arm(200, 20));
    tell("shop/forger", arm(9_000_000, 9_000), arm(1_000_000, 0));
    let view = analysis.view(1, 1_000);
    assert!(!view.sufficient, "{view:?}");
}

#[test]
fn one_broken_pod_of_two_is_named_and_the_revision_is_not_condemned() {
    for (weight, rates) in [(0.1, &[500.0][..]), (0.1, &[50.0; 5]), (0.5, &[100.0; 2])] {
        let (mut named, mut condemned) = (0, 0);
        for seed in 1..=100 {
            let mut mesh = Mesh::new(seed, rates, Scene::of(weight, 0.001, 0.001));
            mesh.pods = vec![1.0, 0.0];
            let view = mesh.until(20, |view| view.condemned.is_some());
            condemned += u32::from(view.condemned.is_some());
            named += u32::from(accused(&view) == Some(Witness::Pod("web-0".to_owned())));
        }
        println!(
            "weight {weight}, {} proxies: {named} of 100 named, {condemned} condemned",
            rates.len()
        );
        // Chance failures of the other pod may confirm it: one in twenty at most.
        assert!(condemned <= 5 && named >= 95);
    }
}

#[test]
fn a_revision_that_fails_in_both_pods_is_condemned_as_fast() {
    let failures = (1..=100).map(|seed| {
        let mut mesh = Mesh::new(seed, &[500.0], Scene::of(0.1, 0.0, 0.0));
        mesh.pods = vec![0.33, 0.33];
        let view = mesh.until(60, |view| view.condemned.is_some());
        assert!(view.condemned.is_some(), "seed {seed}");
        mesh.failures
    });
    let median = quantile(failures.collect(), 0.5);
    println!("both pods fail: {median} failures");
    assert!(median <= 12);
}

#[test]
fn without_its_broken_pod_the_revision_goes_on_but_a_second_one_is_its_own_fault() {
    let mut mesh = Mesh::new(3, &[500.0], Scene::of(0.1, 0.0, 0.0));
    mesh.pods = vec![1.0, 0.0];
    let view = mesh.until(10, |view| view.contested.is_some());
    assert!(view.contested.is_some());
    assert_eq!(
        mesh.analysis.replaced(mesh.now),
        None,
        "it still gets requests"
    );
    // web-0 is deleted, and web-2 comes in its place.
    (mesh.pods, mesh.deleted) = (vec![0.0, 0.0], 1);
    mesh.until(15, |_| false);
    let broken = Witness::Pod("web-0".to_owned());
    assert_eq!(mesh.analysis.replaced(mesh.now), Some(broken.clone()));

    let mut ignored = Ignored::default();
    ignored.doubted.insert(broken);
    mesh.analysis = Analysis::without(&rules(), ClosedEvidence::default(), ignored);
    let view = mesh.until(60, |view| view.sufficient);
    assert!(view.sufficient && view.condemned.is_none());
    mesh.pods = vec![1.0, 0.0];
    let view = mesh.until(60, |view| view.condemned.is_some());
    assert!(view.condemned.is_some() && view.contested.is_none());
}

#[test]
fn failures_of_a_pod_that_is_gone_condemn_no_more_and_still_stand_against_a_promotion() {
    let mut ignored = Ignored::default();
    ignored.doubted.insert(Witness::Pod("web-0".to_owned()));
    let mut mesh = Mesh::new(3, &[500.0], Scene::of(0.1, 0.0, 0.0));
    mesh.analysis = Analysis::without(&rules(), ClosedEvidence::default(), ignored);
    mesh.pods = vec![1.0, 0.0];
    let view = mesh.until(60, |view| view.condemned.is_some() || view.sufficient);
    assert!(view.condemned.is_none() && !view.sufficient);
    assert!(view.candidate.failures > 1_000, "{view:?}");
}

#[test]
fn a_shared_outage_behind_many_proxies_rolls_nobody_back_and_ends_by_itself() {
    for (proxies, per_second) in [(50, 20.0), (200, 5.0)] {
        for errors in [0.2, 1.0] {
            for weight in [0.1, 0.5] {
                let runs = 6;
                let mut condemned = 0;
                for seed in 1..=runs {
                    let rates = vec![per_second; proxies];
                    let mut mesh = Mesh::new(seed, &rates, Scene::of(weight, 0.001, 0.001));
                    mesh.pods = vec![0.0, 0.0];
                    mesh.until(5, |_| false);
                    (mesh.scene.stable, mesh.scene.candidate) = (errors, errors);
                    let start = mesh.now;
                    let view = mesh.until(10, |view| view.shared_outage.is_some());
                    assert!(view.shared_outage.is_some(), "it pauses");
                    assert!(mesh.now - start <= 3_000, "within seconds");
                    let view = mesh.until(10, |view| view.condemned.is_some());
                    condemned += u64::from(view.condemned.is_some());
                    (mesh.scene.stable, mesh.scene.candidate) = (0.001, 0.001);
                    let view = mesh.until(15, |view| view.shared_outage.is_none());
                    assert!(view.shared_outage.is_none(), "it ends by itself");
                    condemned += u64::from(view.condemned.is_some());
                    assert_eq!(view.contested, None);
                }
                println!(
                    "{proxies} proxies, {errors} errors, weight {weight}: {condemned} of {runs}"
                );
                assert_eq!(condemned, 0);
            }
        }
    }
}
