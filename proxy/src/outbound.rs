//! Connections to Services: whose they are, how they are served.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use sluice_xds::names::vip_listener;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    config::{Listener, Lookup, Mode, Route},
    http::{Handler, serve},
    io::Prefixed,
    sniff::{Sniffed, sniff},
    tcp::{dial, forward, pipe},
    upstream::{PATIENT_TIMEOUT, connect},
    worker::Worker,
};

/// Where a redirected connection wanted to go.
///
/// # Errors
/// When it was not redirected but made to our own port: following it would lead here again.
pub fn original_destination(client: &TcpStream) -> io::Result<SocketAddr> {
    let original = SockRef::from(client).original_dst_v4()?.as_socket();
    let original = original.ok_or(io::ErrorKind::AddrNotAvailable)?;
    if original == client.local_addr()? {
        return Err(io::Error::other("not redirected"));
    }
    Ok(original)
}

/// A connection that the application made, and the kernel redirected here.
pub async fn intercepted(worker: Rc<Worker>, client: TcpStream) {
    let original = match original_destination(&client) {
        Ok(original) => original,
        Err(error) => {
            tracing::debug!(%error, "an outbound connection without a destination");
            return;
        }
    };
    let name: Arc<str> = vip_listener(original.ip(), original.port()).into();
    match worker.shared.resolve(&name).await {
        Lookup::Found(listener) => accepted(worker, client, name, listener, None).await,
        Lookup::Absent | Lookup::Unknown => pass_through(&worker, client, original).await,
    }
}

/// A connection that a client made to a gateway.
pub async fn gateway(worker: Rc<Worker>, client: TcpStream, peer: SocketAddr, name: Arc<str>) {
    let known = worker.shared.resolve(&name).await;
    match known {
        Lookup::Found(listener) => accepted(worker, client, name, listener, Some(peer)).await,
        // There is no original destination to fall back to: each request is told so.
        Lookup::Absent | Lookup::Unknown => {
            serve_http(worker, client, Vec::new(), name, Some(peer)).await;
        }
    }
}

/// A connection of which the destination is known.
async fn accepted(
    worker: Rc<Worker>,
    mut client: TcpStream,
    name: Arc<str>,
    listener: Arc<Listener>,
    peer: Option<SocketAddr>,
) {
    let _in_use = listener.usage.enter();
    let tcp = match &listener.mode {
        Mode::Http(_) => return serve_http(worker, client, Vec::new(), name, peer).await,
        Mode::Tcp(tcp) => return raw(&worker, client, &[], tcp).await,
        Mode::Detect { tcp, .. } => tcp,
    };
    let mut prefix = Vec::new();
    match sniff(&mut client, &mut prefix, dial(&worker, tcp)).await {
        Sniffed::Http => serve_http(worker, client, prefix, name, peer).await,
        Sniffed::Raw(Some(dialed)) => forward(&worker, client, &prefix, dialed).await,
        Sniffed::Raw(None) => raw(&worker, client, &prefix, tcp).await,
        Sniffed::Unreachable(error) => unreachable(client, &error),
    }
}

async fn serve_http(
    worker: Rc<Worker>,
    client: TcpStream,
    prefix: Vec<u8>,
    listener: Arc<str>,
    peer: Option<SocketAddr>,
) {
    let handler = Handler::Outbound {
        listener,
        forwarded_for: peer,
    };
    serve(worker, Prefixed::new(prefix, client), handler).await;
}

async fn raw(worker: &Rc<Worker>, client: TcpStream, prefix: &[u8], route: &Route) {
    match dial(worker, route).await {
        Ok(dialed) => forward(worker, client, prefix, dialed).await,
        Err(error) => unreachable(client, &error),
    }
}

/// No Service: as if we were not there.
async fn pass_through(worker: &Worker, client: TcpStream, original: SocketAddr) {
    if is_ours(original.ip()) {
        return;
    }
    worker.shared.metrics.passthrough.inc();
    match connect(original, PATIENT_TIMEOUT).await {
        // How it ends is the business of the two ends.
        Ok(server) => drop(pipe(client, &[], server).await),
        Err(error) => unreachable(client, &error),
    }
}

/// What can never be somebody else's address.
fn is_ours(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// Tells a client by a reset: an orderly end would look like an answer.
pub fn unreachable(client: TcpStream, error: &io::Error) {
    tracing::debug!(%error, "the destination cannot be reached");
    let _ = SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO));
}
