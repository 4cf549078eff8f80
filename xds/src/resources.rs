//! What a server session serves from.

use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;

use crate::Kind;

/// A resource as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Hash of its content: the same content has the same version on every replica, so that a
    /// client may resume at any of them.
    pub version: String,
    /// The message.
    pub body: Any,
}

/// The resources as they are now.
pub trait Resources {
    /// The resource of this name; none when it does not exist.
    fn get(&self, kind: Kind, name: &str) -> Option<Arc<Resource>>;

    /// `system_version_info` of the replies: for people who debug, of no meaning to clients.
    fn system_version(&self) -> String;
}
