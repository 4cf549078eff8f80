//! The candidate ReplicaSet and its pods, from the Deployment as it came.

use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use serde_json::{Value, json};
use sluice_crds::names;
use sluice_rollout::revision::candidate_pod_hash;

use super::split::owner;
use crate::controller::facts::Meta;

/// Name of the candidate ReplicaSet of a Deployment.
pub(super) fn name(deployment: &str, revision: &str) -> String {
    format!("{deployment}-{}", candidate_pod_hash(revision))
}

/// The Deployment's template with the candidate's hash; otherwise identical, or the Deployment
/// would not adopt the ReplicaSet as the one of its template.
fn template(deployment: &DynamicObject, revision: &str) -> Value {
    let mut template = deployment.data["spec"]["template"].clone();
    template["metadata"]["labels"][names::POD_TEMPLATE_HASH] = json!(candidate_pod_hash(revision));
    template
}

/// The candidate ReplicaSet.
pub(super) fn replica_set(
    resource: &ApiResource,
    deployment: &DynamicObject,
    rollout: &Meta,
    revision: &str,
    replicas: i32,
) -> DynamicObject {
    let spec = &deployment.data["spec"];
    let template = template(deployment, revision);
    let mut selector = spec["selector"].clone();
    selector["matchLabels"][names::POD_TEMPLATE_HASH] = json!(candidate_pod_hash(revision));
    let labels = template["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten();
    let mut labels: std::collections::BTreeMap<String, String> = labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    labels.insert(names::ROLLOUT.to_owned(), rollout.name.clone());
    let name = name(
        deployment.metadata.name.as_deref().unwrap_or_default(),
        revision,
    );
    let mut set = DynamicObject::new(&name, resource)
        .within(&rollout.namespace)
        .data(json!({
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        }));
    if !spec["minReadySeconds"].is_null() {
        set.data["spec"]["minReadySeconds"] = spec["minReadySeconds"].clone();
    }
    set.metadata.labels = Some(labels);
    set.metadata.owner_references = Some(vec![owner(rollout)]);
    set
}

/// A pod as the ReplicaSet would make it: to ask whether the gate is in force.
pub(super) fn probe(
    resource: &ApiResource,
    deployment: &DynamicObject,
    namespace: &str,
    revision: &str,
) -> DynamicObject {
    let mut template = template(deployment, revision);
    let metadata = serde_json::from_value::<ObjectMeta>(template["metadata"].take());
    let deployment = deployment.metadata.name.as_deref().unwrap_or_default();
    // A name of its own, and always the same: a refusal that names it says the same again.
    let probe = format!("{}-probe", name(deployment, revision));
    let mut pod = DynamicObject::new(&probe, resource)
        .within(namespace)
        .data(json!({"spec": template["spec"].take()}));
    pod.metadata = ObjectMeta {
        name: Some(probe),
        namespace: Some(namespace.to_owned()),
        ..metadata.unwrap_or_default()
    };
    pod
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    };
    use sluice_rollout::revision::of_template;

    use super::*;

    fn deployment() -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "annotations": {"git": "x"}},
            "spec": {
                "replicas": 3, "minReadySeconds": 5,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
                    "spec": {"containers": [{"name": "app", "image": "web:2", "future": true}]},
                },
            },
        }))
        .unwrap()
    }

    fn rollout() -> Meta {
        Meta {
            namespace: "shop".to_owned(),
            name: "web-rollout".to_owned(),
            uid: "u".to_owned(),
            ..Meta::default()
        }
    }

    #[test]
    fn the_candidate_is_the_deployments_template_and_nothing_else() {
        let deployment = deployment();
        let revision = of_template(&deployment.data["spec"]["template"]);
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let set = replica_set(&resource, &deployment, &rollout(), &revision, 2);
        assert_eq!(of_template(&set.data["spec"]["template"]), revision);
        assert_eq!(
            set.data["spec"]["template"]["spec"]["containers"][0]["future"],
            true
        );
        assert_eq!(set.data["spec"]["minReadySeconds"], 5);
        let hash = format!("sluice-{}", &revision[..10]);
        assert_eq!(set.metadata.name.as_deref(), Some(&*format!("web-{hash}")));
        assert_eq!(
            set.data["spec"]["selector"]["matchLabels"]["pod-template-hash"],
            hash
        );
        assert_eq!(
            set.data["spec"]["template"]["metadata"]["labels"]["pod-template-hash"],
            hash
        );
        let typed: ReplicaSet = set.try_parse().unwrap();
        assert_eq!(typed.spec.unwrap().replicas, Some(2));
    }

    #[test]
    fn the_rollout_label_is_on_the_replica_set_and_not_in_its_template() {
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let set = replica_set(&resource, &deployment(), &rollout(), "0123456789abcdef", 1);
        assert_eq!(set.metadata.labels.unwrap()[names::ROLLOUT], "web-rollout");
        assert!(set.data["spec"]["template"]["metadata"]["labels"][names::ROLLOUT].is_null());
        assert_eq!(
            set.metadata.owner_references.unwrap()[0].controller,
            Some(true)
        );
        assert_eq!(
            set.metadata.annotations, None,
            "parents' annotations are not copied"
        );
    }

    #[test]
    fn the_probe_is_a_pod_of_the_template() {
        let resource = ApiResource::erase::<Pod>(&());
        let pod = probe(&resource, &deployment(), "shop", "0123456789abcdef");
        assert_eq!(
            pod.metadata.labels.as_ref().unwrap()["pod-template-hash"],
            "sluice-0123456789"
        );
        assert_eq!(
            pod.metadata.name.as_deref(),
            Some("web-sluice-0123456789-probe")
        );
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()["a"], "b");
        assert_eq!(pod.data["spec"]["containers"][0]["image"], "web:2");
        let _typed: Pod = pod.try_parse().unwrap();
        let _also: Deployment = deployment().try_parse().unwrap();
    }
}
