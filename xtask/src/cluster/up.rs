//! Starting a cluster, or what has died of it.

use std::{
    fs::{self, File},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::{
    With, control_plane, dns, docker, down, kubeconfig, network, node, pki,
    state::{Cluster, Kind},
};
use crate::{paths, prerequisites, tools};

/// Starts what is missing of a cluster, and waits until it can be used.
pub(crate) fn up(name: &str, kind: Kind, with: With) -> Result<Cluster> {
    let start = Instant::now();
    prepare(kind)?;
    let lock = lock()?;
    let cluster = find_or_create(name, kind)?;
    match kind {
        Kind::Api => {
            identify(&cluster)?;
            start_api(&cluster)?;
        }
        Kind::Node => {
            identify(&cluster)?;
            start_node(&cluster)?;
        }
        Kind::Docker => timed("kind", || docker::start(&cluster))?,
    }
    if with.controllers && kind == Kind::Api {
        control_plane::start_controller_manager(&cluster)?;
    }
    if with.flux {
        timed("flux", || cluster.start_flux())?;
    }
    ensure_all_alive(&cluster)?;
    drop(lock);
    println!(
        "cluster `{name}` is ready after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(cluster)
}

/// Two commands at once must not start or remove the same things.
pub(super) fn lock() -> Result<File> {
    let folder = paths::target().join("cluster");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    if lock.try_lock().is_err() {
        println!("waiting for another command on the clusters of this workspace");
        lock.lock()?;
    }
    Ok(lock)
}

fn prepare(kind: Kind) -> Result<()> {
    match kind {
        Kind::Api => {}
        Kind::Docker => docker::ensure_there()?,
        Kind::Node => {
            prerequisites::ensure_node_packages()?;
            tools::ensure(&[&tools::PAUSE, &tools::COREDNS])?;
        }
    }
    tools::ensure(&[&tools::KUBERNETES])
}

/// Keys and certificates of everybody in the cluster.
fn identify(cluster: &Cluster) -> Result<()> {
    pki::ensure(cluster)?;
    kubeconfig::write_all(cluster)
}

/// The cluster that is there, if it can be used; else a new one, after removing what is left of the old.
fn find_or_create(name: &str, kind: Kind) -> Result<Cluster> {
    let found = Cluster::find(name)?;
    if let Some(cluster) = found.filter(Cluster::is_of_this_boot) {
        if cluster.kind != kind {
            bail!(
                "cluster `{name}` is of another kind; remove it with `cargo xtask cluster down --name {name}`"
            );
        }
        if kind != Kind::Node || network::exists(name) {
            return Ok(cluster);
        }
    }
    if down::is_there(name)? {
        println!("removing what is left of an earlier cluster `{name}`");
        down::remove(name)?;
    }
    Cluster::create(name, kind).or_else(|error| {
        // A half made cluster would be in the way of the next try.
        down::remove(name)?;
        Err(error)
    })
}

fn start_api(cluster: &Cluster) -> Result<()> {
    timed("etcd, apiserver", || {
        control_plane::start_api(cluster)?;
        control_plane::wait_for_api(cluster)
    })
}

fn start_node(cluster: &Cluster) -> Result<()> {
    thread::scope(|scope| {
        let images = scope.spawn(|| {
            timed("containerd, images", || {
                node::start_containerd(cluster)?;
                dns::load_image(cluster)
            })
        });
        start_api(cluster)?;
        images.join().expect("the thread does not panic")
    })?;
    timed("kubelet, controllers", || {
        control_plane::start_controllers(cluster)?;
        node::start_kubelet(cluster)?;
        dns::apply(cluster)?;
        node::wait_until_ready(cluster)
    })?;
    timed("cluster DNS", || dns::wait_until_ready(cluster))
}

fn ensure_all_alive(cluster: &Cluster) -> Result<()> {
    match cluster
        .processes()
        .iter()
        .find(|process| !process.is_alive())
    {
        Some(dead) => Err(dead.failure("has died")),
        None => Ok(()),
    }
}

fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work().with_context(|| format!("starting {what} failed"))?;
    println!("  {what}: {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
