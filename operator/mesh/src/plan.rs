//! What a resource will say, as plain data. Its hash is the resource's version: the encoder sees
//! nothing but the plan, so equal versions are equal content. (The encoded bytes could not be
//! hashed: protobuf maps have no order.)

use std::{
    fmt::Write as _,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use sha2::{Digest, Sha256};
use sluice_xds::{
    Resource,
    metadata::{EndpointFacts, RouteFacts},
    names::{Arm, ClusterName},
};

/// Number of the encoding. It is part of every version: raise it when [`crate::encode`] makes
/// other messages of the same plan, or clients that resume keep the former ones. The snapshot
/// tests show it.
const ENCODING: u32 = 1;
/// Bytes of the hash that make a version.
const VERSION_BYTES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Plan {
    Listener(ListenerPlan),
    Route(RoutePlan),
    Cluster(ClusterPlan),
    Endpoints(EndpointsPlan),
}

/// A listener: HTTP, TCP, or both where the protocol is found out per connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListenerPlan {
    pub name: String,
    /// Name of its routes.
    pub http: Option<String>,
    pub tcp: Option<Forward>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RoutePlan {
    pub name: String,
    pub forward: Forward,
}

/// Where traffic of a Service's port goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Forward {
    pub host: String,
    pub port: u16,
    /// In percent; none: there is no split, all goes to the whole Service.
    pub candidate_weight: Option<u32>,
    pub facts: RouteFacts,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClusterPlan {
    pub name: String,
    pub http2: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EndpointsPlan {
    pub name: String,
    pub endpoints: Vec<EndpointPlan>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EndpointPlan {
    pub address: IpAddr,
    pub port: u16,
    pub facts: EndpointFacts,
}

impl Forward {
    /// Name of the whole Service's cluster.
    pub(crate) fn whole(&self) -> String {
        self.cluster(None)
    }

    /// Names and weights of both arms, stable first, in sum 100; none without a split.
    pub(crate) fn arms(&self) -> Option<[(String, u32); 2]> {
        let candidate = self.candidate_weight?.min(100);
        Some([
            (self.cluster(Some(Arm::Stable)), 100 - candidate),
            (self.cluster(Some(Arm::Candidate)), candidate),
        ])
    }

    fn cluster(&self, arm: Option<Arm>) -> String {
        let name = ClusterName {
            host: &self.host,
            port: self.port,
            arm,
        };
        name.to_string()
    }
}

impl Plan {
    pub(crate) fn compile(&self) -> Resource {
        Resource {
            version: self.version(),
            body: match self {
                Self::Listener(plan) => crate::encode::listener(plan),
                Self::Route(plan) => crate::encode::route(plan),
                Self::Cluster(plan) => crate::encode::cluster(plan),
                Self::Endpoints(plan) => crate::encode::endpoints(plan),
            },
        }
    }

    fn version(&self) -> String {
        let mut hasher = Sha(Sha256::new());
        ENCODING.hash(&mut hasher);
        self.hash(&mut hasher);
        let digest = hasher.0.finalize();
        let mut version = String::with_capacity(2 * VERSION_BYTES);
        for byte in digest.iter().take(VERSION_BYTES) {
            // Writing to a String cannot fail.
            let _ = write!(version, "{byte:02x}");
        }
        version
    }
}

/// SHA-256 behind the standard trait. Numbers are fed in one byte order and one width, so that
/// replicas on different machines agree.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u16(&mut self, number: u16) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn write_i64(&mut self, number: i64) {
        self.0.update(number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_i64(number as i64);
    }

    /// Not used: a version is more than 64 bits.
    fn finish(&self) -> u64 {
        0
    }
}
