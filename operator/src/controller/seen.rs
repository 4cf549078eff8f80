//! Read your own writes: after a write, its object is not decided upon until the cache shows
//! that write. resourceVersions are compared for equality only.
//!
//! The watch tells every version it sees; a short memory of them covers the case that the watch
//! is faster than the answer to the write. A version that was skipped (a watch that started
//! anew) is found out by asking the apiserver after [`PATIENCE`].

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::facts::Key;

/// How long a write may stay unseen before the apiserver is asked.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked then.
pub const ASKING: Duration = Duration::from_millis(500);
/// How many versions are remembered.
const MEMORY: usize = 2048;

/// A kind that the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The MeshRollout's status.
    Rollout,
    /// The TrafficSplit.
    Split,
    /// The Deployment's `spec.paused`.
    Deployment,
    /// A candidate ReplicaSet.
    ReplicaSet,
    /// A candidate pod's condition.
    Pod,
    /// A HorizontalPodAutoscaler's `behavior.scaleDown.selectPolicy`.
    Autoscaler,
}

/// A write that the cache has not shown yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that the write made; none: it was deleted.
    pub version: Option<String>,
}

/// What is still to be seen, by MeshRollout.
#[derive(Default)]
pub struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    pending: HashMap<Key, Vec<Pending>>,
    /// uid and version of what the watches showed last; version none: deleted.
    recent: VecDeque<(String, Option<String>)>,
}

struct Pending {
    write: Write,
    since: Instant,
    asked: Option<Instant>,
}

/// A write that the watch should have shown by now.
pub struct Overdue {
    /// The write.
    pub write: Write,
    /// How long ago it was.
    pub age: Duration,
    /// The apiserver was not asked before.
    pub first: bool,
}

impl Seen {
    /// A write on behalf of `key` succeeded.
    pub fn expect(&self, key: &Key, write: Write) {
        let mut state = self.0.lock();
        let shown = state.recent.iter().any(|(uid, version)| {
            *uid == write.uid && (*version == write.version || version.is_none())
        });
        if shown {
            return;
        }
        let pending = state.pending.entry(key.clone()).or_default();
        pending.retain(|earlier| earlier.write.uid != write.uid);
        pending.push(Pending {
            write,
            since: Instant::now(),
            asked: None,
        });
    }

    /// A watch shows this version of an object; none: it is gone.
    pub fn shown(&self, uid: &str, version: Option<&str>) {
        let mut state = self.0.lock();
        if state.recent.len() >= MEMORY {
            state.recent.pop_front();
        }
        state
            .recent
            .push_back((uid.to_owned(), version.map(str::to_owned)));
        state.settle(|write| {
            write.uid == uid && (version.is_none() || write.version.as_deref() == version)
        });
    }

    /// The apiserver was asked, and the cache is as new as its answer.
    pub fn caught_up(&self, uid: &str) {
        self.0.lock().settle(|write| write.uid == uid);
    }

    /// Since when writes on behalf of `key` have not been shown; none when all are.
    pub fn pending_since(&self, key: &Key) -> Option<Instant> {
        let state = self.0.lock();
        let pending = state.pending.get(key)?;
        pending.iter().map(|pending| pending.since).min()
    }

    /// The writes about which the apiserver is to be asked now: each at most every [`ASKING`].
    pub fn overdue(&self, key: &Key) -> Vec<Overdue> {
        let now = Instant::now();
        let mut state = self.0.lock();
        let pending = state.pending.get_mut(key).into_iter().flatten();
        pending
            .filter(|pending| now >= pending.since + PATIENCE)
            .filter(|pending| pending.asked.is_none_or(|asked| now >= asked + ASKING))
            .map(|pending| Overdue {
                first: pending.asked.replace(now).is_none(),
                write: pending.write.clone(),
                age: now - pending.since,
            })
            .collect()
    }

    /// The MeshRollout is gone.
    pub fn forget(&self, key: &Key) {
        self.0.lock().pending.remove(key);
    }
}

impl State {
    fn settle(&mut self, is_settled: impl Fn(&Write) -> bool) {
        self.pending.retain(|_, writes| {
            writes.retain(|pending| !is_settled(&pending.write));
            !writes.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            namespace: "n".to_owned(),
            name: "r".to_owned(),
        }
    }

    fn write(uid: &str, version: Option<&str>) -> Write {
        Write {
            kind: Kind::ReplicaSet,
            namespace: "n".to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            version: version.map(str::to_owned),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_pending_until_the_watch_shows_exactly_it() {
        let seen = Seen::default();
        seen.expect(&key(), write("a", Some("7")));
        seen.shown("a", Some("6"));
        seen.shown("b", Some("7"));
        assert!(seen.pending_since(&key()).is_some());
        seen.shown("a", Some("7"));
        assert!(seen.pending_since(&key()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_faster_than_the_answer_counts() {
        let seen = Seen::default();
        seen.shown("a", Some("7"));
        seen.shown("a", Some("8"));
        seen.expect(&key(), write("a", Some("7")));
        assert!(seen.pending_since(&key()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_later_write_of_an_object_is_the_one_waited_for() {
        let seen = Seen::default();
        seen.expect(&key(), write("a", Some("7")));
        seen.expect(&key(), write("a", Some("9")));
        seen.shown("a", Some("7"));
        assert!(seen.pending_since(&key()).is_some());
        seen.shown("a", Some("9"));
        assert!(seen.pending_since(&key()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_settles_every_write_of_the_object() {
        let seen = Seen::default();
        seen.expect(&key(), write("a", Some("7")));
        seen.shown("a", None);
        assert!(seen.pending_since(&key()).is_none());
        seen.expect(&key(), write("b", None));
        seen.shown("b", Some("3"));
        assert!(seen.pending_since(&key()).is_some(), "it is not gone yet");
        seen.shown("b", None);
        assert!(seen.pending_since(&key()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_apiserver_is_asked_twice_a_second_about_a_write_however_often_one_looks() {
        let seen = Seen::default();
        seen.expect(&key(), write("a", Some("7")));
        let mut asked = Vec::new();
        for _ in 0..300 {
            asked.extend(seen.overdue(&key()));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let ages: Vec<_> = asked
            .iter()
            .map(|overdue| overdue.age.as_millis())
            .collect();
        assert_eq!(ages, [2000, 2500]);
        assert!(asked[0].first && !asked[1].first);
    }
}
