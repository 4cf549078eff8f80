//! The connections to one endpoint.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    CONNECT_TIMEOUT, Fault, LocalExec, connect,
    fault::{Reading, read},
};
use crate::{balance::Load, http::RequestBody, metrics::SeriesCache};

/// An idle HTTP/1 connection is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// Idle HTTP/1 connections that are kept.
const MAX_IDLE: usize = 256;
/// Requests on one HTTP/2 connection before another one is opened; servers commonly allow 100.
const MAX_STREAMS: usize = 100;
/// An endpoint that could not be reached is a second choice for this time.
const COOLING: Duration = Duration::from_secs(5);
/// Longest head of an answer, and most that is read ahead.
const MAX_BUFFER: usize = 64 * 1024;
/// HTTP/2 flow control windows in bytes: what an answer, and a connection, may have in flight.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is spoken to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

type Connecting = Shared<LocalBoxFuture<'static, Result<Rc<SharedConn>, Arc<io::Error>>>>;

/// One endpoint, as this worker knows it.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    /// The application behind this proxy: not in the configuration, and wanted all the same.
    local: Cell<bool>,
    active: Cell<usize>,
    cooling_until: Cell<Option<Instant>>,
    idle: RefCell<Vec<IdleConn>>,
    shared: RefCell<Vec<Rc<SharedConn>>>,
    connecting: RefCell<Option<Connecting>>,
    series: SeriesCache,
}

#[derive(Debug)]
struct IdleConn {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// An HTTP/2 connection.
#[derive(Debug)]
struct SharedConn {
    sender: http2::SendRequest<RequestBody>,
    active: Cell<usize>,
    since: Cell<Instant>,
    /// Whether its end was already counted: it is one event for all its streams.
    broken: Cell<bool>,
}

#[derive(Debug)]
enum Conn {
    Http1(http1::SendRequest<RequestBody>),
    Http2(Rc<SharedConn>),
}

/// A request that runs. [`Ticket::done`] gives the connection back; merely dropped, an HTTP/1
/// connection is closed.
#[derive(Debug)]
pub struct Ticket {
    active: Active,
    conn: Option<Conn>,
}

/// A request that its endpoint is loaded with: from before it connects, else one that hangs
/// while connecting would look idle and draw all requests.
#[derive(Debug)]
struct Active(Rc<Upstream>);

impl Active {
    fn new(upstream: &Rc<Upstream>) -> Self {
        upstream.active.set(upstream.active.get() + 1);
        Self(upstream.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Ticket {
    fn new(active: Active, conn: Conn) -> Self {
        if let Conn::Http2(shared) = &conn {
            shared.active.set(shared.active.get() + 1);
        }
        Self {
            active,
            conn: Some(conn),
        }
    }

    /// The answer has been read to its end.
    pub fn done(mut self) {
        let Some(Conn::Http1(mut sender)) = self.conn.take_if(|c| matches!(c, Conn::Http1(_)))
        else {
            return;
        };
        let upstream = self.active.0.clone();
        if sender.is_ready() {
            return upstream.keep(sender);
        }
        // The connection's task has yet to see the end of the message.
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                upstream.keep(sender);
            }
        });
    }

    /// The body broke: whether that is an event of its own, not one of several streams that
    /// broke with their connection.
    #[must_use]
    pub fn is_new_break(&self, error: &hyper::Error) -> bool {
        match &self.conn {
            Some(Conn::Http2(shared)) => shared.is_new_break(error),
            Some(Conn::Http1(_)) | None => true,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(Conn::Http2(shared)) = &self.conn {
            shared.active.set(shared.active.get() - 1);
            shared.since.set(Instant::now());
        }
    }
}

impl SharedConn {
    fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.active.get() < MAX_STREAMS
    }

    fn is_new_break(&self, error: &hyper::Error) -> bool {
        read(error) != Reading::Connection || !self.broken.replace(true)
    }
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            local: Cell::new(false),
            active: Cell::new(0),
            cooling_until: Cell::new(None),
            idle: RefCell::default(),
            shared: RefCell::default(),
            connecting: RefCell::default(),
            series: SeriesCache::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set_local(&self) {
        self.local.set(true);
    }

    /// The metric series of its answers.
    #[must_use]
    pub fn series(&self) -> &SeriesCache {
        &self.series
    }

    pub(super) fn load(&self) -> Load {
        let cooling = self.cooling_until.get();
        let cooling = cooling.is_some_and(|until| until > Instant::now());
        (cooling, self.active.get())
    }

    /// It has refused: others are better for a moment.
    pub fn refused(&self) {
        self.cooling_until.set(Some(Instant::now() + COOLING));
    }

    /// Sends a request and waits for the head of the answer. `fresh` uses no idle connection.
    ///
    /// # Errors
    /// [`Fault`], which says whether the request may be sent again.
    pub async fn send(
        self: &Rc<Self>,
        request: Request<RequestBody>,
        protocol: Protocol,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Ticket), Fault> {
        match protocol {
            Protocol::Http1 => self.send_http1(request, fresh).await,
            Protocol::Http2 => self.send_http2(request, fresh).await,
        }
    }

