//! Differences of successive records: the strata that the verdict tests.

use std::collections::BTreeMap;

use crate::Table;
use crate::life::Kept;
use crate::table::LifeKey;
use crate::v1;

/// Most (life, service, fence) that one cursor follows; further ones bear no witness.
const MAX_FOLLOWED: usize = 1_000_000;

/// Requests of one arm that ended between two looks at one proxy's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArmDelta {
    /// Requests placed by the coin.
    pub requests: u64,
    /// Failure events among them, all classes.
    pub failures: u64,
    /// 4xx answers among them.
    pub client_errors: u64,
}

/// Both arms between the same two looks at one proxy, one service, one fence: whatever the
/// weight was, each failure fell on an arm by the coin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stratum {
    /// The arm that serves whatever is not tried.
    pub stable: ArmDelta,
    /// The arm that is tried.
    pub candidate: ArmDelta,
}

/// What one proxy saw between two looks at its counters of one service and fence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Growth {
    /// The split's fence when the coin fell.
    pub fence: i64,
    /// The proxy's pod, `NAMESPACE/NAME`, by its token.
    pub reporter: String,
    /// Both arms.
    pub stratum: Stratum,
    /// Of the candidate's counts those of its pods, by name, as far as they are told apart. They
    /// bear no 4xx answers.
    pub pods: Vec<(String, ArmDelta)>,
}

/// How far one rollout's analysis has read one [`Table`]. It outlives what the table forgets,
/// so that a proxy that comes back is not counted twice.
#[derive(Debug, Default)]
pub struct Cursor {
    services: Vec<String>,
    revision: String,
    since: u64,
    taken: BTreeMap<(i64, LifeKey, String), Taken>,
    dropped: u64,
}

/// What was read of one record.
#[derive(Debug, Default)]
struct Taken {
    stratum: Stratum,
    pods: BTreeMap<String, (u64, u64)>,
}

impl Cursor {
    /// What proxies counted of `revision` since the last call, one for each life, service and
    /// fence that grew. Records of `after_fence` and before are left out: their
    /// evidence is closed.
    pub fn take(
        &mut self,
        table: &Table,
        services: &[String],
        revision: &str,
        after_fence: i64,
    ) -> Vec<Growth> {
        if self.revision != revision {
            *self = Self {
                revision: revision.to_owned(),
                ..Self::default()
            };
        }
        if self.services != services {
            self.services = services.to_vec();
            self.since = 0;
        }
        self.taken.retain(|(fence, ..), _| *fence > after_fence);
        let mut strata = Vec::new();
        for (life_key, life) in &table.lives {
            if life.records_changed <= self.since {
                continue;
            }
            for (key, kept) in &life.records {
                let wanted = kept.changed > self.since
                    && key.fence > after_fence
                    && key.revision == revision
                    && services.contains(&key.service);
                if !wanted {
                    continue;
                }
                let place = (key.fence, life_key.clone(), key.service.clone());
                if self.taken.len() >= MAX_FOLLOWED && !self.taken.contains_key(&place) {
                    self.dropped += 1;
                    continue;
                }
                let total = Stratum::total(kept);
                let taken = self.taken.entry(place).or_default();
                let stratum = total.since(&taken.stratum);
                if stratum != Stratum::default() {
                    taken.stratum = total.max(&taken.stratum);
                    strata.push(Growth {
                        fence: key.fence,
                        reporter: format!("{}/{}", life.identity.namespace, life.identity.pod),
                        stratum,
                        pods: taken.take_pods(kept),
                    });
                }
            }
        }
        self.since = table.sequence();
        strata
    }

    /// Growths that were left out because too many lives are followed already.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Taken {
    fn take_pods(&mut self, kept: &Kept) -> Vec<(String, ArmDelta)> {
        let mut grown = Vec::new();
        for (pod, &(requests, failures)) in &kept.pods {
            let before = self.pods.insert(pod.clone(), (requests, failures));
            let before = before.unwrap_or_default();
            let delta = ArmDelta {
                requests: requests.saturating_sub(before.0),
                failures: failures.saturating_sub(before.1),
                client_errors: 0,
            };
            if delta != ArmDelta::default() {
                grown.push((pod.clone(), delta));
            }
        }
        grown
    }
}

impl Stratum {
    fn total(kept: &Kept) -> Self {
        Self {
            stable: ArmDelta::total(&kept.stable),
            candidate: ArmDelta::total(&kept.candidate),
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            stable: self.stable.zip(&earlier.stable, u64::saturating_sub),
            candidate: self.candidate.zip(&earlier.candidate, u64::saturating_sub),
        }
    }

    fn max(&self, other: &Self) -> Self {
        Self {
            stable: self.stable.zip(&other.stable, u64::max),
            candidate: self.candidate.zip(&other.candidate, u64::max),
        }
    }
}

impl ArmDelta {
    fn total(counts: &v1::ArmCounts) -> Self {
        let classes = [
            counts.server_errors,
            counts.grpc_errors,
            counts.connect_failures,
            counts.resets,
            counts.hung,
        ];
        Self {
            requests: counts.coined,
            failures: classes.into_iter().fold(0, u64::saturating_add),
            client_errors: counts.client_errors,
        }
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: f(self.requests, other.requests),
            failures: f(self.failures, other.failures),
            client_errors: f(self.client_errors, other.client_errors),
        }
    }
}
