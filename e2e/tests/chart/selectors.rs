//! Which pods the injector is asked about.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::MutatingWebhookConfiguration,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

type Labels = BTreeMap<String, String>;

/// Names of the injector's webhooks that are asked about a pod.
fn asked(namespace: &Labels, pod: &Labels) -> Vec<String> {
    let all: Vec<MutatingWebhookConfiguration> = crate::of("MutatingWebhookConfiguration");
    all.into_iter()
        .filter(|configuration| configuration.metadata.name.as_deref() == Some("sluice-inject"))
        .flat_map(|configuration| configuration.webhooks.unwrap())
        .filter(|webhook| selects(webhook.namespace_selector.as_ref(), namespace))
        .filter(|webhook| selects(webhook.object_selector.as_ref(), pod))
        .map(|webhook| webhook.name)
        .collect()
}

fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else {
        return true;
    };
    selector
        .match_expressions
        .iter()
        .flatten()
        .all(|expression| {
            let value = labels.get(&expression.key);
            let among =
                value.is_some_and(|value| expression.values.iter().flatten().any(|v| v == value));
            match expression.operator.as_str() {
                "In" => among,
                "NotIn" => !among,
                "DoesNotExist" => value.is_none(),
                "Exists" => value.is_some(),
                other => panic!("{other}"),
            }
        })
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_injector_is_asked_once_about_a_pod_that_may_want_a_sidecar_and_never_about_others() {
    let ours = |value: &'static str| ("sluice.dev/inject", value);
    let istio = |value: &'static str| ("istio-injection", value);
    let cases: [(&[_], &[_], usize); 11] = [
        (&[], &[], 0),
        (&[ours("true")], &[], 1),
        (&[ours("false")], &[], 0),
        (&[istio("enabled")], &[], 1),
        (&[ours("false"), istio("enabled")], &[], 0),
        (&[ours("true"), istio("enabled")], &[], 1),
        (&[ours("true")], &[ours("false")], 0),
        (&[ours("true"), istio("enabled")], &[ours("true")], 1),
        (&[], &[ours("true")], 1),
        // Asked, so that the audit log says why it gets none.
        (&[ours("false")], &[ours("true")], 1),
        (
            &[
                ours("true"),
                ("kubernetes.io/metadata.name", "sluice-system"),
            ],
            &[],
            0,
        ),
    ];
    for (namespace, pod, times) in cases {
        let asked = asked(&labels(namespace), &labels(pod));
        assert_eq!(
            asked.len(),
            times,
            "namespace {namespace:?}, pod {pod:?}: {asked:?}"
        );
    }
}
