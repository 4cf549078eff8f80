//! The four types of resources, in the order in which they are made.

use std::fmt;

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
};
use prost::Name;

use crate::ProtocolError;

/// Type of a resource. The order is the one of making: who comes first names nobody behind it
/// that would have to be there for it to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Route,
}

impl Kind {
    /// All kinds, in the order of making.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route];

    /// The `type_url` on the wire.
    #[must_use]
    pub fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoints => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Route => RouteConfiguration::type_url(),
        }
    }

    /// The kind that a `type_url` means.
    ///
    /// # Errors
    /// [`ProtocolError::UnknownType`] for any other.
    pub fn from_type_url(type_url: &str) -> Result<Self, ProtocolError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.type_url() == type_url)
            .ok_or_else(|| ProtocolError::UnknownType(type_url.chars().take(128).collect()))
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::Endpoints => "ClusterLoadAssignment",
            Self::Listener => "Listener",
            Self::Route => "RouteConfiguration",
        })
    }
}

/// What a resource is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    /// Its type.
    pub kind: Kind,
    /// Its name within the type.
    pub name: String,
}

impl ResourceName {
    /// A name of this kind.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