    async fn send_http1(
        self: &Rc<Self>,
        request: Request<RequestBody>,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Ticket), Fault> {
        let active = Active::new(self);
        let idle = match fresh {
            true => None,
            false => self.take_idle(request.method().is_idempotent()).await,
        };
        let reused = idle.is_some();
        let sender = match idle {
            Some(sender) => sender,
            None => self.connect_http1().await?,
        };
        let mut ticket = Ticket::new(active, Conn::Http1(sender));
        let Some(Conn::Http1(sender)) = &mut ticket.conn else {
            return Err(Fault::Unprocessed);
        };
        let error = match sender.try_send_request(request).await {
            Ok(response) => return Ok((response, ticket)),
            Err(error) => error,
        };
        // It is handed back when it was not sent.
        match (error.message().is_some(), reused) {
            (true, true) => Err(Fault::Unprocessed),
            (true, false) => Err(Fault::Connect(io::ErrorKind::ConnectionReset.into())),
            (false, true) => Err(Fault::Stale),
            (false, false) => Err(Fault::Reset { first: true }),
        }
    }

    async fn connect_http1(&self) -> Result<http1::SendRequest<RequestBody>, Fault> {
        let stream = connect(self.address, CONNECT_TIMEOUT)
            .await
            .map_err(Fault::Connect)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Fault::Connect(io::Error::other(error)))?;
        tokio::task::spawn_local(connection.with_upgrades().map(drop));
        Ok(sender)
    }

    async fn send_http2(
        self: &Rc<Self>,
        request: Request<RequestBody>,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Ticket), Fault> {
        let active = Active::new(self);
        let open = if fresh { None } else { self.open_http2() };
        let reused_idle = open.as_ref().is_some_and(|conn| conn.active.get() == 0);
        let conn = match open {
            Some(conn) => conn,
            None => self
                .connect_http2()
                .await
                .map_err(|error| Fault::Connect(io::Error::new(error.kind(), error)))?,
        };
        let ticket = Ticket::new(active, Conn::Http2(conn.clone()));
        let error = match conn.sender.clone().try_send_request(request).await {
            Ok(response) => return Ok((response, ticket)),
            Err(error) => error,
        };
        if error.message().is_some() {
            return Err(Fault::Unprocessed);
        }
        match read(error.error()) {
            Reading::Unprocessed => Err(Fault::Unprocessed),
            Reading::Connection if reused_idle => Err(Fault::Stale),
            Reading::Stream | Reading::Connection => Err(Fault::Reset {
                first: conn.is_new_break(error.error()),
            }),
        }
    }

    fn open_http2(&self) -> Option<Rc<SharedConn>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|conn| !conn.sender.is_closed());
        shared.iter().find(|conn| conn.has_room()).cloned()
    }

    /// One connection attempt at a time, for all who wait for it.
    async fn connect_http2(self: &Rc<Self>) -> Result<Rc<SharedConn>, Arc<io::Error>> {
        let waiting = self.connecting.borrow().clone();
        let connecting = waiting.unwrap_or_else(|| {
            let this = self.clone();
            let attempt = async move { this.handshake_http2().await.map_err(Arc::new) };
            let attempt = attempt.boxed_local().shared();
            // It goes on when those who wait for it have gone: nothing is left half made.
            tokio::task::spawn_local(attempt.clone().map(drop));
            *self.connecting.borrow_mut() = Some(attempt.clone());
            attempt
        });
        let connected = connecting.await;
        if let Ok(conn) = &connected
            && !conn.has_room()
        {
            // More waited for it than it can take.
            return self.handshake_http2().await.map_err(Arc::new);
        }
        connected
    }

    async fn handshake_http2(&self) -> io::Result<Rc<SharedConn>> {
        let made = self.new_http2().await;
        self.connecting.borrow_mut().take();
        let conn = Rc::new(made?);
        self.shared.borrow_mut().push(conn.clone());
        Ok(conn)
    }

    async fn new_http2(&self) -> io::Result<SharedConn> {
        let stream = connect(self.address, CONNECT_TIMEOUT).await?;
        let (sender, connection) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_BUFFER)
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(connection.map(drop));
        Ok(SharedConn {
            sender,
            active: Cell::new(0),
            since: Cell::new(Instant::now()),
            broken: Cell::new(false),
        })
    }

    async fn take_idle(&self, may_repeat: bool) -> Option<http1::SendRequest<RequestBody>> {
        if !may_repeat && !self.idle.borrow().is_empty() {
            // A goodbye that has come already is read first: what cannot be sent again is not
            // to be sent into a closed connection.
            tokio::task::yield_now().await;
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(conn) = idle.pop() {
            if conn.sender.is_ready() {
                return Some(conn.sender);
            }
        }
        None
    }

    fn keep(&self, sender: http1::SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            let since = Instant::now();
            idle.push(IdleConn { sender, since });
        }
    }

    pub(super) fn prune(&self, now: Instant, wanted: bool) {
        let wanted = wanted || self.local.get();
        if !wanted {
            self.connecting.borrow_mut().take();
        }
        let fresh = |since: Instant| wanted && now.duration_since(since) < IDLE;
        let mut idle = self.idle.borrow_mut();
        idle.retain(|conn| !conn.sender.is_closed() && fresh(conn.since));
        let mut shared = self.shared.borrow_mut();
        shared.retain(|conn| {
            !conn.sender.is_closed() && (conn.active.get() > 0 || fresh(conn.since.get()))
        });
    }

    pub(super) fn is_unused(&self) -> bool {
        self.active.get() == 0
            && self.idle.borrow().is_empty()
            && self.shared.borrow().is_empty()
            && self.connecting.borrow().is_none()
    }
}
