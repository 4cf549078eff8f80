//! The clusters that releases are played on: each is lent to one stage at a time.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

static CLUSTERS: LazyLock<Clusters> = LazyLock::new(Clusters::find);

struct Clusters {
    all: Vec<PathBuf>,
    free: Mutex<Vec<PathBuf>>,
    /// A permit for each that is free, in the order of asking.
    turns: Semaphore,
}

/// A cluster that is nobody else's until this is dropped.
pub struct Cluster {
    kubeconfig: PathBuf,
    _turn: SemaphorePermit<'static>,
}

impl Clusters {
    fn find() -> Self {
        let paths = std::env::var_os("SLUICE_FAULTS_KUBECONFIGS").expect(
            "SLUICE_FAULTS_KUBECONFIGS is not set: start a cluster with `cargo xtask cluster up --api-only \
             --with-controllers` and set it to the path that is printed",
        );
        let all: Vec<PathBuf> = std::env::split_paths(&paths).collect();
        Self {
            turns: Semaphore::new(all.len()),
            free: Mutex::new(all.clone()),
            all,
        }
    }
}

/// Their kubeconfigs, those of clusters that are lent among them.
///
/// # Panics
/// SLUICE_FAULTS_KUBECONFIGS is not set.
#[must_use]
pub fn all() -> &'static [PathBuf] {
    &CLUSTERS.all
}

/// Waits for a cluster that is free.
///
/// # Panics
/// SLUICE_FAULTS_KUBECONFIGS is not set.
pub async fn lend() -> Cluster {
    let turn = CLUSTERS.turns.acquire().await.expect("it is never closed");
    let free = CLUSTERS.free.lock().pop();
    Cluster {
        kubeconfig: free.expect("a turn stands for a cluster that is free"),
        _turn: turn,
    }
}

impl Cluster {
    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        CLUSTERS
            .free
            .lock()
            .push(std::mem::take(&mut self.kubeconfig));
    }
}
