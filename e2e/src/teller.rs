//! Follows releases from their push to their end, and accounts for every request in between.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;

use crate::ledger::{Entry, Ledger, Outcome};
use crate::observer::Observer;
use crate::repo::Repo;
use crate::report::{Release, Requests};
use crate::view::View;
use crate::world::{self, Look};

/// Name of the GitRepository and the Kustomization.
pub(crate) const FLUX: &str = "demo";
/// Longest wait for the end of one release.
pub(crate) const RELEASE: Duration = Duration::from_secs(300);

/// One team with its clone, its load and its eyes on the rollout.
pub(crate) struct Teller {
    pub(crate) client: Client,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) observer: Observer,
    pub(crate) repo: Repo,
    pub(crate) view: View,
}

impl Teller {
    /// Pushes what was edited, and follows the release to its end.
    pub(crate) async fn release(&mut self, name: &str, kill_at: Option<i32>) -> Result<Release> {
        let before = self.observer.now();
        let began = self.ledger.now();
        let commit = self.repo.push(name)?;
        let (first, look) = self
            .watch(began, &format!("{name} to get its first weight"), |look| {
                look.weight > 0
            })
            .await?;
        let revision = look.candidate.clone();
        if let Some(weight) = kill_at {
            self.watch(first, &format!("{name} at {weight} %"), |look| {
                look.weight == weight
            })
            .await?;
            let leader = world::leader(&self.client).await?;
            world::kill_operator(&leader)?;
            self.view
                .say(&format!("killed {leader}, the leader, with SIGKILL"));
        }
        let (end, last) = self
            .watch(first, &format!("{name} to end"), |look| {
                ended(look, &before, &revision)
            })
            .await?;
        let promoted = last.phase == "Idle";
        let outcome = if promoted { "Promoted" } else { "RolledBack" };
        self.view
            .say(&format!("{name} ({revision}): {outcome}. {}", last.verdict));
        let span = (began, first, end);
        let mut release = self.account(span, &revision, &last.verdict).await;
        release.commit = commit;
        release.outcome = outcome.to_owned();
        release.leader_killed = kill_at.is_some();
        Ok(release)
    }

    pub(crate) async fn watch(
        &mut self,
        from: Duration,
        what: &str,
        matches: impl Fn(&Look) -> bool,
    ) -> Result<(Duration, Look)> {
        let waiting = self.observer.first(from, RELEASE, what, matches);
        self.view.follow(&self.observer, waiting).await
    }

    /// Everything that the report says of one release: from its push over its first weight to its
    /// end.
    async fn account(
        &self,
        (began, first, end): (Duration, Duration, Duration),
        revision: &str,
        verdict: &str,
    ) -> Release {
        // Requests of the span may still be on their way; each ends within the load's patience.
        let settle = self.ledger.now();
        while self.ledger.entries(began, settle, |_| true).len() < self.ledger.opened(began, settle)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let looks = self.observer.since(began);
        let candidate = self
            .ledger
            .entries(began, settle, |e| answered_by(e, revision));
        let failed: Vec<&Entry> = candidate
            .iter()
            .filter(|e| matches!(e.outcome, Outcome::Failed { .. }))
            .collect();
        let totals = self.ledger.totals(began, settle);
        Release {
            revision: revision.to_owned(),
            commit_to_first_weight_seconds: (first - began).as_secs_f64(),
            first_weight_to_end_seconds: (end - first).as_secs_f64(),
            first_failure_to_zero_seconds: failure_to_zero(&looks, &candidate, &failed),
            sampling_seconds: counted(verdict).and_then(|counted| sampling(&failed, counted)),
            weights: weights(&looks, began),
            requests: Requests {
                sent: totals.sent,
                ok: totals.ok,
                failed: totals.failed,
                lost: totals.lost,
                candidate: candidate.len() as u64,
                candidate_failed: failed.len() as u64,
            },
            ..Release::default()
        }
    }

