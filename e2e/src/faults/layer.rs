//! The layer: a reverse proxy on loopback that the operator takes for its apiserver.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

pub use super::record::Write;
use super::{
    call::{Call, Verb},
    operator::Process,
    record::Record,
    rule::{Action, Asked, Rule, Rules},
};

/// What goes back to the operator.
type Reply = Response<UnsyncBoxBody<Bytes, anyhow::Error>>;

/// A layer; it ends with its last handle.
#[derive(Clone)]
pub struct Layer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

struct Shared {
    upstream: Client,
    rules: Mutex<Rules>,
    writes: Mutex<Record>,
    asked: Mutex<BTreeSet<Call>>,
    /// Every list that was given, by path, the newest last.
    lists: Mutex<HashMap<String, Vec<Bytes>>>,
    victim: Mutex<Option<Process>>,
    frozen: watch::Sender<BTreeSet<String>>,
    /// A change ends all watches.
    watches: watch::Sender<()>,
    /// Whether what [`Action::Stop`] holds back may go on.
    released: watch::Sender<bool>,
    /// In every body that the operator sends: this text becomes that one.
    rewrites: Mutex<Vec<(String, String)>>,
}

impl Layer {
    /// Starts a layer before the apiserver that `upstream` leads to; what comes keeps its own
    /// credentials.
    ///
    /// # Errors
    /// No free port.
    pub async fn start(upstream: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            rules: Mutex::default(),
            writes: Mutex::default(),
            asked: Mutex::default(),
            lists: Mutex::default(),
            victim: Mutex::default(),
            frozen: watch::channel(BTreeSet::new()).0,
            watches: watch::channel(()).0,
            released: watch::channel(false).0,
            rewrites: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Ok(Self {
            address,
            shared,
            _tasks: Arc::new(Mutex::new(tasks)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whom [`Action::KillBefore`] and [`Action::KillAfter`] kill.
    pub fn may_kill(&self, victim: &Process) {
        *self.shared.victim.lock() = Some(victim.clone());
    }

    /// From now on this, too.
    pub fn add(&self, rule: Rule) {
        self.shared.rules.lock().add(rule);
    }

    /// All requests go through again.
    pub fn heal(&self) {
        self.shared.rules.lock().clear();
        self.shared.frozen.send_replace(BTreeSet::new());
    }

    /// How many requests something has happened to since [`Self::heal`].
    #[must_use]
    pub fn fired(&self) -> u32 {
        self.shared.rules.lock().fired()
    }

    /// Watches of this kind show nothing new until [`Self::thaw`].
    pub fn freeze(&self, resource: &str) {
        self.shared.frozen.send_modify(|frozen| {
            frozen.insert(resource.to_owned());
        });
    }

    /// Watches of this kind show what they kept back, and go on.
    pub fn thaw(&self, resource: &str) {
        self.shared.frozen.send_modify(|frozen| {
            frozen.remove(resource);
        });
    }

    /// Ends all watches, as an apiserver does that goes.
    pub fn end_watches(&self) {
        self.shared.watches.send_replace(());
    }

    /// What [`Action::Stop`] holds back goes on to the apiserver.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// In every body that is sent from now on, this text becomes that one.
    pub fn rewrite(&self, from: &str, to: &str) {
        self.shared
            .rewrites
            .lock()
            .push((from.to_owned(), to.to_owned()));
    }

    /// Every list of this path that was given so far, the oldest first.
    #[must_use]
    pub fn lists(&self, path: &str) -> Vec<Bytes> {
        self.shared
            .lists
            .lock()
            .get(path)
            .cloned()
            .unwrap_or_default()
    }

    /// The writes so far, but Leases, events and questions.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.shared.writes.lock().all()
    }

    /// The last write about this namespace.
    #[must_use]
    pub fn last_write(&self, namespace: &str) -> Option<Write> {
        self.shared.writes.lock().last_about(namespace)
    }

    /// Begins a new record: of writes and of lists.
    pub fn forget(&self) {
        self.shared.writes.lock().forget();
        self.shared.lists.lock().clear();
    }

    /// Every kind of request that was ever made: names left out.
    #[must_use]
    pub fn verbs(&self) -> BTreeSet<Call> {
        self.shared.asked.lock().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok((stream, _)) = accepted else { continue };
        // A small answer must not wait for the next one.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| pass(shared.clone(), request));
            // A connection that is cut is what was asked for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// An error ends the connection without an answer. What the apiserver was asked for is followed
/// to its end, though whoever asked may be dead by then.
async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply> {
    tokio::spawn(carry(shared, request)).await?
}

async fn carry(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply> {
    let call = Call::parse(request.method(), request.uri());
    let path = request.uri().path().to_owned();
    shared.asked.lock().insert(Call {
        namespace: String::new(),
        name: String::new(),
        ..call.clone()
    });
    let (parts, body) = request.into_parts();
    let body = shared.rewritten(body.collect().await?.to_bytes());
    let asked = Asked {
        body: serde_json::from_slice(&body).unwrap_or_default(),
        call,
    };
    let ruling = shared.rules.lock().judge(&asked);
    let number = shared.writes.lock().note(&asked);
    let action = ruling.as_ref().map(|ruling| &ruling.action);
    if let Some(reply) = shared.without_the_apiserver(action).await? {
        return Ok(reply);
    }

    let mut forwarded = Request::from_parts(parts, Body::from(body.to_vec()));
    for hop in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH] {
        forwarded.headers_mut().remove(hop);
    }
    let response = shared.upstream.send(forwarded).await;
    let response = response.context("the apiserver did not answer")?;
    if asked.call.verb == Verb::Watch && response.status().is_success() {
        return Ok(shared.watched(&asked.call.resource, response));
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    shared.writes.lock().note_answer(number, parts.status);
    if let Some(ruling) = ruling {
        match ruling.action {
            Action::CutReply | Action::KillAfter if !parts.status.is_success() => {
                shared.rules.lock().take_back(&ruling);
            }
            Action::CutReply => anyhow::bail!("cut"),
            Action::KillAfter => {
                shared.kill();
                anyhow::bail!("killed");
            }
            Action::DelayReply(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
    }
    if asked.call.verb == Verb::List && parts.status.is_success() {
        shared
            .lists
            .lock()
            .entry(path)
            .or_default()
            .push(body.clone());
    }
    let mut reply = Response::from_parts(parts, whole(body));
    reply.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(reply)
}

impl Shared {
    fn rewritten(&self, body: Bytes) -> Bytes {
        let rewrites = self.rewrites.lock();
        if rewrites.is_empty() {
            return body;
        }
        let mut text = String::from_utf8_lossy(&body).into_owned();
        for (from, to) in rewrites.iter() {
            text = text.replace(from, to);
        }
        text.into()
    }

    fn kill(&self) {
        let victim = self.victim.lock().clone();
        if let Some(victim) = victim {
            victim.kill();
        }
    }

    /// What is done before the apiserver is asked; a reply when it is not asked at all.
    async fn without_the_apiserver(&self, action: Option<&Action>) -> Result<Option<Reply>> {
        match action {
            Some(Action::Drop) => anyhow::bail!("dropped"),
            Some(Action::KillBefore) => {
                self.kill();
                anyhow::bail!("killed");
            }
            Some(Action::Delay(delay)) => {
                tokio::time::sleep(*delay).await;
                Ok(None)
            }
            Some(Action::Stop) => {
                let mut released = self.released.subscribe();
                let victim = self.victim.lock().clone();
                victim.context("nobody to stop")?.stop()?;
                released.wait_for(|released| *released).await?;
                Ok(None)
            }
            Some(Action::Answer(code, reason, message)) => {
                let status = status(*code, reason, message);
                answer(*code, status.to_string().into()).map(Some)
            }
            Some(Action::Replay(body)) => answer(200, body.clone()).map(Some),
            Some(Action::Expired) => {
                let event = json!({"type": "ERROR", "object": status(410, "Expired", "too old resource version")});
                answer(200, format!("{event}\n").into()).map(Some)
            }
            Some(Action::Truncate) => answer(
                200,
                Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Po"),
            )
            .map(Some),
            Some(Action::CutReply | Action::KillAfter | Action::DelayReply(_)) | None => Ok(None),
        }
    }

    /// A watch that can be frozen.
    fn watched(&self, resource: &str, response: Response<Body>) -> Reply {
        let (parts, body) = response.into_parts();
        let frozen = self.frozen.subscribe();
        let resource = resource.to_owned();
        let mut watches = self.watches.subscribe();
        let end = Box::pin(async move {
            let _ = watches.changed().await;
        });
        let frames = BodyStream::new(body).take_until(end).then(move |frame| {
            let (mut frozen, resource) = (frozen.clone(), resource.clone());
            async move {
                // The layer is there as long as its connections are.
                let _ = frozen.wait_for(|frozen| !frozen.contains(&resource)).await;
                frame.map_err(anyhow::Error::from)
            }
        });
        Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn answer(code: u16, body: Bytes) -> Result<Reply> {
    let mut reply = Response::new(whole(body));
    *reply.status_mut() = StatusCode::from_u16(code)?;
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    if code == 429 {
        reply
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(reply)
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, anyhow::Error> {
    let never = |error: Infallible| match error {};
    Full::new(body)
        .map_err(never)
        .map_frame(|frame: Frame<Bytes>| frame)
        .boxed_unsync()
}
