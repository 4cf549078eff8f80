//! Reading rendered documents as what Kubernetes knows.

use std::fmt::Debug;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
            ValidatingAdmissionPolicyBinding,
        },
        apps::v1::Deployment,
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The document is of a kind that the chart is known to have, and nothing in it is lost in its type.
pub fn check(document: &Value) {
    match document["kind"].as_str().unwrap() {
        "ClusterRole" => round_trip::<ClusterRole>(document),
        "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>(document),
        "CustomResourceDefinition" => round_trip::<CustomResourceDefinition>(document),
        "Deployment" => round_trip::<Deployment>(document),
        "MutatingWebhookConfiguration" => round_trip::<MutatingWebhookConfiguration>(document),
        "NetworkPolicy" => round_trip::<NetworkPolicy>(document),
        "PodDisruptionBudget" => round_trip::<PodDisruptionBudget>(document),
        "Role" => round_trip::<Role>(document),
        "RoleBinding" => round_trip::<RoleBinding>(document),
        "Service" => round_trip::<Service>(document),
        "ServiceAccount" => round_trip::<ServiceAccount>(document),
        "ValidatingAdmissionPolicy" => round_trip::<ValidatingAdmissionPolicy>(document),
        "ValidatingAdmissionPolicyBinding" => {
            round_trip::<ValidatingAdmissionPolicyBinding>(document)
        }
        other => panic!("the chart renders a {other}: add it here"),
    }
}

fn round_trip<T: Serialize + DeserializeOwned + Debug>(document: &Value) {
    let name = &document["metadata"]["name"];
    let typed: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|why| panic!("{} {name}: {why}", document["kind"]));
    let back = serde_json::to_value(&typed).unwrap();
    assert_eq!(
        &back, document,
        "{} {name} has a field that no API knows",
        document["kind"]
    );
}
