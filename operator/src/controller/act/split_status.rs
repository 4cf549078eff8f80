//! What the mesh has made of a split, as its status says it.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use sluice_crds::{MAX_LISTED, TrafficSplit, TrafficSplitStatus};
use sluice_rollout::observation::SplitView;
use tokio::time::Instant;

use super::{ActError, Writer, params};
use crate::controller::{
    seen::Kind,
    status::{Fact, merge},
};

/// How often the status of an unchanged split is written at most.
const QUIET: Duration = Duration::from_secs(10);
/// How long proxies get to follow a new fence before it is said that some do not yet: mostly all
/// do by then, and one write says both.
const FOLLOW: Duration = Duration::from_secs(1);

/// What this process remembers of the status of a split.
#[derive(Debug, Default)]
pub struct Told {
    /// When it was written last, or first looked at: one that leads anew does not know yet how the
    /// proxies stand, and writes no doubts into every split of the cluster.
    last: Option<Instant>,
    /// The fence, and since when it has been the split's.
    fence: Option<(i64, Instant)>,
}

/// The status that a split should have.
#[must_use]
pub fn split_status(
    split: &TrafficSplit,
    view: &SplitView,
    laggards: &[String],
    now: Timestamp,
) -> TrafficSplitStatus {
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let summary = format!("{}/{}", view.applied, view.expected);
    let fact = programmed(view, &summary);
    let before = split.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let generation = split.metadata.generation.unwrap_or_default();
    TrafficSplitStatus {
        observed_generation: Some(generation),
        fence: split.spec.fence,
        expected: count(view.expected),
        applied: count(view.applied),
        behind: count(view.behind),
        away: count(view.away),
        laggards: laggards.iter().take(MAX_LISTED).cloned().collect(),
        conditions: merge(before, vec![fact], generation, now),
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

impl Told {
    /// When the status may be written: now when every proxy has come to follow the split, [`FOLLOW`]
    /// after a new fence, else [`QUIET`] after the last time.
    fn due(
        &mut self,
        before: Option<&TrafficSplitStatus>,
        next: &TrafficSplitStatus,
        now: Instant,
    ) -> Option<Instant> {
        let last = *self.last.get_or_insert(now);
        let known = self.fence.filter(|(fence, _)| *fence == next.fence);
        let (_, since) = *self.fence.insert(known.unwrap_or((next.fence, now)));
        if before == Some(next) {
            return None;
        }
        let holds =
            |status: &TrafficSplitStatus| status.conditions.iter().any(|c| c.status == "True");
        let before = before.filter(|before| before.fence == next.fence);
        Some(match before {
            Some(before) if holds(before) || !holds(next) => (last + QUIET).max(now),
            None if !holds(next) => (since + FOLLOW).max(now),
            _ => now,
        })
    }
}

impl Writer<'_> {
    /// Writes the status when it is due; gives when it will be, if that is later.
    pub async fn write_split_status(
        &self,
        mut split: TrafficSplit,
        next: TrafficSplitStatus,
        told: &mut Told,
    ) -> Result<Option<Instant>, ActError> {
        let now = Instant::now();
        let Some(at) = told.due(split.status.as_ref(), &next, now) else {
            return Ok(None);
        };
        if at > now {
            return Ok(Some(at));
        }
        told.last = Some(now);
        split.status = Some(next);
        let name = split.name_any();
        let what = format!("status of TrafficSplit {name}");
        let api = self.splits();
        let request = async { api.replace_status(&name, &params(), &split).await };
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

    fn status(fence: i64, view: &SplitView) -> TrafficSplitStatus {
        let fact = programmed(view, "");
        TrafficSplitStatus {
            fence,
            applied: i32::try_from(view.applied).unwrap_or_default(),
            conditions: merge(&[], vec![fact], 1, Timestamp::UNIX_EPOCH),
            ..Default::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_follows_is_told_at_once_and_counts_only_now_and_then() {
        let now = Instant::now();
        let mut told = Told::default();
        let all = status(1, &view(3, 0));
        assert_eq!(told.due(None, &all, now), Some(now));
        assert_eq!(told.due(Some(&all), &all, now), None);
        let fewer = status(1, &view(2, 1));
        assert_eq!(told.due(Some(&all), &fewer, now), Some(now + QUIET));
        assert_eq!(told.due(Some(&fewer), &all, now), Some(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_fence_is_told_once_when_all_follow_or_when_some_do_not_in_time() {
        let now = Instant::now();
        let mut told = Told::default();
        let before = status(1, &view(3, 0));
        let (some, all) = (status(2, &view(1, 2)), status(2, &view(3, 0)));
        assert_eq!(told.due(Some(&before), &some, now), Some(now + FOLLOW));
        let soon = now + FOLLOW / 2;
        assert_eq!(told.due(Some(&before), &some, soon), Some(now + FOLLOW));
        assert_eq!(told.due(Some(&before), &all, soon), Some(soon));
        let late = now + FOLLOW * 3;
        assert_eq!(told.due(Some(&before), &some, late), Some(late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_that_has_not_heard_of_the_proxies_yet_leaves_what_stands() {
        let now = Instant::now();
        let mut told = Told::default();
        let (whole, unheard) = (status(1, &view(3, 0)), status(1, &SplitView::default()));
        assert_eq!(told.due(Some(&whole), &unheard, now), Some(now + QUIET));
        let late = now + QUIET;
        let due = told.due(Some(&whole), &unheard, late);
        assert_eq!(due, Some(late), "then it is said");
        assert_eq!(told.due(Some(&unheard), &whole, late), Some(late));
    }
}
