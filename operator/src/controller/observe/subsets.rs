//! Mode B: two label subsets of the Services' pods.

use std::collections::BTreeSet;

use serde_json::json;
use sluice_crds::Versions;
use sluice_rollout::{
    observation::{CandidatePod, SubsetsView},
    revision,
};

use super::deployment::candidate_pod;
use crate::controller::{
    facts::{PodFacts, ReplicaSetFacts},
    watches::Namespace,
};

/// What one look shows of the two subsets; none when neither has a pod.
pub(super) fn view(
    versions: &Versions,
    services: &[String],
    namespace: &Namespace,
) -> Option<SubsetsView> {
    let stable = Subset::of(versions, &versions.stable, services, namespace);
    let candidate = Subset::of(versions, &versions.candidate, services, namespace);
    if stable.pods.is_empty() && candidate.pods.is_empty() {
        return None;
    }
    Some(SubsetsView {
        stable_revision: stable.revision(),
        candidate_revision: candidate.revision(),
        stable_ready: stable.ready(),
        candidate_ready: candidate.ready(),
        candidate_wanted: candidate.wanted(),
        candidate_pods: candidate.named(),
    })
}

/// The pods of one subset.
struct Subset<'a> {
    label: &'a str,
    value: &'a str,
    pods: Vec<&'a PodFacts>,
    namespace: &'a Namespace,
}

impl<'a> Subset<'a> {
    fn of(
        versions: &'a Versions,
        value: &'a str,
        services: &[String],
        namespace: &'a Namespace,
    ) -> Self {
        let split: Vec<_> = namespace
            .services
            .iter()
            .filter(|s| services.contains(&s.meta.name))
            .collect();
        let belongs = |pod: &&PodFacts| {
            pod.lives()
                && pod
                    .meta
                    .labels
                    .get(&versions.label)
                    .is_some_and(|v| v == value)
                && split.iter().any(|service| service.takes(&pod.meta.labels))
        };
        let pods = namespace
            .pods
            .iter()
            .map(AsRef::as_ref)
            .filter(belongs)
            .collect();
        Self {
            label: &versions.label,
            value,
            pods,
            namespace,
        }
    }

    /// The ReplicaSets that its pods belong to.
    fn sets(&self) -> impl Iterator<Item = &'a ReplicaSetFacts> {
        let owners: BTreeSet<&str> = self
            .pods
            .iter()
            .filter_map(|pod| pod.meta.owner.as_ref().map(|owner| owner.uid.as_str()))
            .collect();
        let sets = self.namespace.replica_sets.iter().map(AsRef::as_ref);
        sets.filter(move |set: &&ReplicaSetFacts| owners.contains(set.meta.uid.as_str()))
    }

    /// Hash of the label's value and the newest pod template; empty without pods. Pods without
    /// a ReplicaSet tell their template by the hash that their controller labels them with.
    fn revision(&self) -> String {
        let newest_set = self
            .sets()
            .filter(|set| set.replicas > 0)
            .max_by_key(|s| s.meta.created);
        let newest_pod = || {
            let pod = self.pods.iter().max_by_key(|pod| pod.meta.created)?;
            Some(
                pod.meta
                    .labels
                    .get("controller-revision-hash")
                    .unwrap_or_default()
                    .to_owned(),
            )
        };
        let Some(template) = newest_set
            .map(|set| set.revision.clone())
            .or_else(newest_pod)
        else {
            return String::new();
        };
        revision::of_template(&json!({"subset": {(self.label): self.value}, "template": template}))
    }

    fn ready(&self) -> i32 {
        count(self.pods.iter().filter(|pod| pod.ready).count())
    }

    fn named(&self) -> Vec<CandidatePod> {
        self.pods
            .iter()
            .map(|pod| candidate_pod(pod, pod.ready))
            .collect()
    }

    /// Pods that its workloads ask for: what each Deployment says, else each ReplicaSet, else
    /// as many as there are.
    fn wanted(&self) -> i32 {
        let mut deployments = BTreeSet::new();
        let mut wanted = 0;
        for set in self.sets() {
            let owner = set
                .meta
                .owner
                .as_ref()
                .filter(|owner| owner.kind == "Deployment");
            let deployment = owner.and_then(|owner| {
                self.namespace
                    .deployments
                    .iter()
                    .find(|d| d.meta.uid == owner.uid)
            });
            match deployment {
                Some(deployment) if deployments.insert(&deployment.meta.uid) => {
                    wanted += deployment.replicas;
                }
                Some(_) => {}
                None => wanted += set.replicas,
            }
        }
        if wanted == 0 {
            count(self.pods.len())
        } else {
            wanted
        }
    }
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}
