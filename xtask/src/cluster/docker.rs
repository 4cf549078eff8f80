//! A cluster that kind makes in Docker, for machines that have these.
//!
//! Flux and the git server are processes of this machine here too; what differs is who starts Kubernetes and
//! how images get to its node.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use super::state::Cluster;
use crate::{command, paths};

/// Fails with what to install, before anything is built.
pub(crate) fn ensure_there() -> Result<()> {
    let docker_answers = || command::succeeds(Command::new("docker").arg("info"));
    let is_there = |program: &str| command::find(program).is_some();
    match obstacle(is_there, docker_answers) {
        Some(obstacle) => {
            bail!("{obstacle}. Without --kind the demo needs neither; docs/kind.md says more")
        }
        None => Ok(()),
    }
}

fn obstacle(
    is_there: impl Fn(&str) -> bool,
    docker_answers: impl Fn() -> bool,
) -> Option<&'static str> {
    if !is_there("docker") {
        return Some("Docker is missing: install it as docs.docker.com/engine/install says");
    }
    if !docker_answers() {
        return Some(
            "`docker info` fails: start Docker's daemon, or run this as a user who may talk to it",
        );
    }
    if !is_there("kind") {
        return Some(
            "kind is missing: go install sigs.k8s.io/kind@latest, with Go's bin folder on PATH",
        );
    }
    None
}

/// Makes the cluster, unless it is there, and writes the administrator's kubeconfig.
pub(super) fn start(cluster: &Cluster) -> Result<()> {
    let name = name(&cluster.name);
    let there = command::output(Command::new("kind").args(["get", "clusters"]))?;
    let mut kind = Command::new("kind");
    if there.lines().any(|line| line == name) {
        kind.args(["export", "kubeconfig"]);
    } else {
        kind.args(["create", "cluster", "--wait=180s", "--config"])
            .arg(paths::workspace().join("kind-config/kind.yaml"));
    }
    kind.args(["--name", &name, "--kubeconfig"])
        .arg(cluster.kubeconfig());
    command::output(&mut kind)?;
    Ok(())
}

/// Makes the images of an archive known to the node.
pub(super) fn load(cluster: &Cluster, archive: &Path) -> Result<()> {
    let mut kind = Command::new("kind");
    kind.args(["load", "image-archive", "--name", &name(&cluster.name)])
        .arg(archive);
    command::output(&mut kind)?;
    Ok(())
}

/// Removes the cluster.
pub(super) fn remove(cluster: &Cluster) -> Result<()> {
    let mut kind = Command::new("kind");
    kind.args(["delete", "cluster", "--name", &name(&cluster.name)])
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig());
    command::output(&mut kind)?;
    Ok(())
}

/// Others may use kind on this machine as well.
fn name(cluster: &str) -> String {
    format!("sluice-{cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let told = |there: &[&str], answers| {
            obstacle(|program| there.contains(&program), || answers).unwrap_or_default()
        };
        assert!(told(&[], false).starts_with("Docker is missing: install"));
        assert!(told(&["docker"], false).contains("start Docker's daemon"));
        assert!(told(&["docker"], true).contains("go install sigs.k8s.io/kind"));
        assert_eq!(told(&["docker", "kind"], true), "");
    }
}
