//! What the mesh has made of a split, as its status says it.

use std::time::Duration;

use jiff::Timestamp;
use sluice_crds::{MAX_LISTED, TrafficSplitStatus};
use sluice_rollout::observation::SplitView;
use tokio::time::Instant;

use super::{ActError, Writer, params};
use crate::controller::{
    facts::SplitFacts,
    seen::Kind,
    status::{Fact, merge},
};

/// How often the status of an unchanged split is written at most.
const QUIET: Duration = Duration::from_secs(10);

/// The status that a split should have.
#[must_use]
pub fn split_status(
    split: &SplitFacts,
    view: &SplitView,
    laggards: &[String],
    now: Timestamp,
) -> TrafficSplitStatus {
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let summary = format!("{}/{}", view.applied, view.expected);
    let fact = programmed(view, &summary);
    let before = split.object.status.clone().unwrap_or_default();
    let generation = split.meta.generation;
    TrafficSplitStatus {
        observed_generation: Some(generation),
        fence: split.object.spec.fence,
        expected: count(view.expected),
        applied: count(view.applied),
        behind: count(view.behind),
        away: count(view.away),
        laggards: laggards.iter().take(MAX_LISTED).cloned().collect(),
        conditions: merge(&before.conditions, vec![fact], generation, now),
        summary,
    }
}

fn programmed(view: &SplitView, summary: &str) -> Fact {
    let fact = |status, reason, message: String| Fact {
        kind: "Programmed",
        status,
        reason,
        message,
    };
    if let Some(refusal) = &view.refusal {
        return fact("False", "Refused", format!("a proxy refused it: {refusal}"));
    }
    if !view.complete {
        let message = "not every replica that serves proxies has reported yet".to_owned();
        return fact("Unknown", "Incomplete", message);
    }
    if view.applied == view.expected {
        return fact("True", "Applied", format!("{summary} proxies route by it"));
    }
    let message = format!(
        "{summary} proxies route by it, {} are behind, {} away",
        view.behind, view.away
    );
    fact("False", "Pending", message)
}

/// When the status may be written: now for a new fence and when every proxy has come to follow
/// it, else [`QUIET`] after the last time. `last` is when this process wrote it last, or saw it
/// first: one that leads anew does not know yet how the proxies stand, and writes no doubts into
/// every split of the cluster.
pub(super) fn due(
    before: Option<&TrafficSplitStatus>,
    next: &TrafficSplitStatus,
    last: Instant,
    now: Instant,
) -> Option<Instant> {
    if before == Some(next) {
        return None;
    }
    let holds = |status: &TrafficSplitStatus| status.conditions.iter().any(|c| c.status == "True");
    if before.is_none_or(|before| before.fence != next.fence || !holds(before) && holds(next)) {
        return Some(now);
    }
    Some((last + QUIET).max(now))
}

impl Writer<'_> {
    /// Writes the status when it is due; gives when it will be, if that is later. `last` is
    /// when this process wrote it last, or saw it first.
    pub async fn write_split_status(
        &self,
        split: &SplitFacts,
        next: TrafficSplitStatus,
        last: &mut Option<Instant>,
    ) -> Result<Option<Instant>, ActError> {
        let now = Instant::now();
        let since = *last.get_or_insert(now);
        let Some(at) = due(split.object.status.as_ref(), &next, since, now) else {
            return Ok(None);
        };
        if at > now {
            return Ok(Some(at));
        }
        *last = Some(now);
        let mut object = split.object.clone();
        object.status = Some(next);
        let what = format!("status of TrafficSplit {}", split.meta.name);
        let api = self.splits();
        let request = async {
            api.replace_status(&split.meta.name, &params(), &object)
                .await
        };
        self.send(Kind::Split, what, request).await.map(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(applied: u32, behind: u32) -> SplitView {
        SplitView {
            expected: applied + behind,
            applied,
            behind,
            complete: true,
            ..SplitView::default()
        }
    }

    #[test]
    fn programmed_says_how_many_proxies_follow() {
        let whole = programmed(&view(3, 0), "3/3");
        assert_eq!(
            (whole.status, whole.message.as_str()),
            ("True", "3/3 proxies route by it")
        );
        let partial = programmed(&view(2, 1), "2/3");
        assert_eq!(partial.status, "False");
        let refused = SplitView {
            refusal: Some("x".to_owned()),
            ..view(3, 0)
        };
        assert_eq!(programmed(&refused, "3/3").reason, "Refused");
        let unknown = SplitView {
            complete: false,
            ..view(3, 0)
        };
        assert_eq!(programmed(&unknown, "3/3").status, "Unknown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_fence_is_told_at_once_and_counts_only_now_and_then() {
        let now = Instant::now();
        let status = |fence, applied, expected| {
            let fact = programmed(&view(applied, expected - applied), "");
            TrafficSplitStatus {
                fence,
                applied: i32::try_from(applied).unwrap_or_default(),
                conditions: merge(&[], vec![fact], 1, Timestamp::UNIX_EPOCH),
                ..Default::default()
            }
        };
        let before = status(1, 2, 3);
        assert_eq!(due(Some(&before), &before, now, now), None);
        assert_eq!(due(Some(&before), &status(2, 0, 3), now, now), Some(now));
        let more = due(Some(&before), &status(1, 3, 4), now, now);
        assert_eq!(more, Some(now + QUIET));
        assert_eq!(due(Some(&before), &status(1, 3, 3), now, now), Some(now));
        assert_eq!(due(None, &status(1, 0, 3), now, now), Some(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_that_has_not_heard_of_the_proxies_yet_leaves_what_stands() {
        let now = Instant::now();
        let told = |view: &SplitView| TrafficSplitStatus {
            applied: i32::try_from(view.applied).unwrap_or_default(),
            conditions: merge(&[], vec![programmed(view, "")], 1, Timestamp::UNIX_EPOCH),
            ..Default::default()
        };
        let (whole, unheard) = (told(&view(3, 0)), told(&SplitView::default()));
        assert_eq!(due(Some(&whole), &unheard, now, now), Some(now + QUIET));
        let late = now + QUIET;
        assert_eq!(
            due(Some(&whole), &unheard, now, late),
            Some(late),
            "then it is said"
        );
        assert_eq!(due(Some(&unheard), &whole, late, late), Some(late));
    }
}
