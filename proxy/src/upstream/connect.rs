//! Making connections.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use hyper::rt::Executor;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};

/// To an endpoint: there are others. One SYN may be lost, which Linux repeats after a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1250);

/// To where there is no other choice, as to what is no Service.
pub const PATIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Finds within 30 s that the other end, or its node, has gone without a word.
pub fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3)
}

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

/// A TCP connection, without Nagle's delay, and with [`keepalive`].
///
/// # Errors
/// What the kernel says, or `TimedOut` after `patience`.
pub async fn connect(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(patience, TcpStream::connect(address))
        .await
        .map_err(|_| late())??;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
    Ok(stream)
}
