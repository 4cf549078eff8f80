//! `charts/sluice`: what it renders, what it refuses, and what its accounts may do in a real apiserver.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "chart/accounts.rs"]
mod accounts;
mod api;
#[path = "chart/selectors.rs"]
mod selectors;
#[path = "chart/typed.rs"]
mod typed;

use std::{collections::BTreeSet, fs, path::Path};

use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    apps::v1::Deployment,
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use serde_json::{Value, json};
use sluice_e2e::helm::{self, helm, render};

const EVERYTHING: &str = r#"
networkPolicies: {install: true}
imagePullSecrets: [{name: registry}]
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: dedicated, operator: Exists}]
image: {repository: registry.example.com/sluice/operator, tag: 1.2.3, pullPolicy: Always}
"#;

#[test]
fn the_linter_has_nothing_to_say() {
    let output = helm(&[
        "lint",
        "--strict",
        &helm::chart(),
        "--kube-version",
        "1.34.4",
    ]);
    output.unwrap_or_else(|why| panic!("{why}"));
}

/// `UPDATE=1` writes the golden file anew.
#[test]
fn the_chart_renders_what_was_looked_at() {
    let rendered = render(&["--set", "crds.install=false"]).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chart.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &rendered).unwrap();
    }
    assert!(
        fs::read_to_string(&golden).unwrap() == rendered,
        "the chart renders something else than {}: look at the difference after `UPDATE=1 cargo test -p sluice-e2e --test chart`",
        golden.display()
    );
}

#[test]
fn every_document_is_of_a_known_kind_and_has_no_field_that_kubernetes_would_drop() {
    for documents in [documents(&[]), documents_with(EVERYTHING)] {
        for document in documents {
            typed::check(&document);
        }
    }
}

