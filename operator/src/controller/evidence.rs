//! What the proxies saw, for the next decision: how they stand to the split, and the verdict on
//! the candidate.

use sluice_evidence::{Cursor, Table};
use sluice_rollout::{
    Millis,
    observation::{EvidenceView, SplitView},
    policy::Rules,
    state::Candidate,
    verdict::Analysis,
};

/// The analysis of one try of one revision in one term of leadership.
pub struct Evidence {
    basis: Basis,
    cursor: Cursor,
    analysis: Analysis,
    /// Evidence through this fence was in the state when the analysis began.
    closed: i64,
}

/// What an analysis belongs to; when any of it changes, it begins anew from the state.
#[derive(Clone, Debug, PartialEq)]
struct Basis {
    term: i32,
    revision: String,
    started: Millis,
    rules: Rules,
}

impl Evidence {
    /// The analysis of this candidate: the one in hand if it is the right one, else one that
    /// goes on from what the state holds.
    #[must_use]
    pub fn of(held: Option<Self>, term: i32, candidate: &Candidate, rules: &Rules) -> Self {
        let basis = Basis {
            term,
            revision: candidate.arm.revision.clone(),
            started: candidate.started,
            rules: rules.clone(),
        };
        if let Some(held) = held.filter(|held| held.basis == basis) {
            return held;
        }
        Self {
            analysis: Analysis::new(&basis.rules, candidate.closed.clone()),
            cursor: Cursor::default(),
            closed: candidate.closed.through_fence,
            basis,
        }
    }

    /// Reads what is new in the table; what is known now. `services` as `NAMESPACE/NAME`.
    pub fn read(
        &mut self,
        table: &Table,
        services: &[String],
        fence: i64,
        now: Millis,
    ) -> EvidenceView {
        for (fence, stratum) in self
            .cursor
            .take(table, services, &self.basis.revision, self.closed)
        {
            self.analysis.add(fence, &stratum, now);
        }
        self.analysis.view(fence, now)
    }
}

/// How the proxies stand to a split, all its services together, and who keeps it back.
#[must_use]
pub fn standing(
    table: &Table,
    services: &[String],
    fence: Option<i64>,
    complete: bool,
    now_ms: u64,
) -> (SplitView, Vec<String>) {
    let mut view = SplitView {
        fence,
        complete,
        ..SplitView::default()
    };
    let mut laggards = Vec::new();
    let Some(fence) = fence else {
        return (view, laggards);
    };
    for service in services {
        let standing = table.standing(service, fence, now_ms);
        view.expected += standing.expected;
        view.applied += standing.applied;
        view.behind += standing.behind;
        view.away += standing.away;
        view.refusal = view.refusal.or(standing.refusal);
        laggards.extend(standing.laggards);
    }
    (view, laggards)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_evidence::{
        relay::ProxyEntry,
        v1::{AppliedSplit, ArmCounts, Record},
    };
    use sluice_rollout::{policy::Policy, state::Arm};

    use super::*;
    use crate::controller::fixtures::rollout;

    fn rules() -> Rules {
        Policy::from_spec(&rollout("web", "web").object.spec)
            .unwrap()
            .rules
    }

    fn candidate(through_fence: i64) -> Candidate {
        let arm = Arm {
            revision: "r2".to_owned(),
            ..Arm::default()
        };
        let mut candidate = Candidate {
            arm,
            ..Candidate::default()
        };
        candidate.closed.through_fence = through_fence;
        candidate
    }

    fn table(sequence: u64, fence: i64, coined: u64) -> ProxyEntry {
        let counts = ArmCounts {
            coined,
            ..ArmCounts::default()
        };
        ProxyEntry {
            pod_uid: "p".to_owned(),
            sequence,
            connected: true,
            applied: vec![AppliedSplit {
                service: "shop/web".to_owned(),
                fence,
            }],
            records: vec![Record {
                service: "shop/web".to_owned(),
                revision: "r2".to_owned(),
                fence,
                stable: Some(counts.clone()),
                candidate: Some(counts),
            }],
            views: vec!["shop/web".to_owned()],
            ..ProxyEntry::default()
        }
    }

    fn services() -> Vec<String> {
        vec!["shop/web".to_owned()]
    }

    #[test]
    fn every_request_is_counted_once() {
        let mut seen = Table::new("leader", 0);
        let mut evidence = Evidence::of(None, 1, &candidate(1), &rules());
        seen.merge("a", &table(1, 2, 100), 0).unwrap();
        assert_eq!(
            evidence.read(&seen, &services(), 2, 0).candidate.requests,
            100
        );
        assert_eq!(
            evidence.read(&seen, &services(), 2, 0).candidate.requests,
            100
        );
        seen.merge("a", &table(2, 2, 150), 0).unwrap();
        assert_eq!(
            evidence.read(&seen, &services(), 2, 0).candidate.requests,
            150
        );
    }

    #[test]
    fn a_new_leader_goes_on_from_the_state_and_counts_no_fence_twice() {
        let mut seen = Table::new("leader", 0);
        seen.merge("a", &table(1, 2, 100), 0).unwrap();
        let mut first = Evidence::of(None, 1, &candidate(1), &rules());
        let closed = first.read(&seen, &services(), 2, 0).closed;
        assert_eq!(closed.through_fence, 2);
        seen.merge("a", &table(2, 3, 30), 0).unwrap();
        let next = Candidate {
            closed,
            ..candidate(0)
        };
        let mut second = Evidence::of(Some(first), 2, &next, &rules());
        assert_eq!(
            second.read(&seen, &services(), 3, 0).candidate.requests,
            130
        );
    }

    #[test]
    fn another_try_of_the_revision_begins_without_the_old_evidence() {
        let mut seen = Table::new("leader", 0);
        seen.merge("a", &table(1, 2, 100), 0).unwrap();
        let mut first = Evidence::of(None, 1, &candidate(1), &rules());
        assert_eq!(first.read(&seen, &services(), 2, 0).candidate.requests, 100);
        let again = Candidate {
            started: 5,
            ..candidate(8)
        };
        let mut second = Evidence::of(Some(first), 1, &again, &rules());
        assert_eq!(second.read(&seen, &services(), 9, 0).candidate.requests, 0);
    }

    #[test]
    fn proxies_are_applied_or_behind_by_the_fence_of_the_split() {
        let mut seen = Table::new("leader", 0);
        seen.merge("a", &table(1, 2, 0), 0).unwrap();
        let (view, _) = standing(&seen, &services(), Some(2), true, 0);
        assert_eq!((view.expected, view.applied, view.behind), (1, 1, 0));
        let (view, laggards) = standing(&seen, &services(), Some(3), true, 0);
        assert_eq!((view.applied, view.behind, laggards.len()), (0, 1, 1));
        let (view, _) = standing(&seen, &services(), None, true, 0);
        assert_eq!(view.expected, 0);
    }
}
