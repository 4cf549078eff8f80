//! A worker: one thread that serves connections and shares nothing with the others but what is
//! in [`Shared`].

use std::{collections::HashSet, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use futures::FutureExt;
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::LocalSet,
};

use crate::{
    coin::Coin,
    config::Cluster,
    drain::Phase,
    http::{own_cluster, server},
    inbound, outbound,
    shared::Shared,
    upstream::{LocalExec, Upstreams, keepalive},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often idle connections are looked after.
const PRUNE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as with no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What a worker owns.
pub struct Worker {
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Its chances.
    pub coin: Coin,
    /// Its connections.
    pub upstreams: Upstreams,
    /// hyper's server side.
    pub server: Builder<LocalExec>,
    /// What inbound requests are reported under.
    pub own: Arc<Cluster>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker without connections.
    #[must_use]
    pub fn new(shared: Arc<Shared>, coin: Coin) -> Rc<Self> {
        Rc::new(Self {
            coin,
            upstreams: Upstreams::default(),
            server: server(),
            own: own_cluster(&shared.own),
            shared,
        })
    }
}

/// What the connections of a listening socket want.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// The application's connections to anywhere; the kernel knows where to.
    Outbound,
    /// A gateway's clients, for this listener.
    Gateway(Arc<str>),
    /// Others' connections to the application; the kernel knows where to.
    Inbound,
    /// Others' connections to the application at this address.
    InboundTo(SocketAddr),
}

/// A listening socket that other workers may bind as well.
///
/// # Errors
/// What the kernel says, as of a port that another program listens on.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Of Linux, the connections that it accepts have it too.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs a worker on this thread until the process ends.
///
/// # Errors
/// When there is no runtime, or a socket cannot be listened on.
pub fn run(shared: Arc<Shared>, sockets: Vec<(std::net::TcpListener, Purpose)>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Worker::new(shared, Coin::random());
        for (socket, purpose) in sockets {
            let listener = TcpListener::from_std(socket)?;
            tokio::task::spawn_local(listen(worker.clone(), listener, purpose));
        }
        look_after(&worker).await;
        Ok(())
    })
}

/// Accepts until we leave; then takes in what waits in the kernel's queue, and closes it.
pub async fn listen(worker: Rc<Worker>, listener: TcpListener, purpose: Purpose) {
    // Leaving waits until the queue is empty, however long this thread takes to come to it.
    let _open = worker.shared.drain.open();
    let mut phases = worker.shared.drain.subscribe();
    loop {
        tokio::select! {
            biased;
            () = closing(&mut phases) => break,
            accepted = listener.accept() => match accepted {
                Ok((client, peer)) => start(&worker, client, peer, &purpose),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // The kernel has not been asked since.
    tokio::task::yield_now().await;
    while let Some(Ok((client, peer))) = listener.accept().now_or_never() {
        start(&worker, client, peer, &purpose);
    }
}

async fn closing(phases: &mut watch::Receiver<Phase>) {
    let _ = phases.wait_for(|phase| *phase == Phase::Closing).await;
}

fn start(worker: &Rc<Worker>, client: TcpStream, peer: SocketAddr, purpose: &Purpose) {
    // Fails only on a connection that is gone, which shows at its first read.
    let _ = client.set_nodelay(true);
    let worker = worker.clone();
    let purpose = purpose.clone();
    let open = worker.shared.drain.open();
    tokio::task::spawn_local(async move {
        let _open = open;
        match purpose {
            Purpose::Outbound => outbound::intercepted(worker, client).await,
            Purpose::Gateway(listener) => outbound::gateway(worker, client, peer, listener).await,
            Purpose::Inbound => inbound::intercepted(worker, client, peer).await,
            Purpose::InboundTo(address) => inbound::accepted(worker, client, peer, address).await,
        }
    });
}

/// Closes idle connections now and then, and at once those of endpoints that have gone.
async fn look_after(worker: &Worker) {
    let mut published = worker.shared.published();
    loop {
        let _ = tokio::time::timeout(PRUNE, published.changed()).await;
        let wanted: HashSet<_> = worker.shared.snapshot.load().addresses();
        worker.upstreams.prune(&wanted);
    }
}
