//! Which arm, and which endpoint inside it.

use std::{net::SocketAddr, sync::Arc};

use sluice_xds::names::Arm;

use crate::{
    coin::Coin,
    config::{Branch, Endpoint, Route},
};

/// What the coin chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index of the branch.
    pub branch: usize,
    /// Whether the coin alone placed it there, at the weights of the split.
    pub coined: bool,
}

/// Weight of a branch now: a leased candidate has none once the lease has lapsed.
fn weight(route: &Route, branch: &Branch, lapsed: bool) -> u64 {
    let leased = route.split.as_ref().is_some_and(|split| split.leased);
    if lapsed && leased && branch.arm == Some(Arm::Candidate) {
        return 0;
    }
    u64::from(branch.weight)
}

/// Throws an independent coin for one request or connection. None: no branch that may be used
/// has endpoints.
pub fn choose(route: &Route, coin: &Coin, lapsed: bool) -> Option<Choice> {
    let weights = || route.branches.iter().map(|b| weight(route, b, lapsed));
    let mut mark = coin.below(weights().sum());
    let thrown = weights().position(|weight| {
        let here = mark < weight;
        mark = mark.saturating_sub(weight);
        here
    });
    let leased = route.split.as_ref().is_some_and(|split| split.leased);
    match thrown {
        Some(branch) if !route.branches[branch].cluster.endpoints.is_empty() => Some(Choice {
            branch,
            coined: !(lapsed && leased),
        }),
        _ => fallback(route, lapsed, |_| true).map(|branch| Choice {
            branch,
            coined: false,
        }),
    }
}

/// A branch that may stand in for another: stable, or one that has weight now. An arm of weight
/// 0 that is not stable gets nothing, whatever happens to the others.
pub fn fallback(route: &Route, lapsed: bool, may: impl Fn(usize) -> bool) -> Option<usize> {
    route
        .branches
        .iter()
        .enumerate()
        .position(|(index, branch)| {
            let allowed = branch.arm == Some(Arm::Stable) || weight(route, branch, lapsed) > 0;
            allowed && !branch.cluster.endpoints.is_empty() && may(index)
        })
}

/// The load of an endpoint, smaller is better: whether it could not be reached lately, and how
/// many requests it has.
pub type Load = (bool, usize);

/// Power of two choices: of two endpoints drawn at random the one with the smaller load. One
/// that could not be reached lately is taken only when that is so of all. None of those in
/// `tried` is taken.
pub fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    tried: &[SocketAddr],
    coin: &Coin,
    load: impl Fn(SocketAddr) -> Load,
) -> Option<&'a Arc<Endpoint>> {
    if tried.is_empty() {
        return better(endpoints.len(), coin, |i| load(endpoints[i].address))
            .map(|i| &endpoints[i]);
    }
    let left: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| !tried.contains(&endpoint.address))
        .collect();
    better(left.len(), coin, |i| load(left[i].address)).map(|i| left[i])
}

