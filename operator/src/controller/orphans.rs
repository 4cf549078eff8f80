//! HorizontalPodAutoscalers that are held although no MeshRollout governs what they scale: one
//! that was deleted in the middle, or an autoscaler that scales something else now. Nobody's look
//! would free them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::{
    Controller,
    act::{ActError, REQUEST, answer, free},
    facts::AutoscalerFacts,
    seen::Kind,
    watches::World,
};

/// How often they are looked for.
const LOOK: Duration = Duration::from_secs(5);
/// How long one is held still: the load of a candidate that is gone comes back to stable pods, and
/// the autoscaler forgets slowly that they had little to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Since when this process has known each of them, by uid.
type Known = HashMap<String, Instant>;

impl Controller {
    /// Frees them in time.
    pub(super) async fn free_orphans(self: Arc<Self>) {
        self.world.synced().await;
        let mut known = Known::new();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.leadership.leads() {
                known.clear();
                continue;
            }
            for autoscaler in due(orphans(&self.world), &mut known, Instant::now()) {
                let name = &autoscaler.meta.name;
                match self.free_orphan(&autoscaler).await {
                    Ok(()) => info!(name, "freed: no MeshRollout governs what it scales"),
                    Err(error) => warn!(%error, "not freed; tried again"),
                }
            }
        }
    }

    async fn free_orphan(&self, autoscaler: &AutoscalerFacts) -> Result<(), ActError> {
        let Some((params, patch)) = free(autoscaler) else {
            return Ok(());
        };
        let name = &autoscaler.meta.name;
        let api = Api::<HorizontalPodAutoscaler>::namespaced(
            self.client.clone(),
            &autoscaler.meta.namespace,
        );
        let what = format!("freeing HorizontalPodAutoscaler {name}");
        let freed = answer(what, REQUEST, api.patch(name, &params, &patch)).await;
        self.metrics.write(Kind::Autoscaler, freed.is_ok());
        freed.map(|_| ())
    }
}

fn orphans(world: &World) -> Vec<Arc<AutoscalerFacts>> {
    let mut held = world.autoscalers.such(|autoscaler| autoscaler.is_ours);
    held.retain(|autoscaler| {
        let rollouts = world.rollouts.within(&autoscaler.meta.namespace);
        let governs = |name: &str| {
            let mut workloads = rollouts.iter().filter_map(|r| r.workload.as_ref());
            workloads.any(|workload| workload.name == name)
        };
        !autoscaler.deployment.as_deref().is_some_and(governs)
    });
    held
}

/// Those that have been known for long enough.
fn due(
    orphans: Vec<Arc<AutoscalerFacts>>,
    known: &mut Known,
    now: Instant,
) -> Vec<Arc<AutoscalerFacts>> {
    known.retain(|uid, _| orphans.iter().any(|orphan| orphan.meta.uid == *uid));
    let is_due = |orphan: &Arc<AutoscalerFacts>| {
        let since = known.entry(orphan.meta.uid.clone()).or_insert(now);
        now.duration_since(*since) >= PATIENCE
    };
    let mut due = orphans;
    due.retain(is_due);
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures::{autoscaler, rollout};

    fn held(name: &str, deployment: &str) -> AutoscalerFacts {
        AutoscalerFacts {
            is_ours: true,
            ..autoscaler(name, deployment)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_rollout_governs_any_more_is_freed_but_not_at_once() {
        let world = World::default();
        world.rollouts.put(rollout("web", "web"));
        world.autoscalers.put(held("web", "web"));
        world.autoscalers.put(held("left", "gone"));
        world.autoscalers.put(autoscaler("free", "gone"));
        let mut known = Known::new();
        let mut names = |after: u64| -> Vec<String> {
            let now = Instant::now() + Duration::from_secs(after);
            let due = due(orphans(&world), &mut known, now);
            due.iter().map(|orphan| orphan.meta.name.clone()).collect()
        };
        assert!(names(0).is_empty() && names(299).is_empty());
        assert_eq!(names(300), ["left"]);
        world.rollouts.put(rollout("late", "gone"));
        assert!(names(600).is_empty(), "its MeshRollout came back");
        world.rollouts.remove("shop", "late");
        assert!(names(900).is_empty(), "and is waited for anew");
    }
}
