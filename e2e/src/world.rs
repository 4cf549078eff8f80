//! What a story watches in the cluster: the rollout, its split, the leader, and Flux.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Secret};
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use sluice_crds::{MeshRollout, TrafficSplit};

/// Namespace of the operator.
pub const SYSTEM: &str = "sluice-system";

/// A client from a kubeconfig file.
///
/// # Errors
/// When the file cannot be read or names no cluster.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading {}: is the cluster up?", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.read_timeout = Some(Duration::from_secs(295));
    Ok(Client::try_from(config)?)
}

/// One look at a rollout.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// `status.phase`.
    pub phase: String,
    /// `status.stepText`.
    pub step: String,
    /// `status.stable.revision`.
    pub stable: String,
    /// `status.candidate.revision`.
    pub candidate: String,
    /// The candidate's weight in the TrafficSplit.
    pub weight: i32,
    /// Whether every expected proxy routes by the TrafficSplit's fence.
    pub applied: bool,
    /// `status.verdict`.
    pub verdict: String,
    /// Status of the Ready condition.
    pub ready: String,
    /// Whether Stalled is True, and its message.
    pub stalled: Option<String>,
}

/// Looks at a rollout and its split.
///
/// # Errors
/// When the apiserver does not answer.
pub async fn look(client: &Client, namespace: &str, name: &str) -> Result<Look> {
    let rollouts: Api<MeshRollout> = Api::namespaced(client.clone(), namespace);
    let splits: Api<TrafficSplit> = Api::namespaced(client.clone(), namespace);
    let (rollout, split) = tokio::try_join!(rollouts.get_opt(name), splits.get_opt(name))?;
    let status = rollout.and_then(|r| r.status).unwrap_or_default();
    let condition = |wanted: &str| status.conditions.iter().find(|c| c.type_ == wanted);
    let stalled = condition("Stalled").filter(|c| c.status == "True");
    let split_status = split
        .as_ref()
        .and_then(|s| s.status.clone())
        .unwrap_or_default();
    Ok(Look {
        phase: status.phase.clone().unwrap_or_default(),
        step: status.step_text.clone(),
        stable: status
            .stable
            .as_ref()
            .map(|r| r.revision.clone())
            .unwrap_or_default(),
        candidate: status
            .candidate
            .as_ref()
            .map(|r| r.revision.clone())
            .unwrap_or_default(),
        weight: split.as_ref().map_or(0, |s| s.spec.candidate_weight()),
        applied: split.as_ref().is_some_and(|s| {
            split_status.fence == s.spec.fence && split_status.applied >= split_status.expected
        }),
        verdict: status.verdict.clone(),
        ready: condition("Ready")
            .map(|c| c.status.clone())
            .unwrap_or_default(),
        stalled: stalled.map(|c| c.message.clone()),
    })
}

/// Pod name of the operator's leader.
///
/// # Errors
/// When the Lease does not exist or nobody holds it.
pub async fn leader(client: &Client) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM);
    leases
        .get("sluice-controller")
        .await?
        .spec
        .and_then(|spec| spec.holder_identity)
        .filter(|holder| !holder.is_empty())
        .context("the Lease sluice-controller has no holder: is the operator running?")
}

/// What we write, and what we read and could write out again; Secrets left out.
const KINDS: [(&str, &str, &str); 13] = [
    ("", "v1", "ConfigMap"),
    ("", "v1", "Namespace"),
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
    ),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("coordination.k8s.io", "v1", "Lease"),
    ("events.k8s.io", "v1", "Event"),
    ("sluice.dev", "v1alpha1", "MeshRollout"),
    ("sluice.dev", "v1alpha1", "TrafficSplit"),
    ("sluice.dev", "v1alpha1", "Mesh"),
];

/// All objects of the cluster that anybody may read who may not read Secrets: a name, and the
/// object as JSON.
///
/// # Errors
/// When the apiserver does not answer.
pub async fn readable(client: &Client) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for (group, version, kind) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for object in api.list(&ListParams::default()).await? {
            let place = object.namespace().unwrap_or_default();
            let name = format!("{kind} {place}/{}", object.name_any());
            all.push((name, serde_json::to_string(&object)?));
        }
    }
    Ok(all)
}

/// The private keys in the Secrets of our own namespace, PEM, each with its Secret's name.
///
/// # Errors
/// When the apiserver does not answer.
pub async fn private_keys(client: &Client) -> Result<Vec<(String, String)>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let all = secrets.list(&ListParams::default()).await?;
    let keys = all.into_iter().filter_map(|secret| {
        let key = secret.data.as_ref()?.get("tls.key")?;
        let pem = String::from_utf8_lossy(&key.0).into_owned();
        Some((format!("Secret {}", secret.name_any()), pem))
    });
    Ok(keys.collect())
}

/// Kills the operator process of a pod with SIGKILL, as a crash would.
///
/// # Errors
/// When no such process runs on this machine.
pub fn kill_operator(pod: &str) -> Result<()> {
    let pids = processes(pod, &["/sluice-operator"])?;
    let pid = pids
        .first()
        .with_context(|| format!("no process of pod {pod} runs on this machine"))?;
    let status = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()?;
    if !status.success() {
        bail!("kill -KILL {pid} (pod {pod}) failed");
    }
    Ok(())
}

/// Ids of the processes of a pod whose command line begins with these words. A pod's containers
/// tell their pod's name in the variable POD_NAME.
///
/// # Errors
/// When /proc cannot be read.
pub fn processes(pod: &str, command: &[&str]) -> Result<Vec<i32>> {
    let wanted = format!("POD_NAME={pod}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = pid else { continue };
        // What ends while it is looked at is no process any more.
        let read = |file| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let words = read("cmdline");
        let mut words = words.split(|b| *b == 0);
        let begins = command.iter().all(|w| words.next() == Some(w.as_bytes()));
        let environment = read("environ");
        let mut environment = environment.split(|b| *b == 0);
        if begins && environment.any(|v| v == wanted.as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Resident memory of a process in KiB; none when it has ended.
pub fn resident(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Asks Flux to sync now and waits until it has: fetches git, then applies.
///
/// # Errors
/// When Flux does not answer within a minute.
pub async fn sync(client: &Client, name: &str) -> Result<()> {
    for (group, version, kind) in [
        ("source.toolkit.fluxcd.io", "v1", "GitRepository"),
        ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), "flux-system", &resource);
        let asked = jiff::Timestamp::now().to_string();
        let patch = serde_json::json!({"metadata": {"annotations": {
            "reconcile.fluxcd.io/requestedAt": asked}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        wait_until(
            Duration::from_secs(60),
            &format!("{kind} {name} to sync"),
            async || {
                let object = api.get(name).await?;
                Ok(object.data["status"]["lastHandledReconcileAt"] == asked.as_str())
            },
        )
        .await?;
    }
    Ok(())
}

/// Waits until a condition holds, looking ten times a second.
///
/// # Errors
/// When it does not hold in time, or the look fails in the end.
pub async fn wait_until(
    patience: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let seen = holds().await;
        if matches!(seen, Ok(true)) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            seen.with_context(|| format!("waiting for {what}"))?;
            bail!("waited {} s for {what}", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
