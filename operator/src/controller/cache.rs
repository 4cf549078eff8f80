//! What is known of the objects of one kind, by namespace and name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::facts::{Kept, Key};

/// The objects of each namespace, sorted by name.
type Namespaces<V> = HashMap<String, Vec<Arc<V>>>;

/// The objects of one kind. Filled by one watch, read by everybody.
pub struct Cache<V> {
    objects: RwLock<Namespaces<V>>,
    synced: watch::Sender<bool>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }
}

impl<V: Kept> Cache<V> {
    /// The object of this namespace and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let objects = self.objects.read();
        let held = objects.get(namespace)?;
        Some(held[at(held, name).ok()?].clone())
    }

    /// All objects of a namespace, by name.
    pub fn within(&self, namespace: &str) -> Vec<Arc<V>> {
        let objects = self.objects.read();
        objects.get(namespace).cloned().unwrap_or_default()
    }

    /// Whether any object is such.
    pub fn any(&self, is_such: impl Fn(&V) -> bool) -> bool {
        self.objects
            .read()
            .values()
            .flatten()
            .any(|object| is_such(object))
    }

    /// The first object that is such, in no order.
    pub fn find(&self, is_such: impl Fn(&V) -> bool) -> Option<Arc<V>> {
        let objects = self.objects.read();
        let mut all = objects.values().flatten();
        all.find(|object| is_such(object)).cloned()
    }

    /// The objects that are such.
    pub fn such(&self, is_such: impl Fn(&V) -> bool) -> Vec<Arc<V>> {
        let objects = self.objects.read();
        let all = objects.values().flatten();
        all.filter(|object| is_such(object)).cloned().collect()
    }

    /// The uids of all objects.
    pub fn uids(&self) -> HashSet<String> {
        let objects = self.objects.read();
        objects
            .values()
            .flatten()
            .map(|object| object.meta().uid.clone())
            .collect()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<Key> {
        let objects = self.objects.read();
        objects
            .values()
            .flatten()
            .map(|object| object.meta().key())
            .collect()
    }

    /// The namespaces that hold at least one object, sorted.
    pub fn namespaces(&self) -> Vec<String> {
        let objects = self.objects.read();
        let mut namespaces: Vec<_> = objects
            .iter()
            .filter(|(_, held)| !held.is_empty())
            .map(|(ns, _)| ns.clone())
            .collect();
        namespaces.sort();
        namespaces
    }

    /// Puts an object in; what stood there before.
    pub fn put(&self, object: V) -> (Arc<V>, Option<Arc<V>>) {
        let object = Arc::new(object);
        let meta = object.meta();
        let mut objects = self.objects.write();
        let held = objects.entry(meta.namespace.clone()).or_default();
        let before = insert(held, object.clone());
        (object, before)
    }

    /// Takes an object out.
    pub fn remove(&self, namespace: &str, name: &str) {
        let mut objects = self.objects.write();
        let Some(held) = objects.get_mut(namespace) else {
            return;
        };
        if let Ok(at) = at(held, name) {
            held.remove(at);
        }
        if held.is_empty() {
            objects.remove(namespace);
        }
    }

    /// Puts a whole list in the place of everything; from now on the cache is synced.
    pub fn replace(&self, list: Vec<V>) {
        let mut objects = Namespaces::<V>::new();
        for object in list {
            let held = objects.entry(object.meta().namespace.clone()).or_default();
            insert(held, Arc::new(object));
        }
        *self.objects.write() = objects;
        self.synced.send_replace(true);
    }

    /// Returns when the first whole list is in.
    pub async fn synced(&self) {
        // The sender lives as long as the cache, so this cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

/// Where the object of this name is, or belongs.
fn at<V: Kept>(held: &[Arc<V>], name: &str) -> Result<usize, usize> {
    held.binary_search_by(|object| object.meta().name.as_str().cmp(name))
}

/// Puts an object into its place; what stood there before.
fn insert<V: Kept>(held: &mut Vec<Arc<V>>, object: Arc<V>) -> Option<Arc<V>> {
    match at(held, &object.meta().name) {
        Ok(at) => Some(std::mem::replace(&mut held[at], object)),
        Err(at) => {
            held.insert(at, object);
            None
        }
    }
}
