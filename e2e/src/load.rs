//! Steady open-loop load over HTTP/1.1 keep-alive connections, booked in a [`Ledger`].
//!
//! Nothing is retried: a request that a connection loses is lost in the ledger, so that the
//! mesh, not the client, has to be the careful one.

use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::ledger::{Ledger, Outcome};

/// Header by which the gateway of the demo tells which pod answered.
pub const ANSWERED_BY: &str = "x-sluice-answered-by";
/// Longest wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Answers larger than this are not read as text.
const MAX_BODY: usize = 64 * 1024;

/// What to send where.
#[derive(Debug, Clone)]
pub struct Load {
    /// Address of the gateway, in a network that the run made itself.
    pub gateway: SocketAddr,
    /// Host header.
    pub host: String,
    /// Requests a second.
    pub rate: u32,
    /// Connections.
    pub connections: usize,
    /// What is asked for.
    pub path: String,
    /// What some ask for instead.
    pub others: Vec<Share>,
    /// Every n-th request goes through both tiers instead.
    pub two_tier_every: u64,
}

/// Requests for something else.
#[derive(Debug, Clone)]
pub struct Share {
    /// Of a thousand requests so many, which ones by chance.
    pub of_thousand: u64,
    /// What they ask for.
    pub path: String,
}

impl Load {
    /// What the request with this number asks for.
    fn path_of(&self, id: u64) -> &str {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(id);
        let mut at = hasher.finish() % 1_000;
        for other in &self.others {
            if at < other.of_thousand {
                return &other.path;
            }
            at -= other.of_thousand;
        }
        &self.path
    }
}

/// A running load; it ends when [`Running::stop`] is called or the value is dropped.
pub struct Running {
    ledger: Arc<Ledger>,
    clock: tokio::task::JoinHandle<()>,
    workers: JoinSet<()>,
}

/// Starts the load.
pub fn start(load: Load, ledger: Arc<Ledger>) -> Running {
    let (tickets, queue) = mpsc::unbounded_channel::<u64>();
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let mut workers = JoinSet::new();
    for _ in 0..load.connections {
        workers.spawn(work(load.clone(), ledger.clone(), queue.clone()));
    }
    let clock = tokio::spawn(tick(load.rate, ledger.clone(), tickets));
    Running {
        ledger,
        clock,
        workers,
    }
}

impl Running {
    /// Sends no more, waits for what is in flight.
    pub async fn stop(mut self) {
        self.clock.abort();
        while self.workers.join_next().await.is_some() {}
    }

    /// The ledger of this load.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.clock.abort();
    }
}

/// Opens `rate` ledger entries a second, whatever becomes of the earlier ones.
async fn tick(rate: u32, ledger: Arc<Ledger>, tickets: mpsc::UnboundedSender<u64>) {
    let began = Instant::now();
    let mut interval = tokio::time::interval(Duration::from_millis(5));
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0u64;
    loop {
        interval.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due {
            if tickets.send(ledger.open()).is_err() {
                return;
            }
            sent += 1;
        }
    }
}

async fn work(
    load: Load,
    ledger: Arc<Ledger>,
    queue: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<u64>>>,
) {
    let mut connection: Option<SendRequest<Full<Bytes>>> = None;
    loop {
        let ticket = queue.lock().await.recv().await;
        let Some(id) = ticket else { return };
        let answer = tokio::time::timeout(PATIENCE, exchange(&load, id, &mut connection)).await;
        let (pod, outcome) = match answer {
            Ok(Ok(ended)) => ended,
            Ok(Err(why)) => {
                connection = None;
                (
                    None,
                    Outcome::Lost {
                        why: format!("{why:#}"),
                    },
                )
            }
            Err(_) => {
                connection = None;
                (
                    None,
                    Outcome::Lost {
                        why: format!("no answer in {} s", PATIENCE.as_secs()),
                    },
                )
            }
        };
        ledger.close(id, pod, outcome);
    }
}

async fn exchange(
    load: &Load,
    id: u64,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<(Option<String>, Outcome)> {
    let mut sender = match connection.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => connect(load.gateway).await?,
    };
    sender
        .ready()
        .await
        .context("the connection closed before the request")?;
    let two_tier = load.two_tier_every > 0 && id.is_multiple_of(load.two_tier_every);
    let (method, path, body) = if two_tier {
        ("POST", "/echo", Bytes::from(format!("request {id}")))
    } else {
        ("GET", load.path_of(id), Bytes::new())
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", &load.host)
        .header("user-agent", "sluice-load")
        .header("x-request-id", format!("ledger-{id}"))
        .body(Full::new(body))?;
    let response = sender
        .send_request(request)
        .await
        .context("sending the request")?;
    let status = response.status().as_u16();
    let pod = response
        .headers()
        .get(ANSWERED_BY)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    let close = response
        .headers()
        .get("connection")
        .is_some_and(|v| v == "close");
    let body = response
        .into_body()
        .collect()
        .await
        .context("reading the answer")?
        .to_bytes();
    if !close {
        *connection = Some(sender);
    }
    if status >= 400 {
        return Ok((
            pod,
            Outcome::Failed {
                status,
                what: format!("{method} {path}"),
            },
        ));
    }
    if two_tier && let Some(what) = backend_failure(&body) {
        return Ok((pod, Outcome::Failed { status, what }));
    }
    Ok((pod, Outcome::Ok))
}

async fn connect(gateway: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(gateway)
        .await
        .with_context(|| format!("connecting to the gateway at {gateway}"))?;
    stream.set_nodelay(true)?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The sender sees the same error; there is no one else to tell.
        let _ = driver.await;
    });
    Ok(sender)
}

/// podinfo answers 202 even where its backend failed, and says so in the body.
fn backend_failure(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body.get(..body.len().min(MAX_BODY))?).ok()?;
    ["response status code", "call failed"]
        .iter()
        .any(|sign| text.contains(sign))
        .then(|| text.trim().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_requests_each_path_gets_its_share_by_chance() {
        let other = |of_thousand, path: &str| Share {
            of_thousand,
            path: path.to_owned(),
        };
        let load = Load {
            gateway: SocketAddr::from(([127, 0, 0, 1], 1)),
            host: String::new(),
            rate: 1,
            connections: 1,
            path: "/".to_owned(),
            others: vec![other(50, "/fifty"), other(1, "/one")],
            two_tier_every: 0,
        };
        let asked = |path: &str| (0..100_000).filter(|id| load.path_of(*id) == path).count();
        assert!(asked("/fifty").abs_diff(5_000) < 300);
        assert!(asked("/one").abs_diff(100) < 40);
        assert_eq!(asked("/") + asked("/fifty") + asked("/one"), 100_000);
    }

    #[test]
    fn an_answer_that_reports_a_failed_backend_is_a_failure() {
        let body = br#"["backend http://backend:9898/echo response status code 500"]"#;
        assert!(backend_failure(body).is_some());
        assert_eq!(backend_failure(br#"["request 7"]"#), None);
    }
}
