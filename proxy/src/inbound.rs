//! Connections of others to the application of this pod.

use std::{net::SocketAddr, rc::Rc};

use tokio::net::TcpStream;

use crate::{
    http::{Handler, serve},
    io::Prefixed,
    outbound::{original_destination, unreachable},
    sniff::{Sniffed, sniff},
    tcp::pipe,
    upstream::{CONNECT_TIMEOUT, connect},
    worker::Worker,
};

/// A connection that the kernel redirected here.
pub async fn intercepted(worker: Rc<Worker>, client: TcpStream, peer: SocketAddr) {
    match original_destination(&client) {
        Ok(address) => accepted(worker, client, peer, address).await,
        Err(error) => tracing::debug!(%error, "an inbound connection without a destination"),
    }
}

/// A connection for the application at `address`.
pub async fn accepted(
    worker: Rc<Worker>,
    mut client: TcpStream,
    peer: SocketAddr,
    address: SocketAddr,
) {
    let source = worker.shared.sources.of(peer.ip());
    let mut prefix = Vec::new();
    match sniff(&mut client, &mut prefix, connect(address, CONNECT_TIMEOUT)).await {
        Sniffed::Http => {
            let io = Prefixed::new(prefix, client);
            serve(worker, io, Handler::Inbound { address, source }).await;
        }
        Sniffed::Raw(server) => {
            source.connection(!prefix.is_empty());
            let server = match server {
                Some(server) => Ok(server),
                None => connect(address, CONNECT_TIMEOUT).await,
            };
            match server {
                // How it ends is the business of the two ends.
                Ok(server) => drop(pipe(client, &prefix, server).await),
                Err(error) => unreachable(client, &error),
            }
        }
        Sniffed::Unreachable(error) => unreachable(client, &error),
    }
}
