//! A client's HTTP connection, until it ends or we leave.

use std::{
    cell::Cell, convert::Infallible, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{sleep, timeout},
};

use super::{inbound::inbound, outbound::outbound, response::ResponseBody};
use crate::{drain::Phase, io::Prefixed, sources::Source, upstream::LocalExec, worker::Worker};

/// Longest head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// Streams of one client connection.
const MAX_STREAMS: u32 = 1000;
/// HTTP/2 flow control windows in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How long the head of a connection's first request may take to come.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// The same while we leave.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Where the requests of a connection go.
#[derive(Debug, Clone)]
pub enum Handler {
    /// To a Service.
    Outbound {
        /// Name of the listener.
        listener: Arc<str>,
        /// At gateways: the client, to be appended to x-forwarded-for.
        forwarded_for: Option<SocketAddr>,
    },
    /// To the application of this pod.
    Inbound {
        /// Where that listens.
        address: SocketAddr,
        /// The counters of the connection's other end.
        source: Arc<Source>,
    },
}

/// The server side of hyper, as this proxy wants it.
pub fn server() -> Builder<LocalExec> {
    let mut builder = Builder::new(LocalExec);
    builder
        .http1()
        .timer(TokioTimer::new())
        // It would run on idle connections too; FIRST_REQUEST stands in for it.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_HEAD);
    builder
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct Seen {
    requests: Cell<u64>,
    http2: Cell<bool>,
    request: Notify,
}

impl Seen {
    /// Whether the connection may be told now that it ends. An HTTP/1 connection ends with an
    /// answer that says so as long as it can.
    fn may_leave(&self, phase: Phase) -> bool {
        let used = self.requests.get() > 0;
        match phase {
            Phase::Serving => false,
            Phase::Draining => used && self.http2.get(),
            Phase::Closing => used,
        }
    }
}

/// Serves a client until it leaves or we do.
pub async fn serve(worker: Rc<Worker>, io: Prefixed, handler: Handler) {
    let seen = Rc::new(Seen::default());
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, handler, seen) = (worker.clone(), handler.clone(), seen.clone());
        async move { Ok::<_, Infallible>(respond(worker, &handler, &seen, request).await) }
    });
    let connection = worker
        .server
        .serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut phases = worker.shared.drain.subscribe();
    loop {
        let phase = *phases.borrow_and_update();
        if seen.may_leave(phase) {
            break;
        }
        let patience = match phase {
            Phase::Closing => LAST_CHANCE,
            Phase::Serving | Phase::Draining => FIRST_REQUEST,
        };
        let silent = seen.requests.get() == 0;
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = phases.changed() => {}
            () = seen.request.notified(), if phase > Phase::Serving => {}
            () = sleep(patience), if silent => {
                if seen.requests.get() == 0 {
                    break;
                }
            }
        }
    }
    // A request that has come already is read before the goodbye is said.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = yield_now() => {}
    }
    connection.as_mut().graceful_shutdown();
    if seen.requests.get() == 0 {
        // Half a head is waited for no longer.
        let ended = timeout(LAST_CHANCE, connection.as_mut()).await;
        if ended.is_ok() || seen.requests.get() == 0 {
            return;
        }
    }
    // A connection that broke has nobody left to be told.
    let _ = connection.await;
}

async fn respond(
    worker: Rc<Worker>,
    handler: &Handler,
    seen: &Seen,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    seen.requests.set(seen.requests.get() + 1);
    let http2 = request.version() == Version::HTTP_2;
    seen.http2.set(http2);
    seen.request.notify_one();
    let drain = worker.shared.clone();
    let mut response = match handler {
        Handler::Outbound {
            listener,
            forwarded_for,
        } => outbound(worker, listener, *forwarded_for, request).await,
        Handler::Inbound { address, source } => {
            source.request(request.headers());
            inbound(worker, *address, request).await
        }
    };
    let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    if !http2 && !switched && drain.drain.phase() > Phase::Serving {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}
