//! What a pod looks like after injection, and who is left alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sluice_inject::{Decision, Exclusions, Resources, Settings, decide, patch};

/// Keys and values.
type Labels = &'static [(&'static str, &'static str)];

fn pod(value: &Value) -> Pod {
    serde_json::from_value(value.clone()).unwrap()
}

fn injected(before: &Value) -> Value {
    let patch = patch(&pod(before), &Settings::default());
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
    let mut after = before.clone();
    json_patch::patch(&mut after, &patch).unwrap();
    after
}

fn labels(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn reviews() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "reviews-sluice-0123456789-",
            "labels": {"app": "reviews", "version": "v2", "pod-template-hash": "sluice-0123456789"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "1", "controller": true,
                "name": "reviews-sluice-0123456789",
            }],
        },
        "spec": {
            "containers": [{"name": "reviews", "image": "podinfo"}],
            "initContainers": [{"name": "migrate", "image": "migrate"}],
            "volumes": [{"name": "cache", "emptyDir": {}}],
        },
    })
}

#[test]
fn the_sidecar_starts_before_the_pods_own_init_containers_and_names_its_deployment() {
    insta::assert_json_snapshot!(injected(&reviews()));
}

#[test]
fn a_bare_pod_without_labels_gets_all_lists_made() {
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "shell"},
        "spec": {"containers": [{"name": "sh", "image": "busybox"}]},
    });
    insta::assert_json_snapshot!(injected(&bare));
}

#[test]
fn mesh_settings_choose_image_and_resources() {
    let settings = Settings {
        image: "registry.example/proxy:2".into(),
        resources: Resources {
            cpu_request: "50m".into(),
            memory_request: "64Mi".into(),
            memory_limit: Some("128Mi".into()),
        },
        ..Settings::default()
    };
    let text = serde_json::to_string(&patch(&pod(&reviews()), &settings)).unwrap();
    assert_eq!(
        text.matches(r#""image":"registry.example/proxy:2""#)
            .count(),
        2
    );
    assert!(text.contains(
        r#""resources":{"limits":{"memory":"128Mi"},"requests":{"cpu":"50m","memory":"64Mi"}}"#
    ));
}

#[test]
fn nothing_that_the_author_wrote_is_changed() {
    let mut before = reviews();
    before["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/default-container": "migrate"});
    before["metadata"]["labels"]["service.istio.io/canonical-name"] = json!("mine");
    let after = injected(&before);
    assert_eq!(
        after["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"],
        "migrate"
    );
    assert_eq!(
        after["metadata"]["labels"]["service.istio.io/canonical-name"],
        "mine"
    );
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"]);
    assert_eq!(
        after["spec"]["initContainers"][2],
        before["spec"]["initContainers"][0]
    );
    assert_eq!(after["spec"]["volumes"][0], before["spec"]["volumes"][0]);
}

#[test]
fn an_injected_pod_is_left_alone() {
    let after = injected(&reviews());
    let all = labels(&[("sluice.dev/inject", "true")]);
    assert!(matches!(decide(&pod(&after), &all), Decision::Skip(_)));
    let mut stripped = after;
    stripped["metadata"]["annotations"] = json!({});
    assert!(
        matches!(decide(&pod(&stripped), &all), Decision::Skip(_)),
        "by the container's name"
    );
}

#[test]
fn the_pod_or_its_namespace_asks_either_may_refuse_and_our_labels_come_before_istios() {
    const OURS: &str = "sluice.dev/inject";
    const ISTIO: &str = "sidecar.istio.io/inject";
    let (yes, no) = ("inject", "skip");
    let table: &[(Labels, Labels, &str)] = &[
        (&[], &[], no),
        (&[], &[(OURS, "true")], yes),
        (&[], &[("istio-injection", "enabled")], yes),
        (&[], &[("istio-injection", "disabled")], no),
        (&[], &[(OURS, "false"), ("istio-injection", "enabled")], no),
        (&[], &[(OURS, "true"), ("istio-injection", "disabled")], yes),
        (&[(OURS, "false")], &[(OURS, "true")], no),
        (&[(ISTIO, "false")], &[(OURS, "true")], no),
        (&[(OURS, "true"), (ISTIO, "false")], &[(OURS, "true")], yes),
        (&[(OURS, "nonsense")], &[(OURS, "true")], yes),
        (&[(OURS, "true")], &[], yes),
        (&[(ISTIO, "true")], &[(OURS, "false")], no),
    ];
    for (own, namespace, expected) in table {
        let mut value = reviews();
        for (key, text) in *own {
            value["metadata"]["labels"][*key] = json!(text);
        }
        let decision = match decide(&pod(&value), &labels(namespace)) {
            Decision::Inject => yes,
            Decision::Skip(_) => no,
        };
        assert_eq!(
            decision, *expected,
            "pod {own:?} in namespace {namespace:?}"
        );
    }
}

#[test]
fn pods_on_the_nodes_network_on_windows_and_mirrors_are_left_alone() {
    let all = labels(&[("sluice.dev/inject", "true")]);
    let mut host = reviews();
    host["spec"]["hostNetwork"] = json!(true);
    let mut windows = reviews();
    windows["spec"]["os"] = json!({"name": "windows"});
    let mut mirror = reviews();
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    for value in [host, windows, mirror] {
        assert!(
            matches!(decide(&pod(&value), &all), Decision::Skip(_)),
            "{value}"
        );
    }
}

#[test]
fn istios_exclusions_reach_the_redirect_and_unreadable_ones_are_left_out_with_a_sentence() {
    let prefix = "traffic.sidecar.istio.io";
    let mut value = reviews();
    value["metadata"]["annotations"] = json!({
        format!("{prefix}/excludeInboundPorts"): "9090, 9091",
        format!("{prefix}/excludeOutboundPorts"): "3306,x",
        format!("{prefix}/excludeOutboundIPRanges"): "10.0.0.0/8,fd00::/8",
    });
    let exclusions = Exclusions::of(&pod(&value));
    assert_eq!(
        exclusions.env,
        [
            ("SLUICE_EXCLUDE_INBOUND_PORTS", "9090,9091".to_owned()),
            (
                "SLUICE_EXCLUDE_OUTBOUND_RANGES",
                "10.0.0.0/8,fd00::/8".to_owned()
            ),
        ]
    );
    assert_eq!(exclusions.unread.len(), 1);
    assert!(
        exclusions.unread[0].contains("`x`"),
        "{:?}",
        exclusions.unread
    );
    let after = injected(&value);
    assert_eq!(
        after["spec"]["initContainers"][0]["env"][0]["value"],
        "9090,9091"
    );
}
