//! What is remembered of a cluster, and where its files are.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::network;
use crate::{paths, tools};

/// How much of Kubernetes a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Everything, in a network namespace.
    Node,
    /// etcd and the apiserver, on loopback.
    Api,
    /// What kind makes in Docker; the processes beside it are on loopback.
    Docker,
}

impl Kind {
    pub(crate) fn default_name(self) -> &'static str {
        match self {
            Kind::Node | Kind::Docker => "demo",
            Kind::Api => "api",
        }
    }
}

/// A cluster: what was decided when it was made. Never changes after.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Where the apiserver is reached from the host; of a node also its NodePorts and git server.
    pub(crate) address: Ipv4Addr,
    pub(crate) ports: Ports,
    /// After a reboot nothing of the cluster is alive, whatever its files say.
    boot: String,
}

/// Ports of the servers. Fixed in a node, whose network namespace is its own; free ones on the host's loopback.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) apiserver: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) git: u16,
    pub(crate) artifacts: u16,
}

impl Cluster {
    /// A cluster that was made before and not taken down.
    pub(crate) fn open(name: &str) -> Result<Cluster> {
        match Cluster::find(name)? {
            Some(cluster) if cluster.is_of_this_boot() => Ok(cluster),
            _ => bail!(
                "there is no cluster `{name}`; start it with `cargo xtask cluster up --name {name}`"
            ),
        }
    }

    /// What is remembered of a cluster, alive or not.
    pub(super) fn find(name: &str) -> Result<Option<Cluster>> {
        check_name(name)?;
        let path = folder(name).join("cluster.json");
        let Ok(bytes) = fs::read(&path) else {
            return Ok(None);
        };
        let cluster = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged; remove it", path.display()))?;
        Ok(Some(cluster))
    }

    /// Decides on addresses and ports, makes the folders and, for a node, the network.
    pub(super) fn create(name: &str, kind: Kind) -> Result<Cluster> {
        check_name(name)?;
        fs::create_dir_all(folder(name))?;
        let (address, ports) = match kind {
            Kind::Node => {
                fs::create_dir_all(run_folder(name))?;
                (network::create(name)?, Ports::of_node())
            }
            Kind::Api | Kind::Docker => (Ipv4Addr::LOCALHOST, Ports::free()?),
        };
        let cluster = Cluster {
            name: name.to_owned(),
            kind,
            address,
            ports,
            boot: boot()?,
        };
        fs::create_dir_all(cluster.file("logs"))?;
        fs::create_dir_all(cluster.file("processes"))?;
        cluster.write_json("cluster.json", &cluster)?;
        Ok(cluster)
    }

    pub(super) fn is_of_this_boot(&self) -> bool {
        boot().is_ok_and(|now| now == self.boot)
    }

    /// A file in the state folder.
    pub(crate) fn file(&self, relative: &str) -> PathBuf {
        folder(&self.name).join(relative)
    }

    /// A file in the folder of sockets.
    pub(super) fn socket(&self, relative: &str) -> PathBuf {
        run_folder(&self.name).join(relative)
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// `kubectl` as administrator.
    pub(crate) fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(tools::KUBERNETES.path());
        kubectl
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        kubectl
    }

    /// `helm` as administrator. Build it first: `tools::ensure(&[&tools::HELM])`.
    pub(crate) fn helm(&self) -> Command {
        let mut helm = Command::new(tools::HELM.path());
        helm.arg("--kubeconfig").arg(self.kubeconfig());
        helm
    }

    /// A program that sees the cluster's network as its pods and the node do. Plain for all but a node.
    pub(crate) fn in_network(&self, program: &Path) -> Command {
        if self.kind != Kind::Node {
            return Command::new(program);
        }
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!(
                "--net={}",
                network::namespace_path(&self.name).display()
            ))
            .arg("--")
            .arg(program);
        nsenter
    }

    pub(super) fn write_json(&self, relative: &str, value: &impl Serialize) -> Result<PathBuf> {
        self.write(relative, &serde_json::to_vec_pretty(value)?)
    }

    /// Writes a file, unless it has that content: some components end when their configuration is touched.
    pub(super) fn write(&self, relative: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.file(relative);
        if !fs::read(&path).is_ok_and(|old| old == content) {
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(path)
    }
}

impl Ports {
    fn of_node() -> Ports {
        Ports {
            apiserver: 6443,
            etcd: 2379,
            etcd_peer: 2380,
            git: 3000,
            artifacts: 9790,
        }
    }

    fn free() -> Result<Ports> {
        // All are held at once, so that no two are the same.
        let held = [(); 5].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = [0; 5];
        for (port, listener) in ports.iter_mut().zip(&held) {
            let Ok(listener) = listener else {
                bail!("no free port on 127.0.0.1");
            };
            *port = listener.local_addr()?.port();
        }
        let [apiserver, etcd, etcd_peer, git, artifacts] = ports;
        Ok(Ports {
            apiserver,
            etcd,
            etcd_peer,
            git,
            artifacts,
        })
    }
}

/// The state folder of a cluster.
pub(super) fn folder(name: &str) -> PathBuf {
    paths::target().join("cluster").join(name)
}

/// The folder of a node's sockets and of containerd's state: short, as a socket's path has at most 107 bytes.
pub(super) fn run_folder(name: &str) -> PathBuf {
    Path::new("/run/sluice").join(name)
}

/// The name goes into names of cgroups, network namespaces and folders.
fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 20 || !name.chars().all(good) || name.starts_with('-') {
        bail!("`{name}` is no name for a cluster: use up to 20 of a-z, 0-9 and -");
    }
    Ok(())
}

fn boot() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        for good in ["demo", "e2e-1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "a/b",
            "..",
            "Demo",
            "a-name-that-is-much-too-long",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
