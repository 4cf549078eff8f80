//! Messages in and out of `google.protobuf.Any`.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

/// Why an `Any` is not the message that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Another type.
    #[error("expected {expected}, got `{got}`")]
    Type {
        /// The type URL asked for.
        expected: String,
        /// The type URL found.
        got: String,
    },
    /// Bytes that are no such message.
    #[error("not a valid {expected}: {why}")]
    Bytes {
        /// The type URL asked for.
        expected: String,
        /// What the decoder said.
        why: String,
    },
}

/// Wraps a message.
#[must_use]
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// Unwraps a message.
///
/// # Errors
/// [`UnpackError`] when it is of another type, or its bytes are broken.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    let expected = M::type_url();
    if any.type_url != expected {
        return Err(UnpackError::Type {
            expected,
            got: any.type_url.chars().take(128).collect(),
        });
    }
    M::decode(any.value.as_slice()).map_err(|error| UnpackError::Bytes {
        expected,
        why: error.to_string(),
    })
}
