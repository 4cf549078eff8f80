//! Connects to another role over mutual TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// The longest that connecting may take, handshake included.
const CONNECT: Duration = Duration::from_secs(3);

/// Why another role could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name cannot stand in a certificate.
    #[error("{0} is not a DNS name")]
    Name(String),
    /// Nobody there, or the handshake failed.
    #[error("{address} ({name}) cannot be reached: {source}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// The name its certificate must carry.
        name: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// A gRPC channel to `address`, whose certificate must carry the DNS name `name`. It is connected
/// when it is returned.
///
/// # Errors
/// Nobody is there, or it is somebody else.
pub async fn connect(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<Channel, ConnectError> {
    let server =
        ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::Name(name.into()))?;
    let connector = tower::service_fn(move |_: http::Uri| {
        let (config, server) = (config.clone(), server.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(config).connect(server, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // The scheme is http because TLS is ours; tonic would want its own for https.
    Endpoint::from_shared(format!("http://{name}"))
        .map_err(|_| ConnectError::Name(name.into()))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError::Unreachable {
            address,
            name: name.to_owned(),
            source,
        })
}
