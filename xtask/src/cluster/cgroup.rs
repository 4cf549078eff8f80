//! The cgroups of a node: one in every hierarchy, for its processes and as the root of its pods.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

/// A mounted cgroup hierarchy.
struct Hierarchy {
    path: PathBuf,
    /// Of cgroup v1 the controllers, else empty.
    options: String,
    is_v2: bool,
}

/// The name of a node's cgroup below each hierarchy.
pub(super) fn name(cluster: &str) -> String {
    format!("sluice-{cluster}")
}

/// Makes the cgroups and returns the file that a process writes its id to, to join the node.
pub(super) fn create(cluster: &str) -> Result<PathBuf> {
    let hierarchies = hierarchies()?;
    let has_v1 = hierarchies.iter().any(|h| !h.is_v2);
    let mut members = None;
    for hierarchy in &hierarchies {
        // Beside v1 hierarchies, v2 has no controllers that pods could use.
        if hierarchy.is_v2 && has_v1 {
            continue;
        }
        let group = hierarchy.path.join(name(cluster));
        fs::create_dir_all(&group).with_context(|| {
            format!(
                "cannot make the cgroup {}; a node needs root",
                group.display()
            )
        })?;
        if hierarchy.is_v2 {
            delegate(&hierarchy.path)?;
            delegate(&group)?;
        }
        if hierarchy.has("cpuset") {
            // An empty set, as it is made, admits no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(group.join(file), fs::read(hierarchy.path.join(file))?)?;
            }
        }
        if hierarchy.is_v2 || hierarchy.has("pids") {
            let own = group.join("node");
            fs::create_dir_all(&own)?;
            members = Some(own.join("cgroup.procs"));
        }
    }
    members
        .context("no cgroup hierarchy with the `pids` controller is mounted below /sys/fs/cgroup")
}

/// Ends everything that is in the node's cgroups: components, containers, and what holds them.
pub(super) fn kill_all(cluster: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let members = members(cluster)?;
        if members.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "processes {members:?} of the cluster do not end; see their state with `ps`, then try again"
            );
        }
        for pid in members {
            // One that has ended meanwhile is what we want.
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the cgroups, which must be empty.
pub(super) fn remove(cluster: &str) -> Result<()> {
    for group in groups(cluster)? {
        remove_tree(&group)?;
    }
    Ok(())
}

/// Whether any cgroup of the node is there.
pub(super) fn exists(cluster: &str) -> Result<bool> {
    Ok(!groups(cluster)?.is_empty())
}

fn members(cluster: &str) -> Result<BTreeSet<i32>> {
    let mut members = BTreeSet::new();
    for group in groups(cluster)? {
        collect_members(&group, &mut members);
    }
    Ok(members)
}

fn groups(cluster: &str) -> Result<Vec<PathBuf>> {
    let all = hierarchies()?;
    let groups = all.into_iter().map(|h| h.path.join(name(cluster)));
    Ok(groups.filter(|group| group.is_dir()).collect())
}

/// Groups come and go while this looks: one that has just gone has no members.
fn collect_members(group: &Path, members: &mut BTreeSet<i32>) {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    members.extend(listed.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    for child in children(group) {
        collect_members(&child, members);
    }
}

fn remove_tree(group: &Path) -> Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    // The kernel says "busy" for a moment after the last process has gone.
    while let Err(error) = fs::remove_dir(group) {
        if Instant::now() > deadline {
            return Err(error)
                .with_context(|| format!("cannot remove the cgroup {}", group.display()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn delegate(group: &Path) -> Result<()> {
    let controllers = fs::read_to_string(group.join("cgroup.controllers"))?;
    let all: Vec<String> = controllers
        .split_whitespace()
        .map(|c| format!("+{c}"))
        .collect();
    fs::write(group.join("cgroup.subtree_control"), all.join(" "))
        .with_context(|| format!("cannot hand the controllers of {} on", group.display()))
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(parse_mounts(&mounts))
}

fn parse_mounts(mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, path, kind @ ("cgroup" | "cgroup2"), options, ..] = fields[..] else {
            continue;
        };
        found.push(Hierarchy {
            path: path.into(),
            options: options.to_owned(),
            is_v2: kind == "cgroup2",
        });
    }
    found
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        !self.is_v2 && self.options.split(',').any(|option| option == controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_told_apart() {
        let mounts = "proc /proc proc rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = parse_mounts(mounts);
        assert_eq!(found.len(), 2);
        assert!(found[0].has("cpuset") && !found[0].has("cpu") && !found[0].is_v2);
        assert!(found[1].is_v2 && !found[1].has("rw"));
    }
}
