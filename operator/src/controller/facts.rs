//! What is kept of each object: the few facts that a decision needs. Pod templates are reduced
//! to their revision, so that a large cluster fits into a small process; fields that this
//! version of Sluice does not know still count, because templates are read as they came.

mod autoscaler;
mod labels;
mod packed;
mod rollout;
mod split;

pub use autoscaler::AutoscalerFacts;
pub use labels::Labels;
pub use packed::Packed;
pub use rollout::RolloutFacts;
pub use split::SplitFacts;

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{ContainerStatus, ObjectReference, Pod, Service},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use kube::api::DynamicObject;
use serde_json::Value;
use sluice_crds::names;
use sluice_mesh::{ExportTo, WrongExportTo};
use sluice_rollout::revision;

/// Field manager of every write of ours.
pub const MANAGER: &str = "sluice-controller";
/// kubectl's record of what was applied last, client-side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Namespace and name of a MeshRollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
    /// Its generation; 0 where there is none.
    pub generation: i64,
    /// When it was created, ms since 1970.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its labels.
    pub labels: Labels,
    /// Its controller.
    pub owner: Option<OwnerFact>,
}

/// The owner reference with `controller: true`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerFact {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Anything that a cache can keep.
pub trait Kept: Send + Sync + 'static {
    /// What every object has.
    fn meta(&self) -> &Meta;

    /// Whether a decision could be another one than with the object as it was kept before.
    fn is_news(&self, _before: &Self) -> bool {
        true
    }
}

macro_rules! kept {
    ($($kind:ty),*) => {$(
        impl Kept for $kind {
            fn meta(&self) -> &Meta {
                &self.meta
            }
        }
    )*};
}
kept!(
    RolloutFacts,
    SplitFacts,
    DeploymentFacts,
    ReplicaSetFacts,
    PodFacts,
    ServiceFacts
);

