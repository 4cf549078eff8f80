//! Making connections.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use hyper::rt::Executor;
use tokio::{net::TcpStream, time::timeout};

/// One SYN may be lost: it is repeated after a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F> Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A TCP connection, without Nagle's delay.
///
/// # Errors
/// What the kernel says, or `TimedOut` after [`CONNECT_TIMEOUT`].
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| late())??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
