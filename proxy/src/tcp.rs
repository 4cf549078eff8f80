//! Raw connections: bytes both ways, each end's goodbye passed on by itself.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use sluice_xds::names::Arm;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    balance::{choose, fallback, pick},
    config::{Endpoint, Route},
    evidence::{Counters, End, Failure},
    sniff::Server,
    upstream::{CONNECT_TIMEOUT, connect},
    worker::Worker,
};

/// Bytes of one direction that are on their way.
const BUFFER: usize = 16 * 1024;
/// Endpoints of one arm that are tried.
const TRIES: usize = 3;

/// Which end of a connection broke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broke {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// A connection to an endpoint, booked to the arm that the coin chose. Dropped before its end,
/// it counts in no arm.
#[derive(Debug)]
pub struct Dialed {
    stream: TcpStream,
    booking: Option<Booking>,
}

#[derive(Debug)]
struct Booking {
    counters: Arc<Counters>,
    arm: Arm,
    failure: Option<Failure>,
    /// Where the first attempt went, and whether that was refused.
    first: Option<Arc<Endpoint>>,
    unreached: bool,
}

impl Server for Dialed {
    async fn speaks(&self) {
        self.stream.speaks().await;
    }
}

impl Server for TcpStream {
    async fn speaks(&self) {
        let _ = self.peek(&mut [0]).await;
    }
}

/// Connects to an endpoint of the route: a coin for each connection; other endpoints, then the
/// other arm, when it is refused.
///
/// # Errors
/// Of the last endpoint; `NotConnected` when there is none.
pub async fn dial(worker: &Rc<Worker>, route: &Route) -> io::Result<Dialed> {
    let lapsed = worker.shared.lease.lapsed();
    let Some(choice) = choose(route, &worker.coin, lapsed) else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    let branch = &route.branches[choice.branch];
    let split = route.split.as_ref().zip(branch.arm);
    let mut booking = split.map(|(split, arm)| Booking {
        counters: split.counters.clone(),
        arm,
        failure: None,
        first: None,
        unreached: false,
    });
    if !choice.coined
        && let Some(booking) = booking.take()
    {
        booking.counters.uncoined(booking.arm);
    }
    let error = match dial_branch(worker, &branch.cluster.endpoints, &mut booking).await {
        Ok(stream) => return Ok(Dialed { stream, booking }),
        Err(error) => error,
    };
    let other = fallback(route, lapsed, |index| index != choice.branch);
    let Some(other) = other.map(|index| &route.branches[index]) else {
        book(booking, None);
        return Err(error);
    };
    if let Some((split, arm)) = route.split.as_ref().zip(other.arm) {
        split.counters.uncoined(arm);
    }
    match dial_branch(worker, &other.cluster.endpoints, &mut None).await {
        Ok(stream) => Ok(Dialed { stream, booking }),
        Err(error) => {
            book(booking, None);
            Err(error)
        }
    }
}

async fn dial_branch(
    worker: &Rc<Worker>,
    endpoints: &[Arc<Endpoint>],
    booking: &mut Option<Booking>,
) -> io::Result<TcpStream> {
    let mut tried = Vec::new();
    let mut failed = io::ErrorKind::NotConnected.into();
    for _ in 0..TRIES {
        let load = |address| worker.upstreams.load(address);
        let Some(endpoint) = pick(endpoints, &tried, &worker.coin, load) else {
            break;
        };
        let address = endpoint.address;
        if let Some(booking) = booking {
            booking.first.get_or_insert_with(|| endpoint.clone());
        }
        match connect(address, CONNECT_TIMEOUT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
        tried.push(address);
        worker.upstreams.get(address).refused();
        worker.shared.metrics.connect_failures.inc();
        let Some(booking) = booking else { continue };
        booking.unreached = true;
        if booking.failure.is_none() && worker.shared.evidence.is_new_connect_failure(address) {
            booking.failure = Some(Failure::Connect);
        }
    }
    Err(failed)
}

fn book(booking: Option<Booking>, then: Option<Failure>) {
    let Some(booking) = booking else { return };
    booking.counters.ended(
        booking.arm,
        End {
            failure: booking.failure.or(then),
            client_error: false,
            answered_in: None,
            unreached: booking.unreached,
            pod: booking.first.as_ref().map(|endpoint| &*endpoint.facts.pod),
        },
    );
}

/// Joins a client with the endpoint that was dialed for it, to the end.
pub async fn forward(worker: &Worker, client: TcpStream, prefix: &[u8], dialed: Dialed) {
    let metrics = &worker.shared.metrics;
    metrics.tcp_opened.inc();
    let ended = pipe(client, prefix, dialed.stream).await;
    metrics.tcp_closed.inc();
    match ended {
        Ok(()) => book(dialed.booking, None),
        Err(Broke::Server) => book(dialed.booking, Some(Failure::Reset)),
        Err(Broke::Client) => {}
    }
}

/// Copies both ways until both directions have ended; `prefix` are bytes of the client that were
/// read already. An end of one direction is passed on, a break breaks the other side too.
///
/// # Errors
/// Which side broke the connection.
pub async fn pipe(
    mut client: TcpStream,
    prefix: &[u8],
    mut server: TcpStream,
) -> Result<(), Broke> {
    let ended = async {
        server.write_all(prefix).await.map_err(|_| Broke::Server)?;
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        futures::try_join!(
            copy(client_read, server_write, Broke::Client, Broke::Server),
            copy(server_read, client_write, Broke::Server, Broke::Client),
        )?;
        Ok(())
    }
    .await;
    if let Err(broke) = ended {
        let other = match broke {
            Broke::Client => &server,
            Broke::Server => &client,
        };
        // Without it the other end would take the cut for an orderly end.
        let _ = SockRef::from(other).set_linger(Some(Duration::ZERO));
    }
    ended
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    reading: Broke,
    writing: Broke,
) -> Result<(), Broke> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await.map_err(|_| reading)?;
        if length == 0 {
            // The other end may have gone before us: then nobody needs the goodbye.
            let _ = to.shutdown().await;
            return Ok(());
        }
        to.write_all(&buffer[..length]).await.map_err(|_| writing)?;
    }
}
