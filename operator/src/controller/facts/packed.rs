//! Values that are kept for long and read now and then.

use std::marker::PhantomData;

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde::{Serialize, de::DeserializeOwned};

/// What most of what is packed looks like: what is said here need not be kept again. Nothing of it
/// outlives the process, so that it may change with the objects.
const DICTIONARY: &[u8] = include_bytes!("packed.json");

/// A value as its JSON, compressed: as a tree of strings, lists and options it takes ten times as
/// much.
#[derive(Clone, Debug)]
pub struct Packed<T> {
    compressed: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Packs a value that came as JSON, as everything of the apiserver's does.
    #[must_use]
    pub fn of(value: &T) -> Self {
        let json = serde_json::to_vec(value).expect("what came as JSON can be written as JSON");
        Self {
            compressed: compress_prepend_size_with_dict(&json, DICTIONARY).into(),
            of: PhantomData,
        }
    }

    /// The value.
    #[must_use]
    pub fn open(&self) -> T {
        let json = decompress_size_prepended_with_dict(&self.compressed, DICTIONARY);
        let json = json.expect("what was compressed can be had again");
        serde_json::from_slice(&json).expect("a value can be read from its own JSON")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_crds::MeshRollout;
    use sluice_rollout::state::State;

    use super::*;
    use crate::controller::fixtures::{rollout, with_state};

    #[test]
    fn what_was_packed_comes_back_as_it_was_whatever_it_says() {
        let texts = [
            "",
            "Ready",
            "é, \u{1F980}, \"quoted\"\n",
            &"long ".repeat(10_000),
        ];
        for text in texts {
            let value = json!({"message": text, "conditions": [{"type": text}]});
            assert_eq!(Packed::<Value>::of(&value).open(), value);
        }
    }

    #[test]
    fn of_an_idle_rollout_little_is_kept_that_the_dictionary_does_not_say() {
        let state = serde_json::to_value(State::default()).unwrap_or_default();
        let idle = with_state(&rollout("payments", "payments-api"), state);
        let object = idle.with(idle.status());
        let whole = serde_json::to_string(&object).unwrap_or_default().len();
        let kept = Packed::<MeshRollout>::of(&object).compressed.len();
        assert!(kept * 4 < whole, "{kept} of {whole} bytes");
    }
}