fn better(count: usize, coin: &Coin, load: impl Fn(usize) -> Load) -> Option<usize> {
    let below = |bound: usize| usize::try_from(coin.below(bound as u64)).unwrap_or(0);
    if count < 2 {
        return count.checked_sub(1);
    }
    let first = below(count);
    let second = (first + 1 + below(count - 1)) % count;
    let (better, (avoided, _)) = [first, second]
        .map(|index| (index, load(index)))
        .into_iter()
        .min_by_key(|(_, load)| *load)?;
    if !avoided {
        return Some(better);
    }
    let others: Vec<_> = (0..count).filter(|index| !load(*index).0).collect();
    Some(others.get(below(others.len())).copied().unwrap_or(better))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        config::{Cluster, ServiceName, Split},
        evidence::{Evidence, Key},
    };
    use sluice_xds::metadata::EndpointFacts;

    fn endpoint(last: u8) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            address: SocketAddr::from(([10, 0, 0, last], 80)),
            facts: EndpointFacts::default(),
        })
    }

    fn branch(arm: Arm, weight: u32, endpoints: &[u8]) -> Branch {
        Branch {
            weight,
            arm: Some(arm),
            cluster: Arc::new(Cluster {
                name: arm.to_string(),
                service: ServiceName::default(),
                http2: false,
                endpoints: endpoints.iter().map(|last| endpoint(*last)).collect(),
            }),
        }
    }

    fn route(stable: (u32, &[u8]), candidate: (u32, &[u8])) -> Route {
        let key = Key {
            service: String::new(),
            revision: String::new(),
            fence: 1,
        };
        Route {
            branches: vec![
                branch(Arm::Stable, stable.0, stable.1),
                branch(Arm::Candidate, candidate.0, candidate.1),
            ],
            split: Some(Split {
                leased: true,
                hung_after: None,
                counters: Evidence::default().counters(&key),
            }),
        }
    }

    #[test]
    fn shares_follow_the_weights_within_four_sigma() {
        for weight in [1_u32, 10, 25, 50, 75, 99] {
            let route = route((100 - weight, &[1]), (weight, &[2]));
            let coin = Coin::seeded(u64::from(weight));
            let n = 50_000;
            let throws = (0..n).map(|_| choose(&route, &coin, false).unwrap());
            let share = throws
                .inspect(|c| assert!(c.coined))
                .filter(|c| c.branch == 1)
                .count();
            let p = f64::from(weight) / 100.0;
            let sigma = (f64::from(n) * p * (1.0 - p)).sqrt();
            let off = share as f64 - f64::from(n) * p;
            assert!(off.abs() < 4.0 * sigma, "{weight}: {share}");
        }
    }

    #[test]
    fn an_arm_without_endpoints_hands_over_to_the_other_outside_the_coin() {
        let coin = Coin::seeded(1);
        let choice = |route: &Route| choose(route, &coin, false);
        let stable = Choice {
            branch: 0,
            coined: false,
        };
        let candidate = Choice {
            branch: 1,
            coined: false,
        };
        assert_eq!(choice(&route((0, &[1]), (100, &[]))), Some(stable));
        assert_eq!(
            choice(&route((100, &[]), (0, &[2]))),
            None,
            "weight 0 gets nothing"
        );
        let both = route((1, &[]), (99, &[2]));
        let uncoined = (0..1000)
            .map(|_| choice(&both).unwrap())
            .find(|c| !c.coined);
        assert_eq!(uncoined, Some(candidate));
        assert_eq!(choice(&route((50, &[]), (50, &[]))), None);
    }

    #[test]
    fn a_lapsed_lease_sends_everything_to_stable_outside_the_coin() {
        let coin = Coin::seeded(1);
        for weight in [50, 100] {
            let route = route((100 - weight, &[1]), (weight, &[2]));
            for _ in 0..100 {
                let choice = choose(&route, &coin, true);
                assert_eq!(
                    choice,
                    Some(Choice {
                        branch: 0,
                        coined: false
                    })
                );
            }
        }
    }

    #[test]
    fn the_less_loaded_of_two_is_picked_and_none_that_was_tried() {
        let endpoints = [endpoint(1), endpoint(2)];
        let coin = Coin::seeded(3);
        let load = |address: SocketAddr| (false, usize::from(address == endpoints[0].address));
        for _ in 0..50 {
            assert_eq!(pick(&endpoints, &[], &coin, load), Some(&endpoints[1]));
        }
        let tried = [endpoints[1].address];
        assert_eq!(pick(&endpoints, &tried, &coin, load), Some(&endpoints[0]));
        let all = [endpoints[0].address, endpoints[1].address];
        assert_eq!(pick(&endpoints, &all, &coin, load), None);
        assert_eq!(pick(&[], &[], &coin, load), None);
    }

    #[test]
    fn what_could_not_be_reached_is_avoided_as_long_as_anything_else_is_there() {
        let endpoints: Vec<_> = (0..10).map(endpoint).collect();
        let coin = Coin::seeded(5);
        for _ in 0..200 {
            let load = |address| (address != endpoints[7].address, 0);
            assert_eq!(pick(&endpoints, &[], &coin, load), Some(&endpoints[7]));
        }
        let all = |_| (true, 0);
        assert!(pick(&endpoints, &[], &coin, all).is_some());
    }

    #[test]
    fn equal_endpoints_get_equal_shares() {
        let endpoints: Vec<_> = (0..5).map(endpoint).collect();
        let coin = Coin::seeded(9);
        let mut seen = [0_u32; 5];
        for _ in 0..50_000 {
            let picked = pick(&endpoints, &[], &coin, |_| (false, 0)).unwrap();
            seen[endpoints.iter().position(|e| e == picked).unwrap()] += 1;
        }
        assert!(seen.iter().all(|n| (9_640..10_360).contains(n)), "{seen:?}");
    }
}
