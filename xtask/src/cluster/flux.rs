//! Flux and a git server, as processes in the cluster's network: what is pushed there is applied.

use std::{fs, net::TcpStream, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    process::Component,
    state::{Cluster, Kind},
};
use crate::{command, tools};

pub(super) const NAMESPACE: &str = "flux-system";

impl Cluster {
    /// Starts the git server and Flux's controllers, and waits until they are ready.
    pub(crate) fn start_flux(&self) -> Result<()> {
        tools::ensure(&[
            &tools::GITSERVER,
            &tools::SOURCE_CONTROLLER,
            &tools::KUSTOMIZE_CONTROLLER,
        ])?;
        self.start_git()?;
        let is_alive = |name| self.process(name).is_some_and(|process| process.is_alive());
        if is_alive("source-controller") && is_alive("kustomize-controller") {
            return Ok(());
        }
        self.apply_flux_objects()?;
        fs::create_dir_all(self.file("artifacts"))?;
        self.start(&source_controller(self))?;
        self.start(&kustomize_controller(self))?;
        self.wait_for("source-controller", Duration::from_secs(60), || {
            self.answers(self.ports.artifacts)
        })?;
        Ok(())
    }

    /// Starts the git server.
    pub(crate) fn start_git(&self) -> Result<()> {
        tools::ensure(&[&tools::GITSERVER])?;
        fs::create_dir_all(self.file("git"))?;
        let listen = match self.kind {
            Kind::Node => format!("0.0.0.0:{}", self.ports.git),
            Kind::Api | Kind::Docker => format!("{}:{}", self.address, self.ports.git),
        };
        let arguments = vec![
            format!("-listen={listen}"),
            format!("-root={}", self.file("git").display()),
        ];
        self.start(&Component::new(
            "gitserver",
            tools::GITSERVER.path(),
            arguments,
        ))?;
        self.wait_for("gitserver", Duration::from_secs(10), || {
            self.answers(self.ports.git)
        })
    }

    /// The URL of a repository, the same for the host, for Flux and for pods.
    pub(crate) fn git_url(&self, repository: &str) -> String {
        format!(
            "http://{}:{}/{repository}.git",
            self.address, self.ports.git
        )
    }

    /// Makes an empty bare repository with the branch `main`, unless it is there. Returns its folder.
    pub(crate) fn create_repository(&self, repository: &str) -> Result<PathBuf> {
        let folder = self.file("git").join(format!("{repository}.git"));
        if folder.exists() {
            return Ok(folder);
        }
        let mut init = Command::new("git");
        init.args(["init", "--quiet", "--bare", "--initial-branch=main"])
            .arg(&folder);
        command::output(&mut init)?;
        let mut config = Command::new("git");
        config
            .arg("-C")
            .arg(&folder)
            .args(["config", "http.receivepack", "true"]);
        command::output(&mut config)?;
        Ok(folder)
    }

    /// Pushes a commit that writes the files (path in the repository, content) to the branch `main`.
    pub(crate) fn commit(
        &self,
        repository: &str,
        files: &[(&str, &str)],
        message: &str,
    ) -> Result<()> {
        let work = self.file("git-work").join(repository);
        if !work.exists() {
            let mut clone = Command::new("git");
            command::output(
                clone
                    .args(["clone", "--quiet", &self.git_url(repository)])
                    .arg(&work),
            )?;
        }
        for (path, content) in files {
            let path = work.join(path);
            fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
            fs::write(path, content)?;
        }
        let author = [
            "-c",
            "user.name=sluice",
            "-c",
            "user.email=sluice@example.com",
        ];
        for arguments in [
            &["add", "--all"][..],
            &["commit", "--quiet", "--message", message],
            &["push", "--quiet", "origin", "HEAD:main"],
        ] {
            let mut git = Command::new("git");
            git.arg("-C").arg(&work).args(author).args(arguments);
            command::output(&mut git)?;
        }
        Ok(())
    }

    /// Has Flux apply a folder of a repository's `main` branch, looking every 5 s.
    pub(crate) fn sync(&self, repository: &str, path: &str) -> Result<()> {
        let metadata = json!({"name": repository, "namespace": NAMESPACE});
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata,
             "spec": {"url": self.git_url(repository), "interval": "5s", "timeout": "20s", "ref": {"branch": "main"}}},
            {"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": metadata,
             "spec": {"sourceRef": {"kind": "GitRepository", "name": repository}, "path": path,
                      "interval": "5s", "retryInterval": "2s", "prune": true}},
        ]}))
    }

    fn apply_flux_objects(&self) -> Result<()> {
        self.apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        )?;
        for tool in [&tools::SOURCE_CONTROLLER, &tools::KUSTOMIZE_CONTROLLER] {
            let mut kubectl = self.kubectl();
            kubectl
                .args(["apply", "--server-side", "--force-conflicts", "-f"])
                .arg(tool.crds_path());
            command::output(&mut kubectl)
                .with_context(|| format!("cannot apply the CRDs of {}", tool.name))?;
        }
        let mut kubectl = self.kubectl();
        kubectl.args([
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ]);
        command::output(&mut kubectl)?;
        Ok(())
    }

    /// Whether something listens on that port of the cluster's address.
    fn answers(&self, port: u16) -> bool {
        TcpStream::connect_timeout(&(self.address, port).into(), Duration::from_secs(1)).is_ok()
    }
}

fn source_controller(cluster: &Cluster) -> Component {
    let artifacts = format!("{}:{}", cluster.address, cluster.ports.artifacts);
    let mut arguments = vec![
        format!("--storage-path={}", cluster.file("artifacts").display()),
        format!("--storage-addr={artifacts}"),
        format!("--storage-adv-addr={artifacts}"),
    ];
    arguments.extend(common_flags());
    controller(
        cluster,
        "source-controller",
        tools::SOURCE_CONTROLLER.path(),
        arguments,
    )
}

fn kustomize_controller(cluster: &Cluster) -> Component {
    let path = tools::KUSTOMIZE_CONTROLLER.path();
    let mut arguments = common_flags();
    // A fix is applied in the middle of the rollout that it mends, not after the rollout's end.
    arguments.push("--feature-gates=CancelHealthCheckOnNewRevision=true".to_owned());
    controller(cluster, "kustomize-controller", path, arguments)
}

/// Metrics and health are for clusters that look after their pods; here they would only take ports.
fn common_flags() -> Vec<String> {
    [
        "--metrics-addr=0",
        "--health-addr=0",
        "--requeue-dependency=2s",
        "--interval-jitter-percentage=0",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn controller(
    cluster: &Cluster,
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
) -> Component {
    let mut component = Component::new(name, program, arguments);
    component.environment = vec![
        ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
        ("RUNTIME_NAMESPACE", NAMESPACE.to_owned()),
        ("TUF_ROOT", cluster.file("tuf").display().to_string()),
    ];
    component
}
