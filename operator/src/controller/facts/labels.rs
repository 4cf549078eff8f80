//! Labels of an object.

use std::{collections::BTreeMap, sync::Arc};

/// Labels, sorted by key. Most objects have one or two: a map of its own takes ten times as much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(held, _)| (**held).cmp(key));
        Some(&*self.0[at.ok()?].1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of these are among them.
    #[must_use]
    pub fn contain(&self, others: &Self) -> bool {
        others.0.iter().all(|(k, v)| self.get(k) == Some(v))
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        let pairs = map.into_iter();
        Self(pairs.map(|(k, v)| (k.into(), v.into())).collect())
    }
}

#[cfg(test)]
impl Labels {
    /// These and one more.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let held = self.0.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let mut map: BTreeMap<_, _> = held.collect();
        map.insert(key.to_owned(), value.to_owned());
        map.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_found_whatever_the_order_in_which_they_came() {
        let labels = Labels::default()
            .with("b", "2")
            .with("a", "1")
            .with("c", "3");
        assert_eq!(labels.get("a"), Some("1"));
        assert_eq!(labels.get("c"), Some("3"));
        assert_eq!(labels.get("d"), None);
        assert!(labels.contain(&Labels::default().with("b", "2")));
        assert!(!labels.contain(&Labels::default().with("b", "3")));
        assert!(labels.contain(&Labels::default()));
    }
}
