//! Keeps the last-good file: when it is written, and what is waiting to be.
//!
//! The file is the only copy of resources as they came: in memory stand only those that it does
//! not have yet. A write takes over from the former file what has not changed.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use envoy_types::pb::envoy::service::discovery::v3::Resource;
use sluice_xds::{Kind, ResourceName};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::ads::Keep;
use crate::{
    last_good::{self, Saved, Unusable},
    metrics::Metrics,
};

/// Least time from one write to the next: for endpoints, which change all the time, and for
/// where they are used, which must not come back as it was.
const PAUSE: Duration = Duration::from_secs(5);
const SHORT_PAUSE: Duration = Duration::from_millis(200);
/// A write at least this often, so that the times in the file are not far from the truth.
const REFRESH: Duration = Duration::from_secs(3600);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(30);

type Fresh = BTreeMap<ResourceName, Resource>;

/// What the keeper wants of its owner.
#[derive(Debug)]
pub enum Wake {
    /// It is time for a write: [`Keeper::start`] or [`Keeper::postpone`].
    Due,
    /// A write has ended; these are neither in memory nor in the former file.
    Written(Vec<ResourceName>),
}

/// The last-good file of this process.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    fresh: Fresh,
    started: Instant,
    due: Instant,
    /// Since when there has been something to be written.
    changed: Option<Instant>,
    writing: Option<JoinHandle<Written>>,
    failing: bool,
}

#[derive(Debug)]
struct Written {
    result: io::Result<Vec<ResourceName>>,
    fresh: Fresh,
}

impl Keeper {
    /// Nothing to be written yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let now = Instant::now();
        Self {
            path,
            fresh: Fresh::new(),
            started: now,
            due: now + REFRESH,
            changed: None,
            writing: None,
            failing: false,
        }
    }

    /// Something is different, which the accepted resources are a part of.
    pub fn changed(&mut self, accepted: Vec<(Kind, Resource)>) {
        let now = Instant::now();
        let places = |kind: &Kind| matches!(kind, Kind::Listener | Kind::Route);
        let pause = if accepted.iter().any(|(kind, _)| places(kind)) {
            SHORT_PAUSE
        } else {
            PAUSE
        };
        self.due = self.due.min(now.max(self.started + pause));
        self.changed.get_or_insert(now);
        let accepted = accepted.into_iter();
        self.fresh
            .extend(accepted.map(|(kind, one)| (ResourceName::new(kind, &one.name), one)));
    }

    /// Forgets what is not held any more.
    pub fn retain(&mut self, is_held: impl Fn(&ResourceName) -> bool) {
        self.fresh.retain(|name, _| is_held(name));
    }

    /// How long the oldest change has been waiting.
    #[must_use]
    pub fn waiting(&self) -> Duration {
        self.changed.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Resolves when there is something to be done.
    pub async fn wake(&mut self, metrics: &Metrics) -> Wake {
        if let Some(missing) = self.written(metrics).await {
            return Wake::Written(missing);
        }
        sleep_until(self.due).await;
        Wake::Due
    }

    /// Not now.
    pub fn postpone(&mut self) {
        let now = Instant::now();
        self.due = now + PAUSE;
        self.changed.get_or_insert(now);
    }

    /// Writes in the background. A write that runs already has to be waited for. What is not to
    /// be kept yet, as of a destination that waits for something, stays here.
    pub fn start(&mut self, keep: Keep, written_ms: u64, contact_ms: u64) {
        let now = Instant::now();
        (self.started, self.due, self.changed) = (now, now + REFRESH, None);
        let path = self.path.clone();
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        let (fresh, later): (Fresh, Fresh) =
            fresh.partition(|(name, _)| keep.resources.contains_key(name));
        self.fresh = later;
        self.writing = Some(spawn_blocking(move || {
            let result = merge(&path, keep, &fresh).and_then(|(saved, missing)| {
                let saved = Saved {
                    written_ms,
                    contact_ms,
                    ..saved
                };
                last_good::write(&path, &saved).map(|()| missing)
            });
            Written { result, fresh }
        }));
    }

    /// Waits for the write that runs; none when none does.
    pub async fn written(&mut self, metrics: &Metrics) -> Option<Vec<ResourceName>> {
        let written = self.writing.as_mut()?.await;
        self.writing = None;
        let Ok(Written { result, fresh }) = written else {
            // Only when the runtime ends.
            return pending().await;
        };
        match result {
            Ok(missing) => {
                metrics.saves.inc();
                self.failing = false;
                Some(missing)
            }
            Err(error) => {
                metrics.failed_saves.inc();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        path = %self.path.display(), %error,
                        "the last-good file cannot be written: a restart without the control plane would start with the former one"
                    );
                }
                let now = Instant::now();
                self.due = now + RETRY;
                self.changed.get_or_insert(now);
                for (name, resource) in fresh {
                    self.fresh.entry(name).or_insert(resource);
                }
                Some(Vec::new())
            }
        }
    }
}

/// What is to be kept, in the versions that are wanted: new, or as the former file has it. And
/// what neither has.
fn merge(path: &Path, keep: Keep, fresh: &Fresh) -> io::Result<(Saved, Vec<ResourceName>)> {
    let former = match last_good::read(path) {
        Ok(former) => former.unwrap_or_default(),
        // It may be as good as ever.
        Err(Unusable::Read(error)) => return Err(error),
        // All that it had is missing.
        Err(_) => Saved::default(),
    };
    let former: Fresh = former
        .resources
        .into_iter()
        .filter_map(|resource| {
            let kind = Kind::from_type_url(&resource.resource.as_ref()?.type_url).ok()?;
            Some((ResourceName::new(kind, &resource.name), resource))
        })
        .collect();
    let mut saved = Saved {
        destinations: keep.destinations,
        ..Saved::default()
    };
    let mut missing = Vec::new();
    for (name, version) in keep.resources {
        let known = [fresh.get(&name), former.get(&name)];
        let known = known.into_iter().flatten();
        match known.into_iter().find(|known| known.version == version) {
            Some(known) => saved.resources.push(known.clone()),
            None => missing.push(name),
        }
    }
    Ok((saved, missing))
}
