//! Values that are kept for long and read now and then.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

/// A value as its JSON: as a tree of strings, lists and options it takes several times as much.
#[derive(Clone, Debug)]
pub struct Packed<T> {
    json: Box<str>,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Packs a value that came as JSON, as everything of the apiserver's does.
    #[must_use]
    pub fn of(value: &T) -> Self {
        let json = serde_json::to_string(value).expect("what came as JSON can be written as JSON");
        Self {
            json: json.into(),
            of: PhantomData,
        }
    }

    /// The value.
    #[must_use]
    pub fn open(&self) -> T {
        serde_json::from_str(&self.json).expect("a value can be read from its own JSON")
    }
}