#[test]
fn the_crds_are_installed_unless_the_values_say_otherwise_and_stay_when_the_chart_goes() {
    let of_kind = |documents: Vec<Value>| -> Vec<Value> {
        let crd = |d: &Value| d["kind"] == "CustomResourceDefinition";
        documents.into_iter().filter(crd).collect()
    };
    let crds = of_kind(documents(&[]));
    assert_eq!(crds.len(), sluice_crds::yaml::all().len());
    for crd in &crds {
        assert_eq!(
            crd["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
    }
    assert!(of_kind(documents(&["--set", "crds.install=false"])).is_empty());
}

#[test]
fn a_value_that_the_chart_does_not_know_is_refused() {
    for wrong in [
        "controler.replicas=3",
        "controller.replica=3",
        "controller.replicas=0",
        "image.pullPolicy=Sometimes",
    ] {
        let why = render(&["--set", wrong]).expect_err(wrong);
        assert!(
            why.contains("values don't meet the specifications of the schema"),
            "{wrong}: {why}"
        );
    }
}

#[test]
fn another_namespace_is_refused_with_a_sentence_that_says_what_to_write() {
    let why = helm(&[
        "template",
        "sluice",
        &helm::chart(),
        "--kube-version",
        "1.34.4",
        "--namespace",
        "default",
    ]);
    assert!(why.unwrap_err().contains(
        "install it with `--namespace sluice-system --create-namespace`, not into default"
    ));
}

#[test]
fn no_role_has_a_wildcard_and_secrets_are_named() {
    for document in documents(&[]) {
        let (name, rules) = match document["kind"].as_str().unwrap() {
            "ClusterRole" => {
                let role: ClusterRole = serde_json::from_value(document).unwrap();
                (role.metadata.name, role.rules)
            }
            "Role" => {
                let role: Role = serde_json::from_value(document).unwrap();
                (role.metadata.name, role.rules)
            }
            _ => continue,
        };
        for rule in rules.unwrap() {
            check_rule(&name.clone().unwrap(), &rule);
        }
    }
}

#[test]
fn no_role_but_the_controllers_may_write_a_traffic_split() {
    for document in documents(&[]) {
        if document["kind"] != "ClusterRole" && document["kind"] != "Role" {
            continue;
        }
        let rules = document["rules"].as_array().unwrap().iter();
        let mut writes = rules.filter(|rule| {
            let holds = |list: &str, word: &str| {
                let words = rule[list].as_array().unwrap().iter();
                words.clone().any(|one| one == word)
            };
            holds("resources", "trafficsplits")
                && ["create", "update", "patch"]
                    .iter()
                    .any(|verb| holds("verbs", verb))
        });
        let role = &document["metadata"]["name"];
        assert!(
            writes.next().is_none() || role == "sluice-controller",
            "{role}"
        );
    }
}

fn check_rule(role: &str, rule: &PolicyRule) {
    let resources = rule.resources.clone().unwrap_or_default();
    let groups = rule.api_groups.clone().unwrap_or_default();
    assert!(rule.non_resource_urls.is_none(), "{role}");
    for word in resources.iter().chain(&groups).chain(&rule.verbs) {
        assert!(!word.contains('*'), "{role} has a wildcard: {rule:?}");
    }
    for power in ["escalate", "bind", "impersonate", "deletecollection"] {
        assert!(
            !rule.verbs.iter().any(|verb| verb == power),
            "{role} may {power}: {rule:?}"
        );
    }
    if resources.iter().any(|resource| resource == "secrets") && rule.resource_names.is_none() {
        assert_eq!(
            rule.verbs,
            ["create"],
            "{role} reads Secrets that it does not name: {rule:?}"
        );
    }
}

/// Leave out `kind: Role`, and a Secret of any namespace could be made.
#[test]
fn nobody_has_a_right_on_secrets_outside_of_our_own_namespace() {
    for document in documents(&[]).iter().filter(|d| d["kind"] == "ClusterRole") {
        assert!(
            !document["rules"].to_string().contains("secrets"),
            "{document}"
        );
    }
}

#[test]
fn the_webhooks_come_without_a_certificate_and_ask_about_nothing_that_is_not_theirs() {
    let configurations: Vec<MutatingWebhookConfiguration> = of("MutatingWebhookConfiguration");
    let mut seen = Vec::new();
    for configuration in configurations {
        for webhook in configuration.webhooks.unwrap() {
            let client = webhook.client_config;
            let service = client.service.unwrap();
            assert_eq!(client.ca_bundle, None, "the ca role writes it");
            assert_eq!(
                (service.name.as_str(), service.namespace.as_str()),
                ("sluice-serving", "sluice-system")
            );
            assert_eq!(service.port, Some(443));
            assert_eq!(webhook.side_effects, "None");
            assert_eq!(webhook.timeout_seconds, Some(5));
            assert_eq!(webhook.reinvocation_policy.as_deref(), Some("Never"));
            let conditions = webhook.match_conditions.unwrap_or_default();
            seen.push(json!([
                configuration.metadata.name,
                webhook.name,
                service.path,
                webhook.failure_policy,
                conditions
                    .iter()
                    .map(|condition| condition.expression.clone())
                    .collect::<Vec<_>>(),
            ]));
        }
    }
    let wanted = [
        json!(["sluice-gate", "gate.sluice.dev", "/gate", "Fail", ["false"]]),
        json!(["sluice-hold", "hold.sluice.dev", "/hold", "Fail", ["false"]]),
        json!([
            "sluice-inject",
            "inject.sluice.dev",
            "/inject",
            "Ignore",
            []
        ]),
        json!([
            "sluice-inject",
            "istio.inject.sluice.dev",
            "/inject",
            "Ignore",
            []
        ]),
        json!([
            "sluice-inject",
            "pod.inject.sluice.dev",
            "/inject",
            "Ignore",
            []
        ]),
    ];
    seen.sort_by_key(Value::to_string);
    assert_eq!(seen, wanted);
}

#[test]
fn every_role_runs_under_an_account_of_its_own_with_nothing_to_escape_with() {
    let deployments: Vec<Deployment> = of("Deployment");
    let mut accounts = BTreeSet::new();
    for deployment in &deployments {
        let name = deployment.metadata.name.clone().unwrap();
        let pod = deployment.spec.clone().unwrap().template.spec.unwrap();
        accounts.insert(pod.service_account_name.clone().unwrap());
        let context = pod.security_context.unwrap();
        assert_eq!(context.run_as_non_root, Some(true), "{name}");
        assert_eq!(
            context.seccomp_profile.unwrap().type_,
            "RuntimeDefault",
            "{name}"
        );
        for container in pod.containers {
            let context = container.security_context.unwrap();
            assert_eq!(context.allow_privilege_escalation, Some(false), "{name}");
            assert_eq!(context.read_only_root_filesystem, Some(true), "{name}");
            assert_eq!(
                context.capabilities.unwrap().drop,
                Some(vec!["ALL".to_owned()]),
                "{name}"
            );
            assert!(
                container.liveness_probe.is_some() && container.readiness_probe.is_some(),
                "{name}"
            );
            let resources = container.resources.unwrap();
            assert!(
                resources.requests.is_some() && resources.limits.is_some(),
                "{name}"
            );
        }
    }
    let wanted = ["sluice-ca", "sluice-controller", "sluice-serving"];
    assert_eq!(
        accounts.iter().map(String::as_str).collect::<Vec<_>>(),
        wanted
    );
    let replicas = |name: &str| {
        let found = deployments
            .iter()
            .find(|d| d.metadata.name.as_deref() == Some(name));
        found.unwrap().spec.as_ref().unwrap().replicas
    };
    assert_eq!(wanted.map(replicas), [Some(2); 3]);
}

/// Objects of a kind, as the chart renders them by default.
fn of<T: serde::de::DeserializeOwned>(kind: &str) -> Vec<T> {
    documents(&[])
        .into_iter()
        .filter(|document| document["kind"] == kind)
        .map(|document| serde_json::from_value(document).unwrap())
        .collect()
}

fn documents(arguments: &[&str]) -> Vec<Value> {
    helm::parse(&render(arguments).unwrap_or_else(|why| panic!("{why}")))
}

fn documents_with(values: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("values.yaml");
    fs::write(&file, values).unwrap();
    documents(&["--values", &file.display().to_string()])
}