/// A Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeploymentFacts {
    /// What every object has.
    pub meta: Meta,
    /// Revision of its template.
    pub revision: String,
    /// Labels of its template.
    pub template_labels: Labels,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `spec.paused`.
    pub paused: bool,
    /// Who in git says `paused: true`.
    pub paused_by_git: Option<String>,
    /// Who else, not we, has set `spec.paused`.
    pub paused_by_hand: Option<String>,
    /// As `kubectl rollout status` says.
    pub complete: bool,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSetFacts {
    /// What every object has.
    pub meta: Meta,
    /// Revision of its template.
    pub revision: String,
    /// Label `pod-template-hash` of its pods.
    pub pod_hash: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`: pods as its controller counts them.
    pub pods: i32,
    /// `status.availableReplicas`: ready for `minReadySeconds`.
    pub available: i32,
    /// Why its controller cannot make pods.
    pub failure: Option<String>,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// What every object has.
    pub meta: Meta,
    /// Condition Ready.
    pub ready: bool,
    /// Condition ContainersReady.
    pub containers_ready: bool,
    /// It has our readiness gate.
    pub gated: bool,
    /// Our readiness gate is open.
    pub promoted: bool,
    /// It has ended, well or badly.
    pub finished: bool,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// That is its node's address too.
    pub on_host: bool,
    /// Why it does not start, if the kubelet or the scheduler says so.
    pub trouble: Option<String>,
    /// What it waits for while it runs and is not ready.
    pub unready: Option<String>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFacts {
    /// What every object has.
    pub meta: Meta,
    /// `spec.selector`; empty: it selects nothing by itself.
    pub selector: Labels,
    /// What is wrong with its annotation `networking.istio.io/exportTo`.
    pub wrong_export_to: Option<WrongExportTo>,
}

impl Meta {
    /// The object, for an event about it.
    #[must_use]
    pub fn reference(&self, api_version: &str, kind: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    fn of(meta: &ObjectMeta) -> Self {
        let owners = meta.owner_references.iter().flatten();
        let owner = owners
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| OwnerFact {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            });
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_millisecond()),
            deleting: meta.deletion_timestamp.is_some(),
            labels: meta.labels.clone().unwrap_or_default().into(),
            owner: { owner }.next(),
        }
    }

    /// The key of the MeshRollout of the same namespace and name.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether an object of this kind and uid controls this one.
    #[must_use]
    pub fn owned_by(&self, kind: &str, uid: &str) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner.kind == kind && owner.uid == uid)
    }
}

impl DeploymentFacts {
    /// Keeps a Deployment.
    #[must_use]
    pub fn of(object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let paused = spec["paused"].as_bool().unwrap_or_default();
        let meta = Meta::of(&object.metadata);
        Self {
            revision: revision::of_template(&spec["template"]),
            template_labels: labels_of(&spec["template"]["metadata"]["labels"]),
            replicas: number(&spec["replicas"], 1),
            paused,
            paused_by_git: paused.then(|| pauser(&object.metadata)).flatten(),
            paused_by_hand: paused
                .then(|| owner_of_paused(&object.metadata, "Update"))
                .flatten(),
            complete: complete(&object.data, meta.generation),
            meta,
        }
    }
}

impl ReplicaSetFacts {
    /// Keeps a ReplicaSet.
    #[must_use]
    pub fn of(object: &DynamicObject) -> Self {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let labels = &spec["template"]["metadata"]["labels"];
        Self {
            meta: Meta::of(&object.metadata),
            revision: revision::of_template(&spec["template"]),
            pod_hash: text(&labels[names::POD_TEMPLATE_HASH]),
            replicas: number(&spec["replicas"], 1),
            pods: number(&status["replicas"], 0),
            available: number(&status["availableReplicas"], 0),
            failure: condition(status, "ReplicaFailure", "True").map(|c| text(&c["message"])),
        }
    }

    /// Whether it neither has pods nor asks for any.
    #[must_use]
    pub fn empty(&self) -> bool {
        self.replicas == 0 && self.pods == 0
    }
}

impl PodFacts {
    /// Keeps a Pod.
    #[must_use]
    pub fn of(object: &Pod) -> Self {
        let status = object.status.as_ref();
        let conditions = || status.iter().flat_map(|s| s.conditions.iter().flatten());
        let is_true = |kind: &str| conditions().any(|c| c.type_ == kind && c.status == "True");
        let gates = object
            .spec
            .iter()
            .flat_map(|spec| spec.readiness_gates.iter().flatten());
        let phase = status.and_then(|s| s.phase.as_deref());
        Self {
            meta: Meta::of(&object.metadata),
            ready: is_true("Ready"),
            containers_ready: is_true("ContainersReady"),
            gated: { gates }.any(|gate| gate.condition_type == names::PROMOTED_GATE),
            promoted: is_true(names::PROMOTED_GATE),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            address: status
                .and_then(|s| s.pod_ip.as_deref())
                .and_then(|ip| ip.parse().ok()),
            on_host: object.spec.as_ref().and_then(|spec| spec.host_network) == Some(true),
            trouble: pod_trouble(object),
            unready: pod_unready(object),
        }
    }

    /// Whether it counts as a pod of its ReplicaSet.
    #[must_use]
    pub fn lives(&self) -> bool {
        !self.meta.deleting && !self.finished
    }
}

impl ServiceFacts {
    /// Keeps a Service.
    #[must_use]
    pub fn of(object: &Service) -> Self {
        let selector = object.spec.as_ref().and_then(|spec| spec.selector.clone());
        let annotations = object.metadata.annotations.as_ref();
        let export_to = annotations.and_then(|all| all.get(names::EXPORT_TO));
        let export_to = ExportTo::of_annotation(export_to.map(String::as_str));
        Self {
            meta: Meta::of(&object.metadata),
            selector: selector.unwrap_or_default().into(),
            wrong_export_to: export_to.and_then(Result::err),
        }
    }

    /// Whether its selector takes pods with these labels.
    #[must_use]
    pub fn takes(&self, labels: &Labels) -> bool {
        !self.selector.is_empty() && labels.contain(&self.selector)
    }
}

/// Waiting reasons that do not go away by waiting a moment.
const TROUBLES: [&str; 8] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

fn pod_trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let containers = status.init_container_statuses.iter().flatten();
    let waiting = containers
        .chain(status.container_statuses.iter().flatten())
        .find_map(|c| {
            let waiting = c.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            let detail = last_end(c).or(waiting.message.clone());
            let detail = detail.unwrap_or_else(|| "no message".to_owned());
            TROUBLES
                .contains(&reason)
                .then(|| format!("pod {name}, container {}: {reason} ({detail})", c.name))
        });
    let unschedulable = || {
        let mut conditions = status.conditions.iter().flatten();
        let scheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        let detail = scheduled.message.as_deref().unwrap_or("no message");
        Some(format!("pod {name} finds no node: {detail}"))
    };
    waiting.or_else(unschedulable)
}

/// How a container that is to be restarted has ended. The kubelet's own message tells of the
/// time until then, which changes and helps nobody.
fn last_end(container: &ContainerStatus) -> Option<String> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("ended");
    Some(format!(
        "{reason}, exit code {}: see its log with `--previous`",
        ended.exit_code
    ))
}

/// What the kubelet says of a pod that runs and is not ready.
fn pod_unready(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let conditions = &pod.status.as_ref()?.conditions;
    let unready = conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "ContainersReady" && c.status == "False")?;
    Some(format!("pod {name}: {}", unready.message.as_deref()?))
}

/// `kubectl rollout status` of a Deployment, after kubectl's `DeploymentStatusViewer`.
fn complete(deployment: &Value, generation: i64) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    if status["observedGeneration"].as_i64().unwrap_or_default() < generation {
        return false;
    }
    let late = condition(status, "Progressing", "False");
    if late.is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded") {
        return false;
    }
    let updated = number(&status["updatedReplicas"], 0);
    updated >= number(&spec["replicas"], 1)
        && number(&status["replicas"], 0) <= updated
        && number(&status["availableReplicas"], 0) >= updated
}

/// Who keeps `spec.paused: true` in git: an applier that owns the field, or kubectl's own record
/// of the last client-side apply. Webhooks and plain updates leave neither.
fn pauser(meta: &ObjectMeta) -> Option<String> {
    if let Some(applier) = owner_of_paused(meta, "Apply") {
        return Some(applier);
    }
    let recorded = meta.annotations.as_ref()?.get(LAST_APPLIED)?;
    let applied: Value = serde_json::from_str(recorded).ok()?;
    (applied["spec"]["paused"] == true).then(|| "kubectl apply".to_owned())
}

/// The manager, other than us, that owns `spec.paused` by this operation.
fn owner_of_paused(meta: &ObjectMeta, operation: &str) -> Option<String> {
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        entry.operation.as_deref() == Some(operation)
            && entry.manager.as_deref() != Some(MANAGER)
            && fields.is_some_and(|f| !f.0["f:spec"]["f:paused"].is_null())
    };
    let owner = meta.managed_fields.iter().flatten().find(owns)?;
    Some(owner.manager.clone().unwrap_or_default())
}

fn condition<'a>(status: &'a Value, kind: &str, value: &str) -> Option<&'a Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|c| c["type"] == kind && c["status"] == value)
}

fn labels_of(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    let entries = entries.map(|(key, value)| (key.clone(), text(value)));
    entries.collect::<BTreeMap<_, _>>().into()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, default: i32) -> i32 {
    value
        .as_i64()
        .and_then(|n| i32::try_from(n).ok())
        .unwrap_or(default)
}

#[cfg(test)]
mod tests;
