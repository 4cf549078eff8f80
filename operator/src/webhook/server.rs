//! The HTTPS server behind the webhooks.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt;
use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body, Bytes},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use sluice_inject::Settings;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{caches::Caches, gate, hold, inject, review::answer};
use crate::{telemetry::Telemetry, tls::Acceptor};

/// Largest review that is read; the apiserver's own limit for an object is 3 MiB in JSON.
const MAX_BODY: usize = 3 << 20;
/// Most reviews at one time: with the largest bodies 192 MiB, in practice some hundred KiB.
const MAX_REVIEWS: usize = 64;
/// Most connections at one time; the apiserver keeps a few.
const MAX_CONNECTIONS: usize = 256;
/// The longest for one review, body and queue included; the webhooks' timeoutSeconds is 5.
const REVIEW: Duration = Duration::from_secs(4);
/// How often a silent connection is asked whether somebody is still there; one that is not
/// gives its place back.
const PING: Duration = Duration::from_secs(20);
/// The longest that open connections are waited for at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What the webhooks run with.
pub struct Webhooks {
    caches: Caches,
    defaults: Settings,
    controller_account: String,
    reviews: Semaphore,
    metrics: Metrics,
}

#[derive(Clone)]
struct Metrics {
    reviews: Family<ReviewLabels, Counter>,
    seconds: Family<WebhookLabel, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReviewLabels {
    webhook: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookLabel {
    webhook: &'static str,
}

impl Webhooks {
    /// `defaults` is what sidecars are made of where the Mesh says nothing; its system
    /// namespace is where the controller's account lives.
    #[must_use]
    pub fn new(caches: Caches, defaults: Settings, telemetry: &Telemetry) -> Arc<Self> {
        let metrics = Metrics {
            reviews: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0])
            }),
        };
        telemetry.register(|registry| {
            registry.register(
                "sluice_webhook_reviews",
                "Reviews answered, by what was done",
                metrics.reviews.clone(),
            );
            registry.register(
                "sluice_webhook_seconds",
                "Time from the whole request to the answer",
                metrics.seconds.clone(),
            );
        });
        let controller_account = format!(
            "system:serviceaccount:{}:sluice-controller",
            defaults.system_namespace
        );
        Arc::new(Self {
            caches,
            defaults,
            controller_account,
            reviews: Semaphore::new(MAX_REVIEWS),
            metrics,
        })
    }

    /// The answer to one request: status, content type, body.
    async fn handle<B>(&self, request: http::Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let webhook = match request.uri().path() {
            "/hold" => "hold",
            "/gate" => "gate",
            "/inject" => "inject",
            _ => return plain(StatusCode::NOT_FOUND, "there is /hold, /gate and /inject\n"),
        };
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "post an AdmissionReview\n");
        }
        let Ok(_permit) = self.reviews.acquire().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        };
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "at most 3 MiB are read\n");
            }
            Err(error) => return plain(StatusCode::BAD_REQUEST, &format!("{error}\n")),
        };
        let started = Instant::now();
        let answered = match webhook {
            "hold" => answer(&body, |request| {
                hold::review(request, &self.caches, &self.controller_account)
            }),
            "gate" => answer(&body, |request| Ok(gate::review(request, &self.caches))),
            _ => answer(&body, |request| {
                inject::review(request, &self.caches, &self.defaults)
            }),
        };
        let seconds = started.elapsed().as_secs_f64();
        self.metrics
            .seconds
            .get_or_create(&WebhookLabel { webhook })
            .observe(seconds);
        let (response, action) = match answered {
            Ok((body, action)) => (json(body), action),
            Err(why) => {
                warn!(webhook, why, "a review could not be answered");
                (
                    plain(StatusCode::BAD_REQUEST, &format!("{why}\n")),
                    "malformed",
                )
            }
        };
        self.metrics
            .reviews
            .get_or_create(&ReviewLabels { webhook, action })
            .inc();
        response
    }
}

/// Serves until `shutdown`, then lets what runs end. The caches must be complete.
pub async fn serve(acceptor: Acceptor, webhooks: Arc<Webhooks>, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut incoming = std::pin::pin!(acceptor.incoming());
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            Some(Ok(stream)) = incoming.next() => stream,
            () = shutdown.cancelled() => break,
            else => break,
        };
        let webhooks = webhooks.clone();
        let service = service_fn(move |request| {
            let webhooks = webhooks.clone();
            async move {
                let answer = tokio::time::timeout(REVIEW, webhooks.handle(request)).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|_| {
                    plain(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "took too long; try again\n",
                    )
                }))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(REVIEW);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(PING))
            .max_concurrent_streams(100);
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                debug!(%error, "webhook connection ended");
            }
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    respond(
        status,
        "text/plain; charset=utf-8",
        text.as_bytes().to_vec(),
    )
}

fn json(body: Vec<u8>) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", body)
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
