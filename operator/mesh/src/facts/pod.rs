//! What is kept of a Pod.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use sluice_crds::names::POD_TEMPLATE_HASH;
use sluice_xds::metadata::EndpointFacts;

use super::ObjectKey;
use crate::intern::Interner;

/// A pod, as far as endpoints are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub template: Arc<Template>,
    pub ready: bool,
    pub containers_ready: bool,
    pub deleting: bool,
}

/// What the pods of one ReplicaSet have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    pub labels: BTreeMap<String, String>,
    pub workload: String,
    pub account: String,
}

impl PodFacts {
    pub(crate) fn of(pod: &Pod, templates: &mut Interner<Template>) -> Self {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let account = pod.spec.as_ref();
        let account = account.and_then(|spec| spec.service_account_name.as_deref());
        let template = Template {
            workload: workload(pod, &labels),
            account: account.unwrap_or("default").to_owned(),
            labels,
        };
        Self {
            template: templates.intern(template),
            ready: condition(pod, "Ready"),
            containers_ready: condition(pod, "ContainersReady"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl Template {
    /// What metrics say of a pod of this template. The canonical names are found as Istio does:
    /// <https://istio.io/latest/docs/ops/common-problems/canonical-service/>.
    pub(crate) fn endpoint(&self, pod: &ObjectKey, trust_domain: &str) -> EndpointFacts {
        let label = |name: &str| self.labels.get(name).map(String::as_str);
        let canonical_name = label("service.istio.io/canonical-name")
            .or_else(|| label("app.kubernetes.io/name"))
            .or_else(|| label("app"))
            .unwrap_or(&self.workload);
        let canonical_revision = label("service.istio.io/canonical-revision")
            .or_else(|| label("app.kubernetes.io/version"))
            .or_else(|| label("version"))
            .unwrap_or("latest");
        let ObjectKey { namespace, name } = pod;
        let account = &self.account;
        EndpointFacts {
            pod: name.clone(),
            namespace: namespace.clone(),
            workload: self.workload.clone(),
            app: label("app").unwrap_or_default().to_owned(),
            version: label("version").unwrap_or_default().to_owned(),
            canonical_name: canonical_name.to_owned(),
            canonical_revision: canonical_revision.to_owned(),
            principal: format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}"),
        }
    }
}

fn condition(pod: &Pod, type_: &str) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut of_type = conditions.filter(|condition| condition.type_ == type_);
    of_type.any(|condition| condition.status == "True")
}

/// The Deployment of a ReplicaSet's pod: the ReplicaSet's name without the hash that its pods
/// carry as label. Else the owner, else the pod itself.
fn workload(pod: &Pod, labels: &BTreeMap<String, String>) -> String {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let Some(owner) = controllers.next() else {
        return pod.metadata.name.clone().unwrap_or_default();
    };
    let hash = labels.get(POD_TEMPLATE_HASH);
    let deployment = hash
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| {
            let stem = owner.name.strip_suffix(hash.as_str())?;
            stem.strip_suffix('-')
        });
    deployment.unwrap_or(&owner.name).to_owned()
}
