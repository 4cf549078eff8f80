//! Debian packages that a node needs, and that its tests run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::command;

/// A package, and a file by which to see that it is there.
type Package = (&'static str, &'static str);

const OF_A_NODE: [Package; 8] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    ("nftables", "nft"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    ("iproute2", "ip"),
];

/// What tests run in pods.
const OF_TESTS: [Package; 1] = [("nginx", "nginx")];

/// Installs what a node needs and is missing. Says so before it does.
pub(crate) fn ensure_node_packages() -> Result<()> {
    ensure(&OF_A_NODE)
}

/// The same with what only tests need.
pub(crate) fn ensure_test_packages() -> Result<()> {
    ensure(&[&OF_A_NODE[..], &OF_TESTS].concat())
}

fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !is_present(file))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a node needs root; run this as root, or use `cargo xtask cluster up --api-only`, which does not"
        );
    }
    println!("installing Debian packages: {}", missing.join(" "));
    let _quiet = QuietServices::begin()?;
    apt_get(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments)?;
    println!("installed: {}", missing.join(" "));
    Ok(())
}

fn is_present(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    command::find(file).is_some()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null());
    command::output(&mut apt).context(
        "installing packages failed; on another distribution install containerd, runc, the CNI plugins \
         (in /usr/lib/cni), nftables, iptables, conntrack, socat and iproute2 yourself, and for the tests nginx",
    )?;
    Ok(())
}

/// Keeps packages from starting services: a node runs a containerd of its own.
struct QuietServices {
    /// None where the machine has a policy already, which then stays as it is.
    policy: Option<&'static Path>,
}

impl QuietServices {
    fn begin() -> Result<QuietServices> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(QuietServices { policy: None });
        }
        // 101 is "forbidden" to the scripts of packages, which take it as a wish and not as a failure.
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(QuietServices {
            policy: Some(policy),
        })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if let Some(policy) = self.policy {
            // Nothing useful can be done about a failure here, and the file is harmless.
            let _ = fs::remove_file(policy);
        }
    }
}