    /// Syncs Flux so many times; returns how many passed without weight for the revision.
    pub(crate) async fn syncs_without_retry(&mut self, wanted: u32) -> Result<u32> {
        let from = self.ledger.now();
        for sync in 1..=wanted {
            world::sync(&self.client, FLUX).await?;
            let tried = self
                .observer
                .since(from)
                .iter()
                .any(|(_, look)| look.weight > 0);
            if tried {
                self.view.say(&format!(
                    "sync {sync} of Flux made it try the revision again"
                ));
                return Ok(sync - 1);
            }
        }
        self.view.say(&format!(
            "{wanted} syncs of Flux later: still rejected, v2 serves"
        ));
        Ok(wanted)
    }

    /// `git revert` of the last commit, followed until the rollout is Idle and Ready.
    pub(crate) async fn revert(&mut self) -> Result<()> {
        let from = self.ledger.now();
        self.repo.revert()?;
        world::sync(&self.client, FLUX).await?;
        self.watch(
            from,
            "the rollout to be Idle and Ready after the revert",
            |look| look.phase == "Idle" && look.ready == "True" && look.stalled.is_none(),
        )
        .await
        .context("after git revert")?;
        self.view.say("reverted: Idle and Ready");
        Ok(())
    }
}

fn ended(look: &Look, before: &Look, revision: &str) -> bool {
    let promoted = look.phase == "Idle" && look.stable == revision && look.stable != before.stable;
    let rolled_back = look.phase == "Rejected" && look.weight == 0 && look.applied;
    promoted || rolled_back
}

/// Candidate pods carry the first ten digits of their revision in their name.
fn answered_by(entry: &Entry, revision: &str) -> bool {
    let mark = format!("-sluice-{}", revision.get(..10).unwrap_or(revision));
    entry.pod.as_ref().is_some_and(|pod| pod.contains(&mark))
}

fn weights(looks: &[(Duration, Look)], began: Duration) -> Vec<(f64, i32)> {
    let mut weights: Vec<(f64, i32)> = Vec::new();
    for (at, look) in looks {
        if weights
            .last()
            .is_some_and(|(_, weight)| *weight == look.weight)
        {
            continue;
        }
        weights.push(((*at - began).as_secs_f64(), look.weight));
    }
    weights
}

/// How many failed answers a verdict rests on: the first `N of M` that it says.
fn counted(verdict: &str) -> Option<usize> {
    let words: Vec<&str> = verdict.split_whitespace().collect();
    let said = words.windows(3).find_map(|said| match said {
        [number, "of", all] if all.parse::<u64>().is_ok() => number.parse().ok(),
        _ => None,
    });
    said.filter(|number| *number > 0)
}

/// From the first failed answer to the one of this number.
fn sampling(failed: &[&Entry], number: usize) -> Option<f64> {
    let mut ended: Vec<Duration> = failed.iter().map(|entry| entry.ended).collect();
    ended.sort();
    let last = ended.get(number.checked_sub(1)?)?;
    Some((*last - *ended.first()?).as_secs_f64())
}

/// From the first failed answer to the later of: weight 0 reported applied by every proxy, and
/// the last request that the candidate answered.
fn failure_to_zero(
    looks: &[(Duration, Look)],
    candidate: &[Entry],
    failed: &[&Entry],
) -> Option<f64> {
    let first = failed.iter().map(|e| e.ended).min()?;
    let applied = looks
        .iter()
        .find(|(at, look)| *at > first && look.weight == 0 && look.applied)?
        .0;
    let last = candidate.iter().map(|e| e.sent).max().unwrap_or(applied);
    Some((applied.max(last) - first).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_tells_how_many_failures_it_rests_on() {
        for (verdict, number) in [
            (
                "the candidate failed 5 of 102 requests (4.9 %), stable 0 of 3093",
                Some(5),
            ),
            (
                "the candidate failed or answered 4xx on 7 of 12 requests",
                Some(7),
            ),
            ("Promoted: failed 0 of 8 requests, stable 0 of 9", None),
            ("", None),
        ] {
            assert_eq!(counted(verdict), number, "{verdict}");
        }
    }
}
