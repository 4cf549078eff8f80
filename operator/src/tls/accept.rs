//! Accepts TLS connections with the newest certificate, and says who is at the other end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::FuturesUnordered};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::debug;

use super::Certs;

/// The longest that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most handshakes at one time; further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;

/// Which certificate a client must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// gRPC, a certificate is checked when there is one.
    Optional,
    /// gRPC, nobody comes in without a certificate of our root.
    Required,
    /// HTTPS for the apiserver, which calls webhooks without a certificate.
    None,
}

/// Who is at the other end; found in the extensions of each tonic request.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The address it connected from.
    pub address: SocketAddr,
    /// The SPIFFE ids of its checked certificate; empty without one.
    pub spiffe_ids: Arc<[String]>,
}

/// An accepted connection.
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    info: PeerInfo,
}

/// Accepts connections on a listener.
pub struct Acceptor {
    listener: TcpListener,
    certs: watch::Receiver<Option<Arc<Certs>>>,
    auth: ClientAuth,
}

impl Acceptor {
    /// Uses the configuration that stands in `certs` at the moment of each handshake, so that
    /// certificate and roots change together (a certificate resolver would change the one
    /// alone); while there is none, connections are closed.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        certs: watch::Receiver<Option<Arc<Certs>>>,
        auth: ClientAuth,
    ) -> Self {
        Self {
            listener,
            certs,
            auth,
        }
    }

    /// The accepted connections, for tonic's `serve_with_incoming`. A failed handshake is
    /// dropped, with a line at debug level: it is the client's matter, and not the server's end.
    pub fn incoming(self) -> impl Stream<Item = io::Result<PeerStream>> + Send + use<> {
        let Self {
            listener,
            certs,
            auth,
        } = self;
        let state = (listener, certs, FuturesUnordered::new());
        futures::stream::unfold(state, move |(listener, certs, mut handshakes)| async move {
            loop {
                tokio::select! {
                    Some(done) = handshakes.next(), if !handshakes.is_empty() => {
                        if let Some(stream) = done {
                            return Some((Ok(stream), (listener, certs, handshakes)));
                        }
                    }
                    accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => {
                        let Some((stream, address)) = usable(accepted).await else { continue };
                        let Some(config) = config(&certs, auth) else { continue };
                        handshakes.push(handshake(config, stream, address));
                    }
                }
            }
        })
    }
}

/// An error of `accept` is about one connection or a passing shortage of file descriptors;
/// after a breath the next one is tried.
async fn usable(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok(pair) => Some(pair),
        Err(error) => {
            debug!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

fn config(
    certs: &watch::Receiver<Option<Arc<Certs>>>,
    auth: ClientAuth,
) -> Option<Arc<ServerConfig>> {
    let certs = certs.borrow();
    let certs = certs.as_ref()?;
    Some(match auth {
        ClientAuth::Optional => certs.server_config(),
        ClientAuth::Required => certs.mutual_server_config(),
        ClientAuth::None => certs.http_server_config(),
    })
}

async fn handshake(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<PeerStream> {
    stream.set_nodelay(true).ok()?;
    let accept = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%address, %error, "TLS handshake failed");
            return None;
        }
        Err(_) => {
            debug!(%address, "TLS handshake took too long");
            return None;
        }
    };
    let spiffe_ids = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|leaf| sluice_identity::inspect_der(leaf).ok())
        .and_then(|facts| facts.spiffe_id)
        .into_iter()
        .collect();
    Some(PeerStream {
        stream,
        info: PeerInfo {
            address,
            spiffe_ids,
        },
    })
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
