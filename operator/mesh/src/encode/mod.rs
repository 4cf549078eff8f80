//! From plans to Envoy's messages: only what our proxy carries out and Envoy asks for.

mod listener;
mod route;
mod upstream;

use envoy_types::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, config_source::ConfigSourceSpecifier,
};

pub(crate) use listener::listener;
pub(crate) use route::route;
pub(crate) use upstream::{cluster, endpoints};

/// "From the stream this came from."
fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}
