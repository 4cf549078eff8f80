//! The ejects that a leader knows of: its own, and those that replicas still hold for the last
//! one. A state, not events: the union is told to every replica, again and again.

use std::{collections::BTreeMap, sync::Arc};

use sluice_evidence::relay::Eject;
use tokio::sync::watch;

/// Namespace and name of a MeshRollout.
type Key = (String, String);
/// What is known, by MeshRollout.
pub type Known = Arc<BTreeMap<Key, Eject>>;

/// At most one eject a MeshRollout: the one that reaches furthest.
#[derive(Default)]
pub struct Ejects(watch::Sender<Known>);

impl Ejects {
    /// Takes an eject in, unless one is known that reaches as far.
    pub fn add(&self, eject: Eject) -> bool {
        let key = (eject.namespace.clone(), eject.rollout.clone());
        self.0.send_if_modified(|known| {
            let reach = known.get(&key).map(|known| known.fence);
            let is_new = reach < Some(eject.fence);
            if is_new {
                Arc::make_mut(known).insert(key, eject);
            }
            is_new
        })
    }

    /// The eject of a MeshRollout.
    pub fn of(&self, namespace: &str, rollout: &str) -> Option<Eject> {
        let key = (namespace.to_owned(), rollout.to_owned());
        self.0.borrow().get(&key).cloned()
    }

    /// Lets go of those that are over.
    pub fn retain(&self, holds: impl Fn(&Eject) -> bool) {
        self.0.send_if_modified(|known| {
            if known.values().all(&holds) {
                return false;
            }
            Arc::make_mut(known).retain(|_, eject| holds(eject));
            true
        });
    }

    /// Told of every change.
    pub fn subscribe(&self) -> watch::Receiver<Known> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eject(rollout: &str, fence: i64) -> Eject {
        Eject {
            rollout: rollout.to_owned(),
            fence,
            ..Eject::default()
        }
    }

    #[test]
    fn of_one_rollout_the_eject_that_reaches_furthest_is_kept_and_told_once() {
        let ejects = Ejects::default();
        assert!(ejects.add(eject("web", 5)));
        assert!(!ejects.add(eject("web", 5)) && !ejects.add(eject("web", 4)));
        assert!(ejects.add(eject("web", 6)) && ejects.add(eject("api", 1)));
        let mut told = ejects.subscribe();
        ejects.retain(|eject| eject.fence > 0);
        assert!(told.has_changed().is_ok_and(|changed| !changed));
        ejects.retain(|eject| eject.fence > 1);
        assert!(told.has_changed().is_ok_and(|changed| changed));
        let fences: Vec<_> = told.borrow_and_update().values().map(|e| e.fence).collect();
        assert_eq!(fences, [6]);
        assert_eq!(ejects.of("", "api"), None);
    }
}
