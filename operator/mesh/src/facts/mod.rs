//! What is kept of the cluster's objects.

mod audience;
mod eject;
mod pod;
mod protocol;
mod service;
mod slice;
mod split;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use audience::Audience;
pub use audience::{ExportTo, WrongExportTo};
pub use eject::Eject;
pub(crate) use pod::{PodFacts, Template};
pub use protocol::PortProtocol;
pub(crate) use service::{PortFacts, Readiness, ServiceFacts};
pub(crate) use slice::{Member, SliceFacts};
pub(crate) use split::{SplitAge, SplitFacts};

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of a namespaced object.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// None for an object that has no namespace or no name yet.
    pub(crate) fn of(meta: &ObjectMeta) -> Option<Self> {
        Some(Self::new(meta.namespace.as_deref()?, meta.name.as_deref()?))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
