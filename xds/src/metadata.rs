//! The facts that travel in `filter_metadata["sluice.dev"]`: of routes (which split the coin
//! belongs to) and of endpoints (who answers, for metrics). Written by the mesh, read by proxies.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::config::core::v3::Metadata,
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};

/// Key of our struct in `filter_metadata`.
pub const KEY: &str = "sluice.dev";

/// The largest integer that a JSON number holds exactly, 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Why the metadata cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// There is none of ours.
    #[error("filter_metadata has no `{KEY}`")]
    Absent,
    /// A field is not there or not of its type.
    #[error("filter_metadata `{KEY}` needs a {expected} in `{field}`")]
    Field {
        /// Its name.
        field: &'static str,
        /// `string`, `bool` or `whole number`.
        expected: &'static str,
    },
}

/// What a route, or a TCP listener, says of the split it carries out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RouteFacts {
    /// `NAMESPACE/NAME` of the Service.
    pub service: String,
    /// The candidate revision; empty when there is none.
    pub revision: String,
    /// The split's fence; 0 without a split, and while its candidate is ejected.
    pub fence: i64,
    /// Whether the candidate's weight ends when the proxy loses contact.
    pub leased: bool,
    /// How long a request may run before it counts as hung, in milliseconds.
    pub hung_after_ms: i64,
}

/// Whose endpoint it is, in the words of Istio's metric labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EndpointFacts {
    /// Name of the pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of the workload that owns it, as its Deployment.
    pub workload: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Istio's canonical service.
    pub canonical_name: String,
    /// Istio's canonical revision.
    pub canonical_revision: String,
    /// SPIFFE id of its account.
    pub principal: String,
}

impl RouteFacts {
    /// As `filter_metadata`.
    #[must_use]
    pub fn to_metadata(&self) -> Metadata {
        metadata([
            ("service", string(&self.service)),
            ("revision", string(&self.revision)),
            ("fence", ValueKind::NumberValue(self.fence as f64)),
            ("leased", ValueKind::BoolValue(self.leased)),
            (
                "hungAfterMs",
                ValueKind::NumberValue(self.hung_after_ms as f64),
            ),
        ])
    }

    /// Reads what [`Self::to_metadata`] wrote.
    ///
    /// # Errors
    /// [`MetadataError`] when a field is absent or of another type.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, MetadataError> {
        let fields = Fields::of(metadata)?;
        Ok(Self {
            service: fields.string("service")?,
            revision: fields.string("revision")?,
            fence: fields.integer("fence")?,
            leased: fields.bool("leased")?,
            hung_after_ms: fields.integer("hungAfterMs")?,
        })
    }
}

impl EndpointFacts {
    /// As `filter_metadata`.
    #[must_use]
    pub fn to_metadata(&self) -> Metadata {
        metadata([
            ("pod", string(&self.pod)),
            ("namespace", string(&self.namespace)),
            ("workload", string(&self.workload)),
            ("app", string(&self.app)),
            ("version", string(&self.version)),
            ("canonicalName", string(&self.canonical_name)),
            ("canonicalRevision", string(&self.canonical_revision)),
            ("principal", string(&self.principal)),
        ])
    }

    /// Reads what [`Self::to_metadata`] wrote.
    ///
    /// # Errors
    /// [`MetadataError`] when a field is absent or of another type.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, MetadataError> {
        let fields = Fields::of(metadata)?;
        Ok(Self {
            pod: fields.string("pod")?,
            namespace: fields.string("namespace")?,
            workload: fields.string("workload")?,
            app: fields.string("app")?,
            version: fields.string("version")?,
            canonical_name: fields.string("canonicalName")?,
            canonical_revision: fields.string("canonicalRevision")?,
            principal: fields.string("principal")?,
        })
    }
}

fn metadata<const N: usize>(fields: [(&str, ValueKind); N]) -> Metadata {
    let fields = fields
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }))
        .collect();
    Metadata {
        filter_metadata: HashMap::from([(KEY.to_owned(), Struct { fields })]),
        typed_filter_metadata: HashMap::new(),
    }
}

fn string(text: &str) -> ValueKind {
    ValueKind::StringValue(text.to_owned())
}

/// The fields of our struct.
struct Fields<'a>(&'a HashMap<String, Value>);

impl<'a> Fields<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, MetadataError> {
        let ours = metadata.filter_metadata.get(KEY);
        ours.map(|s| Self(&s.fields)).ok_or(MetadataError::Absent)
    }

    fn kind(&self, field: &str) -> Option<&ValueKind> {
        self.0.get(field)?.kind.as_ref()
    }

    fn string(&self, field: &'static str) -> Result<String, MetadataError> {
        match self.kind(field) {
            Some(ValueKind::StringValue(text)) => Ok(text.clone()),
            _ => Err(MetadataError::Field {
                field,
                expected: "string",
            }),
        }
    }

    fn bool(&self, field: &'static str) -> Result<bool, MetadataError> {
        match self.kind(field) {
            Some(ValueKind::BoolValue(value)) => Ok(*value),
            _ => Err(MetadataError::Field {
                field,
                expected: "bool",
            }),
        }
    }

    fn integer(&self, field: &'static str) -> Result<i64, MetadataError> {
        match self.kind(field) {
            Some(ValueKind::NumberValue(number))
                if number.fract() == 0.0 && number.abs() <= MAX_EXACT =>
            {
                Ok(*number as i64)
            }
            _ => Err(MetadataError::Field {
                field,
                expected: "whole number",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn route() -> RouteFacts {
        RouteFacts {
            service: "shop/cart".to_owned(),
            revision: "abc".to_owned(),
            fence: 7,
            leased: true,
            hung_after_ms: 10_000,
        }
    }

    #[test]
    fn facts_come_back_as_they_were() {
        assert_eq!(
            RouteFacts::from_metadata(&route().to_metadata()),
            Ok(route())
        );
        let endpoint = EndpointFacts {
            pod: "cart-1".to_owned(),
            principal: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
            ..EndpointFacts::default()
        };
        assert_eq!(
            EndpointFacts::from_metadata(&endpoint.to_metadata()),
            Ok(endpoint)
        );
    }

    #[test]
    fn a_missing_or_mistyped_field_is_named() {
        let empty = Metadata::default();
        assert_eq!(
            RouteFacts::from_metadata(&empty),
            Err(MetadataError::Absent)
        );
        for bad in [
            ValueKind::NumberValue(0.5),
            ValueKind::NumberValue(f64::NAN),
            ValueKind::NumberValue(f64::INFINITY),
            ValueKind::NumberValue(1e300),
            ValueKind::StringValue("7".to_owned()),
        ] {
            let mut metadata = route().to_metadata();
            let fields = &mut metadata.filter_metadata.get_mut(KEY).unwrap().fields;
            fields.insert("fence".to_owned(), Value { kind: Some(bad) });
            let error = RouteFacts::from_metadata(&metadata).unwrap_err();
            assert!(error.to_string().contains("`fence`"), "{error}");
        }
    }
}
