//! Objects for tests.

use serde_json::{Value, json};
use sluice_crds::MeshRolloutStatus;

use super::facts::{
    AutoscalerFacts, DeploymentFacts, Kept, Labels, Meta, OwnerFact, PodFacts, ReplicaSetFacts,
    RolloutFacts, ServiceFacts,
};

/// Namespace of all fixtures.
pub const NAMESPACE: &str = "shop";

fn meta(name: &str) -> Meta {
    Meta {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        version: "1".to_owned(),
        ..Meta::default()
    }
}

fn rollout_with(name: &str, spec: Value) -> RolloutFacts {
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "MeshRollout",
        "metadata": {"namespace": NAMESPACE, "name": name, "uid": name, "resourceVersion": "1",
            "generation": 1},
        "spec": spec,
    });
    RolloutFacts::of(serde_json::from_value(object).expect("a valid MeshRollout"))
}

/// A MeshRollout of a Deployment; its uid is its name.
pub fn rollout(name: &str, deployment: &str) -> RolloutFacts {
    rollout_with(name, json!({"workload": {"name": deployment}}))
}

/// The MeshRollout with this state.
pub fn with_state(rollout: &RolloutFacts, state: Value) -> RolloutFacts {
    RolloutFacts::of(rollout.with(Some(MeshRolloutStatus {
        state: Some(state),
        ..MeshRolloutStatus::default()
    })))
}

/// A MeshRollout of two subsets, `version: v1` and `version: v2`.
pub fn rollout_of_versions(name: &str, services: &[&str]) -> RolloutFacts {
    let versions = json!({"label": "version", "stable": "v1", "candidate": "v2"});
    rollout_with(name, json!({"versions": versions, "services": services}))
}

/// A Deployment of three pods labelled `app: NAME`, complete; its uid is its name.
pub fn deployment(name: &str, revision: &str) -> DeploymentFacts {
    DeploymentFacts {
        meta: meta(name),
        revision: revision.to_owned(),
        template_labels: Labels::default().with("app", name),
        replicas: 3,
        complete: true,
        ..DeploymentFacts::default()
    }
}

/// A ReplicaSet without pods, of revision `r1`; its uid and pod hash are its name.
pub fn replica_set(name: &str) -> ReplicaSetFacts {
    ReplicaSetFacts {
        meta: meta(name),
        revision: "r1".to_owned(),
        pod_hash: name.to_owned(),
        ..ReplicaSetFacts::default()
    }
}

/// A pod that is not ready.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        meta: meta(name),
        ..PodFacts::default()
    }
}

/// A Service that takes pods labelled `app: APP`.
pub fn service(name: &str, app: &str) -> ServiceFacts {
    ServiceFacts {
        meta: meta(name),
        selector: Labels::default().with("app", app),
        wrong_export_to: None,
    }
}

/// An autoscaler of a Deployment; its uid is its name.
pub fn autoscaler(name: &str, deployment: &str) -> AutoscalerFacts {
    AutoscalerFacts {
        meta: meta(name),
        deployment: Some(deployment.to_owned()),
        ..AutoscalerFacts::default()
    }
}

/// What every fixture can be told.
pub trait Build: Kept + Sized {
    /// Its metadata.
    fn meta_mut(&mut self) -> &mut Meta;

    /// Controlled by an object of this kind; its uid is its name.
    fn owned(mut self, kind: &str, name: &str) -> Self {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.meta_mut().owner = Some(OwnerFact {
            kind,
            uid: name.clone(),
            name,
        });
        self
    }

    /// With a label.
    fn labelled(mut self, label: &str, value: &str) -> Self {
        let meta = self.meta_mut();
        meta.labels = meta.labels.with(label, value);
        self
    }

    /// Created at this time, ms since 1970.
    fn created(mut self, at: i64) -> Self {
        self.meta_mut().created = at;
        self
    }
}

macro_rules! build {
    ($($kind:ty),*) => {$(
        impl Build for $kind {
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
        }
    )*};
}
build!(
    RolloutFacts,
    DeploymentFacts,
    ReplicaSetFacts,
    PodFacts,
    ServiceFacts
);
