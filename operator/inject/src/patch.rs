//! The patch that adds the sidecar.

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    INIT_CONTAINER, INJECTED_ANNOTATION, PROXY_CONTAINER, PROXY_UID, STATUS_ANNOTATION, Settings,
    exclusions::Exclusions,
    pod::{Workload, label, workload},
};

/// Volume with the projected token and where it is mounted.
const TOKEN_VOLUME: &str = "sluice-token";
const TOKEN_MOUNT: &str = "/var/run/secrets/sluice";
/// Volume with the root certificate and where it is mounted.
const ROOT_VOLUME: &str = "sluice-root";
const ROOT_MOUNT: &str = "/var/run/secrets/sluice-root";
/// Volume of the sidecar's own files.
const DATA_VOLUME: &str = "sluice-data";
const DATA_MOUNT: &str = "/var/lib/sluice";
/// Volumes in the order they are added.
const VOLUMES: [&str; 3] = [TOKEN_VOLUME, ROOT_VOLUME, DATA_VOLUME];
/// How long a token lives before the kubelet writes a new one, in seconds.
const TOKEN_SECONDS: u32 = 3600;

/// One `add` of a JSON patch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    path: String,
    value: Value,
}

fn add(path: impl Into<String>, value: Value) -> Operation {
    Operation {
        op: "add",
        path: path.into(),
        value,
    }
}

/// The patch that adds the sidecar to a pod.
#[must_use]
pub fn patch(pod: &Pod, settings: &Settings) -> Vec<Operation> {
    let workload = workload(pod);
    let mut patch = Vec::new();
    let mut labels = Vec::new();
    for (key, value) in [
        ("service.istio.io/canonical-name", &workload.canonical_name),
        (
            "service.istio.io/canonical-revision",
            &workload.canonical_revision,
        ),
    ] {
        if label(pod, key).is_none() {
            labels.push((key, value.clone()));
        }
    }
    add_entries(
        &mut patch,
        "/metadata/labels",
        pod.metadata.labels.is_some(),
        labels,
    );
    let annotated = pod.metadata.annotations.is_some();
    add_entries(
        &mut patch,
        "/metadata/annotations",
        annotated,
        annotations(pod, settings),
    );

    let spec = pod.spec.as_ref();
    // Before the pod's own init containers: these may need the network, too.
    add_items(
        &mut patch,
        "/spec/initContainers",
        spec.and_then(|spec| spec.init_containers.as_ref())
            .map(|_| "0"),
        vec![init(pod, settings), proxy(pod, &workload, settings)],
    );
    add_items(
        &mut patch,
        "/spec/volumes",
        spec.and_then(|spec| spec.volumes.as_ref()).map(|_| "-"),
        volumes(),
    );
    patch
}

fn annotations(pod: &Pod, settings: &Settings) -> Vec<(&'static str, String)> {
    let status = json!({
        "initContainers": [INIT_CONTAINER, PROXY_CONTAINER],
        "containers": null,
        "volumes": VOLUMES,
        "imagePullSecrets": null,
        "revision": "default",
    });
    let mut entries = vec![
        (STATUS_ANNOTATION, status.to_string()),
        (
            INJECTED_ANNOTATION,
            format!(
                "added {INIT_CONTAINER} and {PROXY_CONTAINER} ({})",
                settings.image
            ),
        ),
    ];
    // What `kubectl logs` and `kubectl exec` take when no container is named.
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let default = "kubectl.kubernetes.io/default-container";
    let present = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(default));
    if let (Some(container), false) = (container, present) {
        entries.push((default, container.name.clone()));
    }
    entries
}

fn init(pod: &Pod, settings: &Settings) -> Value {
    let env: Vec<Value> = Exclusions::of(pod)
        .env
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({
        "name": INIT_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["init"],
        "env": env,
        "resources": resources(settings),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        },
    })
}

/// A native sidecar: started before the application and stopped after it. The wait in postStart
/// holds the application back until the proxy serves.
fn proxy(pod: &Pod, workload: &Workload, settings: &Settings) -> Value {
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["sidecar"],
        "restartPolicy": "Always",
        "lifecycle": {"postStart": {"exec": {"command": ["/sluice-proxy", "wait"]}}},
        "env": env(pod, workload, settings),
        "ports": [
            {"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"},
            {"name": "status-port", "containerPort": 15021, "protocol": "TCP"},
        ],
        "resources": resources(settings),
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT, "readOnly": true},
            {"name": ROOT_VOLUME, "mountPath": ROOT_MOUNT, "readOnly": true},
            {"name": DATA_VOLUME, "mountPath": DATA_MOUNT},
        ],
    })
}

/// What the sidecar reads. Labels are copied: a fieldRef of an absent one would be an empty text
/// either way, and the workload's name is nowhere else.
fn env(pod: &Pod, workload: &Workload, settings: &Settings) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let plain = |name: &str, value: &str| json!({"name": name, "value": value});
    let serving = format!(
        "https://sluice-serving.{}.svc:15012",
        settings.system_namespace
    );
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        plain("SLUICE_CONTROL_PLANE", &serving),
        plain("SLUICE_WORKLOAD", &workload.name),
    ];
    for (name, key) in [("SLUICE_APP", "app"), ("SLUICE_VERSION", "version")] {
        if let Some(value) = label(pod, key) {
            env.push(plain(name, value));
        }
    }
    Value::Array(env)
}

fn resources(settings: &Settings) -> Value {
    let resources = &settings.resources;
    let requests = json!({"cpu": resources.cpu_request, "memory": resources.memory_request});
    match &resources.memory_limit {
        Some(limit) => json!({"requests": requests, "limits": {"memory": limit}}),
        None => json!({"requests": requests}),
    }
}

fn volumes() -> Vec<Value> {
    vec![
        json!({
            "name": TOKEN_VOLUME,
            "projected": {"sources": [{"serviceAccountToken": {
                "audience": "sluice.dev",
                "expirationSeconds": TOKEN_SECONDS,
                "path": "token",
            }}]},
        }),
        json!({"name": ROOT_VOLUME, "configMap": {"name": "sluice-root-ca"}}),
        json!({"name": DATA_VOLUME, "emptyDir": {}}),
    ]
}

/// Adds keys to a map that may not be there yet.
fn add_entries(
    patch: &mut Vec<Operation>,
    path: &str,
    present: bool,
    entries: Vec<(&'static str, String)>,
) {
    if entries.is_empty() {
        return;
    }
    if !present {
        patch.push(add(path, json!({})));
    }
    for (key, value) in entries {
        // RFC 6901: `~` and `/` of a key are written ~0 and ~1.
        let key = key.replace('~', "~0").replace('/', "~1");
        patch.push(add(format!("{path}/{key}"), Value::String(value)));
    }
}

/// Adds items to a list: at `at` (`0`: before the others, in the given order; `-`: after them),
/// or as the whole list when there is none.
fn add_items(patch: &mut Vec<Operation>, path: &str, at: Option<&str>, items: Vec<Value>) {
    match at {
        None => patch.push(add(path, Value::Array(items))),
        Some("0") => {
            let items = items.into_iter().enumerate();
            patch.extend(items.map(|(index, item)| add(format!("{path}/{index}"), item)));
        }
        Some(at) => {
            patch.extend(
                items
                    .into_iter()
                    .map(|item| add(format!("{path}/{at}"), item)),
            );
        }
    }
}
