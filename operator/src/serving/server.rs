//! The gRPC server on 15012.

use std::{io, sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use futures::Stream;
use sluice_evidence::v1::evidence_server::EvidenceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};

use super::{ads::Ads, auth::Authenticator, evidence::EvidenceService, hub::Hub};

/// Streams that one connection may open: two are used.
const MAX_STREAMS: u32 = 16;
/// How often a silent connection is asked whether it is still there, and how long it may take.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);

/// Serves ADS and evidence on these connections until `shutdown`; streams then end with
/// UNAVAILABLE, and proxies connect to another replica.
///
/// # Errors
/// The transport failed.
pub async fn serve<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    hub: Arc<Hub>,
    authenticator: Arc<dyn Authenticator>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let ads = Ads {
        hub: hub.clone(),
        authenticator: authenticator.clone(),
        shutdown: shutdown.clone(),
    };
    let evidence = EvidenceService {
        hub,
        authenticator,
        shutdown: shutdown.clone(),
    };
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .add_service(AggregatedDiscoveryServiceServer::new(ads))
        .add_service(EvidenceServer::new(evidence))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
}
