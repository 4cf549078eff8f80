//! Deployments that nobody governs any more, and that are still held: people are told how to
//! release them. They are not released by themselves, because what is held may have been
//! rejected, and would take stable's place unjudged.

use sluice_rollout::state::State;

use super::{
    Controller,
    facts::{DeploymentFacts, RolloutFacts},
};

impl Controller {
    /// The MeshRollout is gone.
    pub(super) fn tell_of_a_deletion(&self, last: &RolloutFacts) {
        let Some(workload) = &last.workload else {
            return;
        };
        let why = format!("MeshRollout {} was deleted", last.meta.name);
        self.tell_left_held(&last.meta.namespace, &workload.name, &why);
    }

    /// The spec names another workload, and the state has let go of the one before, or of its
    /// candidate.
    pub(super) fn tell_of_another_workload(
        &self,
        rollout: &RolloutFacts,
        before: &State,
        after: &State,
    ) {
        let Some(left) = left_behind(before, after) else {
            return;
        };
        let why = format!(
            "MeshRollout {} names another workload now",
            rollout.meta.name
        );
        self.tell_left_held(&rollout.meta.namespace, left, &why);
    }

    fn tell_left_held(&self, namespace: &str, name: &str, why: &str) {
        let rollouts = self.world.rollouts.within(namespace);
        let mut workloads = rollouts.iter().filter_map(|r| r.workload.as_ref());
        let deployment = self.world.deployments.get(namespace, name);
        let held = deployment.filter(|deployment| is_held(deployment));
        let Some(held) = held.filter(|_| !workloads.any(|workload| workload.name == name)) else {
            return;
        };
        let note = format!(
            "{why} while revision {} was held: the stable pods serve on. \
             To roll it out natively: kubectl rollout resume deployment/{name}",
            held.revision
        );
        self.events.tell(
            held.meta.reference("apps/v1", "Deployment"),
            true,
            "LeftHeld",
            &note,
        );
    }
}

/// The Deployment that the state was about, where it may be about it for the last time.
fn left_behind<'a>(before: &'a State, after: &State) -> Option<&'a str> {
    let left = before.deployment_seen.as_ref()?;
    let is_forgotten = after
        .deployment_seen
        .as_ref()
        .is_none_or(|now| now.name != left.name);
    let is_without_candidate = before.candidate.is_some() && after.candidate.is_none();
    (is_forgotten || is_without_candidate).then_some(&*left.name)
}

fn is_held(deployment: &DeploymentFacts) -> bool {
    deployment.paused && deployment.paused_by_git.is_none() && deployment.paused_by_hand.is_none()
}

#[cfg(test)]
mod tests {
    use sluice_rollout::state::{Candidate, DeploymentSeen};

    use super::*;
    use crate::controller::fixtures::deployment;

    fn about(name: &str, candidate: bool) -> State {
        State {
            deployment_seen: Some(DeploymentSeen {
                name: name.to_owned(),
                ..DeploymentSeen::default()
            }),
            candidate: candidate.then(Candidate::default),
            ..State::default()
        }
    }

    #[test]
    fn a_deployment_is_left_behind_when_it_is_forgotten_or_its_candidate_ends() {
        let web = about("web", true);
        assert_eq!(left_behind(&web, &web), None);
        assert_eq!(left_behind(&web, &about("web", false)), Some("web"));
        assert_eq!(left_behind(&web, &about("ratings", true)), Some("web"));
        assert_eq!(left_behind(&web, &State::default()), Some("web"));
        assert_eq!(left_behind(&State::default(), &web), None);
    }

    #[test]
    fn only_a_hold_of_ours_is_told_of() {
        let paused = DeploymentFacts {
            paused: true,
            ..deployment("web", "r1")
        };
        let by_hand = DeploymentFacts {
            paused_by_hand: Some("kubectl-rollout".to_owned()),
            ..paused.clone()
        };
        assert!(is_held(&paused) && !is_held(&by_hand));
        assert!(!is_held(&deployment("web", "r1")));
    }
}
