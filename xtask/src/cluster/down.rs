//! Removing all of a cluster, also when its files are lost or its processes died with the machine.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    cgroup, docker, network,
    state::{self, Cluster, Kind},
};
use crate::command;

/// Where containerd keeps a folder for each container and sandbox that runs, below the run folder.
const TASKS: &str = "containerd/io.containerd.runtime.v2.task/k8s.io";

/// Stops a cluster and removes all of it.
pub(crate) fn down(name: &str) -> Result<()> {
    let _lock = super::up::lock()?;
    if !is_there(name)? {
        println!("there is no cluster `{name}`");
        return Ok(());
    }
    remove(name)?;
    println!("cluster `{name}` is gone");
    Ok(())
}

/// Whether anything of a cluster is there.
pub(super) fn is_there(name: &str) -> Result<bool> {
    let cluster = Cluster::find(name)?;
    Ok(cluster.is_some()
        || state::folder(name).exists()
        || state::run_folder(name).exists()
        || network::exists(name)
        || cgroup::exists(name)?)
}

/// Ends all processes of a cluster and removes what they left.
pub(super) fn remove(name: &str) -> Result<()> {
    let cluster = Cluster::find(name)?;
    if let Some(cluster) = cluster.as_ref().filter(|cluster| cluster.is_of_this_boot()) {
        for process in cluster.processes() {
            process.kill()?;
        }
    }
    match &cluster {
        Some(cluster) if cluster.kind == Kind::Docker => docker::remove(cluster)?,
        Some(cluster) if cluster.kind == Kind::Api => {}
        _ => remove_node(name)?,
    }
    remove_folder(&state::folder(name))?;
    remove_kubelet_leftovers();
    Ok(())
}

fn remove_node(name: &str) -> Result<()> {
    cgroup::kill_all(name)?;
    let folders = [state::run_folder(name), state::folder(name)];
    for socket in shim_sockets(&folders[0]) {
        // Some shims remove theirs when they end.
        let _ = fs::remove_file(socket);
    }
    unmount(&folders)?;
    network::remove(name)?;
    cgroup::remove(name)?;
    remove_cni_results(name);
    remove_folder(&folders[0])
}

/// containerd's shims listen in a folder that all containerds of the machine share.
fn shim_sockets(run_folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run_folder.join(TASKS))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|task| fs::read_to_string(task.path().join("address")).ok())
        .filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?)))
        .collect()
}

/// Unmounts all below the folders. Nothing may stay: removing a folder would reach into what is mounted there.
fn unmount(folders: &[PathBuf]) -> Result<()> {
    let mounts = mounts_below(&fs::read_to_string("/proc/self/mounts")?, folders);
    if mounts.is_empty() {
        return Ok(());
    }
    // The last mounted first: it may be inside of an earlier one.
    if !command::succeeds(Command::new("umount").args(mounts.iter().rev())) {
        let left = mounts_below(&fs::read_to_string("/proc/self/mounts")?, folders);
        command::output(Command::new("umount").arg("--lazy").args(left.iter().rev()))?;
    }
    Ok(())
}

fn mounts_below(mounts: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| folders.iter().any(|folder| path.starts_with(folder)))
        .collect()
}

/// CNI remembers results in a folder of the whole machine, under names that hold the pod's sandbox id.
fn remove_cni_results(name: &str) {
    // Either folder may have been lost.
    let sandboxes = state::folder(name).join("containerd/io.containerd.grpc.v1.cri/sandboxes");
    let mut ours = names_in(&sandboxes);
    ours.extend(names_in(&state::run_folder(name).join(TASKS)));
    let results = Path::new("/var/lib/cni/results");
    for result in names_in(results) {
        if ours.iter().any(|sandbox| result.contains(sandbox)) {
            let _ = fs::remove_file(results.join(result));
        }
    }
    remove_if_empty(&["/var/lib/cni/results", "/var/lib/cni"]);
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Kubelets put a few things at fixed places. A kubelet that is not ours may use them too:
/// only what leads nowhere is removed.
fn remove_kubelet_leftovers() {
    let socket = Path::new("/var/lib/kubelet/device-plugins/kubelet.sock");
    if socket.exists() && UnixStream::connect(socket).is_err() {
        let _ = fs::remove_file(socket);
        let _ = fs::remove_file(socket.with_file_name("kubelet_internal_checkpoint"));
    }
    for entry in fs::read_dir("/var/log/containers")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path.is_symlink() && !path.exists() {
            let _ = fs::remove_file(path);
        }
    }
    remove_if_empty(&[
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        "/var/log/containers",
    ]);
}

fn remove_if_empty(folders: &[&str]) {
    for folder in folders {
        // A folder that is in use is not empty, and stays.
        let _ = fs::remove_dir(folder);
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    let mounts = mounts_below(
        &fs::read_to_string("/proc/self/mounts")?,
        &[folder.to_owned()],
    );
    if let Some(mount) = mounts.first() {
        bail!(
            "{} is still mounted; unmount it, then try again",
            mount.display()
        );
    }
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_are_found() {
        let mounts = "overlay /run/sluice/a/x overlay rw 0 0\n\
                      tmpfs /run/sluice/ab tmpfs rw 0 0\n\
                      tmpfs /run/sluice/a/with\\040space tmpfs rw 0 0\n";
        assert_eq!(
            mounts_below(mounts, &[PathBuf::from("/run/sluice/a")]),
            [
                PathBuf::from("/run/sluice/a/x"),
                PathBuf::from("/run/sluice/a/with space")
            ]
        );
    }
}
