//! Proof that a cluster does what tests and demos need of it, told step by step.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::state::Cluster;
use crate::{command, image::Image, tools};

const NAMESPACE: &str = "sluice-check";
const NODE_PORT: u16 = 30898;
const IMAGE: &str = "sluice.dev/podinfo:6.9.2";

/// Runs an application in the node, uses it in every way, and removes it.
pub(super) fn check(name: &str) -> Result<()> {
    let cluster = Cluster::open(name)?;
    tools::ensure(&[&tools::PODINFO])?;
    step("image loaded", || {
        cluster.load_image(&Image::of_program(IMAGE, &tools::PODINFO.path())?)
    })?;
    step("pods with native sidecars ready", || {
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": application()}))?;
        for deployment in ["backend", "frontend"] {
            kubectl(
                &cluster,
                &[
                    "rollout",
                    "status",
                    &format!("deployment/{deployment}"),
                    "--timeout=60s",
                ],
            )?;
        }
        Ok(())
    })?;
    step(
        "NodePort from the host; cluster DNS and a Service address from a pod",
        || {
            // The frontend passes what it is sent to the backend, which it knows by its DNS name only.
            eventually(|| {
                let answer = http(
                    cluster.address,
                    NODE_PORT,
                    "POST",
                    "/api/echo",
                    "from the host",
                )?;
                contains(&answer, "from the host")
            })
        },
    )?;
    step("exec and logs", || {
        let version = kubectl(
            &cluster,
            &[
                "exec",
                "deployment/frontend",
                "-c",
                "app",
                "--",
                "/podinfo",
                "--version",
            ],
        )?;
        contains(&version, "6.9.2")?;
        let logs = kubectl(&cluster, &["logs", "deployment/frontend", "-c", "sidecar"])?;
        contains(&logs, "Starting podinfo")
    })?;
    step("nothing leaves the node", || no_way_out(&cluster))?;
    if cluster.process("source-controller").is_some() {
        step("a commit is applied by Flux", || flux_applies(&cluster))?;
    }
    step("removed", || {
        let mut kubectl = cluster.kubectl();
        command::output(kubectl.args([
            "delete",
            "namespace",
            NAMESPACE,
            "--wait",
            "--timeout=60s",
        ]))?;
        Ok(())
    })
}

/// Two Deployments with a native sidecar each; the frontend knows the backend by name.
fn application() -> Vec<Value> {
    let backend = format!("--backend-url=http://backend.{NAMESPACE}.svc.cluster.local:9898/echo");
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        deployment("backend", vec!["--port=9898"]),
        service("backend", json!({"port": 9898})),
        deployment("frontend", vec!["--port=9898", &backend]),
        service("frontend", json!({"port": 9898, "nodePort": NODE_PORT})),
    ]
}

fn deployment(name: &str, arguments: Vec<&str>) -> Value {
    let container = |name: &str, port: u16, arguments: &[&str]| {
        json!({
            "name": name,
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "args": arguments,
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": port}, "periodSeconds": 1},
        })
    };
    let mut sidecar = container("sidecar", 9899, &["--port=9899"]);
    sidecar["restartPolicy"] = json!("Always");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "initContainers": [sidecar],
                "containers": [container("app", 9898, &arguments)],
            },
        }},
    })
}

fn service(name: &str, port: Value) -> Value {
    let kind = if port.get("nodePort").is_some() {
        "NodePort"
    } else {
        "ClusterIP"
    };
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": kind, "selector": {"app": name}, "ports": [port]},
    })
}

/// An address that is nobody's (reserved for documentation) is refused at once, by the node itself.
fn no_way_out(cluster: &Cluster) -> Result<()> {
    let start = Instant::now();
    let mut probe = cluster.in_network("bash".as_ref());
    if command::succeeds(probe.args(["-c", "exec 3<>/dev/tcp/192.0.2.1/80"])) {
        bail!("a connection to 192.0.2.1 was made from inside of the node");
    }
    if start.elapsed() > Duration::from_secs(1) {
        bail!("a connection out of the node was dropped, not refused");
    }
    Ok(())
}

fn flux_applies(cluster: &Cluster) -> Result<()> {
    let repository = "check";
    let stamp = format!("{:?}", std::time::SystemTime::now());
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-git", "namespace": NAMESPACE},
        "data": {"stamp": stamp},
    });
    cluster.create_repository(repository)?;
    cluster.commit(
        repository,
        &[("apps/object.yaml", &object.to_string())],
        "check",
    )?;
    cluster.sync(repository, "./apps")?;
    eventually(|| {
        let seen = kubectl(
            cluster,
            &[
                "get",
                "configmap",
                "from-git",
                "-o",
                "jsonpath={.data.stamp}",
            ],
        )?;
        contains(&seen, &stamp)
    })?;
    for kind in ["kustomization", "gitrepository"] {
        let mut kubectl = cluster.kubectl();
        command::output(kubectl.args(["-n", super::flux::NAMESPACE, "delete", kind, repository]))?;
    }
    Ok(())
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    command::output(cluster.kubectl().args(["-n", NAMESPACE]).args(arguments))
}

fn http(address: Ipv4Addr, port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn contains(text: &str, wanted: &str) -> Result<()> {
    if !text.contains(wanted) {
        bail!("expected `{wanted}` in:\n{text}");
    }
    Ok(())
}

/// Tries for half a minute: Services and Flux take their time.
fn eventually(attempt: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("still so after 30 s");
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
            Ok(()) => return Ok(()),
        }
    }
}

fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work().with_context(|| format!("failed: {what}"))?;
    println!("  {what}: {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
