//! How much one proxy may say for a promotion.
//!
//! Good evidence that nobody else has seen dilutes the bad that others saw. So where others bear
//! witness too, one proxy's requests count at most [`TIMES`] as often as all others' together.
//! Its failures count in full: what is capped makes no promotion easier.

use std::collections::BTreeMap;

use crate::observation::Counts;

/// With ten, others with a tenth of the requests slow nobody down, and what those others see
/// cannot be made smaller than by a factor of eleven: a third of failures is still three percent.
const TIMES: u64 = 10;
/// Fewer candidate requests of all others are no second witness: an idle sidecar beside a busy
/// gateway.
const LEAST_OTHERS: u64 = 30;
/// What a step needs when nothing fails, or a little more: one proxy may carry that alone.
const ALWAYS: u64 = 600;
/// Most proxies that are told apart; of the rest nobody can say too much.
const MAX_PROXIES: usize = 1024;

/// Requests of the candidate in one fence, by proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    by_proxy: BTreeMap<String, Counts>,
    rest: Counts,
}

/// The proxy that says most, and the part of its good answers that is too much.
#[derive(Debug, PartialEq)]
pub(super) struct Cap {
    proxy: String,
    surplus: f64,
}

impl Shares {
    pub fn add(&mut self, proxy: &str, candidate: Counts) {
        if let Some(sum) = self.by_proxy.get_mut(proxy) {
            *sum = sum.plus(candidate);
        } else if self.by_proxy.len() < MAX_PROXIES {
            self.by_proxy.insert(proxy.to_owned(), candidate);
        } else {
            self.rest = self.rest.plus(candidate);
        }
    }

    /// Whom to cap, over all fences together; only one proxy can have more than all others.
    pub fn cap<'a>(fences: impl Iterator<Item = &'a Self>) -> Option<Cap> {
        let mut sums = BTreeMap::<&str, Counts>::new();
        let mut whole = Counts::default();
        for shares in fences {
            whole = whole.plus(shares.rest);
            for (proxy, counts) in &shares.by_proxy {
                whole = whole.plus(*counts);
                let sum = sums.entry(proxy).or_default();
                *sum = sum.plus(*counts);
            }
        }
        let (proxy, most) = sums.into_iter().max_by_key(|(_, sum)| sum.requests)?;
        let others = whole.requests - most.requests.min(whole.requests);
        let allowed = others.saturating_mul(TIMES).max(ALWAYS);
        if others < LEAST_OTHERS || most.requests <= allowed {
            return None;
        }
        let good = most.requests - most.failures.min(most.requests);
        let surplus = (most.requests - allowed) as f64 / good.max(1) as f64;
        Some(Cap {
            proxy: proxy.to_owned(),
            surplus: surplus.min(1.0),
        })
    }
}

impl Cap {
    /// Good answers of the capped proxy in this fence that do not count.
    pub fn surplus(&self, shares: &Shares) -> u64 {
        let counts = shares
            .by_proxy
            .get(&self.proxy)
            .copied()
            .unwrap_or_default();
        let good = counts.requests - counts.failures.min(counts.requests);
        (self.surplus * good as f64).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(proxies: &[(u64, u64)]) -> u64 {
        let mut shares = Shares::default();
        for (n, &(requests, failures)) in proxies.iter().enumerate() {
            shares.add(&format!("proxy-{n}"), Counts { requests, failures });
        }
        Shares::cap([&shares].into_iter()).map_or(0, |cap| cap.surplus(&shares))
    }

    #[test]
    fn one_proxy_says_at_most_ten_times_what_all_others_say_together() {
        assert_eq!(cap(&[(1_000_000, 0), (60, 20), (40, 10)]), 999_000);
        assert_eq!(cap(&[(900, 0), (100, 20)]), 0);
    }

    #[test]
    fn a_gateway_is_not_held_up_by_an_idle_sidecar_beside_it() {
        assert_eq!(cap(&[(50_000, 600)]), 0);
        assert_eq!(cap(&[(50_000, 600), (29, 0)]), 0);
        assert_eq!(cap(&[(600, 0), (30, 0)]), 0);
    }

    #[test]
    fn failures_are_never_capped() {
        assert_eq!(cap(&[(10_000, 10_000), (100, 0)]), 0);
        assert_eq!(cap(&[(10_000, 9_000), (100, 0)]), 1_000);
    }
}
