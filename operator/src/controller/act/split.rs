//! The TrafficSplit.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Api, Resource,
    api::{DeleteParams, Preconditions},
};
use sluice_crds::{
    CANDIDATE, MeshRollout, STABLE, SplitArm, TrafficSplit, TrafficSplitSpec, names,
};
use sluice_rollout::desired::DesiredSplit;

use super::{ActError, Writer, params};
use crate::controller::{
    facts::{Meta, SplitFacts},
    seen::Kind,
    stored::kept,
};

const CRD: &str = "trafficsplits.sluice.dev";

/// The spec that a decision asks for.
#[must_use]
pub fn spec(desired: &DesiredSplit, services: &[String]) -> TrafficSplitSpec {
    let weight = if desired.candidate.is_some() {
        desired.weight
    } else {
        0
    };
    let mut arms = vec![SplitArm {
        name: STABLE.to_owned(),
        weight: 100 - weight,
        pod_label_values: desired.stable.clone(),
        pod_label: desired.pod_label.clone(),
        include_gated: false,
        excluded_pods: Vec::new(),
    }];
    if let Some(candidate) = &desired.candidate {
        arms.push(SplitArm {
            name: CANDIDATE.to_owned(),
            weight,
            pod_label_values: candidate.clone(),
            pod_label: desired.pod_label.clone(),
            // Mode A's candidates wait behind our gate; mode B's are as ready as they say.
            include_gated: desired.pod_label == names::POD_TEMPLATE_HASH,
            excluded_pods: desired.excluded.clone(),
        });
    }
    TrafficSplitSpec {
        fence: desired.fence,
        services: services.to_vec(),
        revision: desired.revision.clone(),
        arms,
        leased: desired.leased,
        hung_after_ms: desired.hung_after_ms,
    }
}

/// Our owner reference to a MeshRollout: what goes with it when it is deleted.
pub(super) fn owner(rollout: &Meta) -> OwnerReference {
    OwnerReference {
        api_version: MeshRollout::api_version(&()).into_owned(),
        kind: MeshRollout::kind(&()).into_owned(),
        name: rollout.name.clone(),
        uid: rollout.uid.clone(),
        controller: Some(true),
        // The owner never waits for its split or its candidate.
        block_owner_deletion: Some(false),
    }
}

impl Writer<'_> {
    /// Makes the TrafficSplit say what the decision says; without a decision it goes.
    pub async fn split(
        &self,
        existing: Option<&SplitFacts>,
        desired: Option<&DesiredSplit>,
        services: &[String],
    ) -> Result<(), ActError> {
        let ours = existing.filter(|s| s.meta.owned_by("MeshRollout", &self.rollout.meta.uid));
        if let Some(stranger) = existing.filter(|_| ours.is_none()) {
            return self.remove_stranger(stranger).await;
        }
        match (ours, desired.filter(|_| !services.is_empty())) {
            (None, None) => Ok(()),
            (Some(split), None) => self.delete_split(split).await,
            (None, Some(desired)) => self.create_split(spec(desired, services)).await,
            (Some(split), Some(desired)) => {
                let spec = spec(desired, services);
                if split.object().spec == spec {
                    return Ok(());
                }
                self.replace_split(split, spec).await
            }
        }
    }

    /// A split left by an earlier MeshRollout of this name goes now and not when the garbage
    /// collector comes; anybody else's stays, and is said.
    async fn remove_stranger(&self, split: &SplitFacts) -> Result<(), ActError> {
        let name = &split.meta.name;
        match &split.meta.owner {
            Some(owner) if owner.kind == "MeshRollout" => self.delete_split(split).await,
            _ => Err(ActError::Waits(format!(
                "TrafficSplit {name} was not made by this MeshRollout: delete it, then traffic is split"
            ))),
        }
    }

    async fn create_split(&self, spec: TrafficSplitSpec) -> Result<(), ActError> {
        let meta = &self.rollout.meta;
        let mut split = TrafficSplit::new(&meta.name, spec);
        split.metadata = ObjectMeta {
            name: Some(meta.name.clone()),
            namespace: Some(meta.namespace.clone()),
            owner_references: Some(vec![owner(meta)]),
            ..ObjectMeta::default()
        };
        let what = format!("creating TrafficSplit {}", meta.name);
        let request = async { self.splits().create(&params(), &split).await };
        let stored = self.send(Kind::Split, what, request).await?;
        kept(CRD, "spec", &split.spec, &stored.spec)
    }

    async fn replace_split(
        &self,
        split: &SplitFacts,
        spec: TrafficSplitSpec,
    ) -> Result<(), ActError> {
        let mut next = split.object();
        let what = format!("TrafficSplit {} to fence {}", split.meta.name, spec.fence);
        if split.fence > spec.fence {
            return Err(ActError::Conflict(what));
        }
        next.spec = spec;
        let request = async {
            self.splits()
                .replace(&split.meta.name, &params(), &next)
                .await
        };
        let stored = self.send(Kind::Split, what, request).await?;
        kept(CRD, "spec", &next.spec, &stored.spec)
    }

    async fn delete_split(&self, split: &SplitFacts) -> Result<(), ActError> {
        let what = format!("deleting TrafficSplit {}", split.meta.name);
        let params = DeleteParams::background().preconditions(exactly(&split.meta));
        let request = async { self.splits().delete(&split.meta.name, &params).await };
        self.send_delete(Kind::Split, what, &split.meta, request)
            .await
    }

    pub(super) fn splits(&self) -> Api<TrafficSplit> {
        Api::namespaced(self.client.clone(), &self.rollout.meta.namespace)
    }
}

/// Only if the object is as it was read.
pub(super) fn exactly(meta: &Meta) -> Preconditions {
    Preconditions {
        uid: Some(meta.uid.clone()),
        resource_version: Some(meta.version.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired() -> DesiredSplit {
        DesiredSplit {
            fence: 7,
            revision: "r2".to_owned(),
            pod_label: "pod-template-hash".to_owned(),
            stable: vec!["abc".to_owned()],
            candidate: Some(vec!["sluice-r2".to_owned()]),
            excluded: vec!["web-sluice-r2-x".to_owned()],
            weight: 10,
            leased: true,
            hung_after_ms: 10_000,
        }
    }

    #[test]
    fn both_arms_are_told_and_sum_to_100() {
        let spec = spec(&desired(), &["web".to_owned()]);
        assert_eq!(
            spec.arms.iter().map(|arm| arm.weight).collect::<Vec<_>>(),
            [90, 10]
        );
        assert_eq!(spec.candidate_weight(), 10);
        assert!(spec.arms[1].include_gated && !spec.arms[0].include_gated);
        assert_eq!(spec.arms[1].excluded_pods, ["web-sluice-r2-x"]);
        assert!(spec.arms[0].excluded_pods.is_empty());
    }

    #[test]
    fn without_a_candidate_stable_has_everything() {
        let spec = spec(
            &DesiredSplit {
                candidate: None,
                ..desired()
            },
            &["web".to_owned()],
        );
        assert_eq!(spec.arms.len(), 1);
        assert_eq!(spec.arms[0].weight, 100);
    }
}
