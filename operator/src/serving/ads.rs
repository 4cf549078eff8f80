//! The ADS service: carries messages between a stream and its `ServerSession`.

use std::{pin::Pin, sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::AggregatedDiscoveryService,
};
use futures::Stream;
use sluice_evidence::Identity;
use sluice_xds::{Kind, Limits, ProtocolError, ServerSession};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    auth::{Authenticator, prove},
    hub::{Hub, SessionId},
    mailbox::{Content, Mailbox},
    metrics::TypeLabel,
};

/// Changes that come closer together than this are one push; one that comes alone does not wait.
const BURST: Duration = Duration::from_millis(5);
/// The longest that a client may leave its stream unread.
const UNREAD: Duration = Duration::from_secs(30);
/// Responses between the session and the connection.
const QUEUE: usize = 4;

/// The ADS service.
pub(super) struct Ads {
    pub(super) hub: Arc<Hub>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) shutdown: CancellationToken,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "state-of-the-world xDS is not served: use delta xDS (api_type DELTA_GRPC)",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let proved = prove(&*self.authenticator, request.metadata()).await;
        let identity = proved.inspect_err(|_| {
            self.hub.metrics.unauthenticated.inc();
        })?;
        let (responses, receiver) = mpsc::channel(QUEUE);
        let stream = AdsStream::open(self.hub.clone(), identity, responses);
        tokio::spawn(stream.run(request.into_inner(), self.shutdown.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream.
struct AdsStream {
    hub: Arc<Hub>,
    identity: Identity,
    id: SessionId,
    mailbox: Arc<Mailbox>,
    session: ServerSession,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl AdsStream {
    fn open(
        hub: Arc<Hub>,
        identity: Identity,
        responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Self {
        let (id, mailbox) = hub.open();
        let session = ServerSession::new(Limits::default());
        Self {
            hub,
            identity,
            id,
            mailbox,
            session,
            responses,
        }
    }

    async fn run(
        mut self,
        requests: Streaming<DeltaDiscoveryRequest>,
        shutdown: CancellationToken,
    ) {
        let (namespace, pod) = (self.identity.namespace.clone(), self.identity.pod.clone());
        debug!(namespace, pod, "ADS stream opened");
        let ended = tokio::select! {
            ended = self.serve(requests) => ended,
            () = shutdown.cancelled() => {
                Err(Status::unavailable("this replica is stopping: connect again"))
            }
        };
        match ended {
            Ok(()) => debug!(namespace, pod, "ADS stream closed by the proxy"),
            Err(status) => {
                info!(
                    namespace,
                    pod,
                    reason = status.message(),
                    "ADS stream ended"
                );
                let _ = self.responses.try_send(Err(status));
            }
        }
    }

    async fn serve(
        &mut self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
    ) -> Result<(), Status> {
        let mailbox = self.mailbox.clone();
        // When the next batch of changes may be looked at; none: nothing has come.
        let mut due: Option<Instant> = None;
        let mut pushed = Instant::now();
        loop {
            tokio::select! {
                request = requests.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    self.take_in(request).map_err(|error| {
                        Status::invalid_argument(error.to_string())
                    })?;
                }
                () = mailbox.filled(), if due.is_none() => {
                    due = Some(Instant::now().max(pushed + BURST));
                    continue;
                }
                () = sleep_until(due) => {
                    due = None;
                    pushed = Instant::now();
                    self.look();
                }
            }
            self.push().await?;
        }
    }

    fn take_in(&mut self, request: DeltaDiscoveryRequest) -> Result<(), ProtocolError> {
        let kind = Kind::from_type_url(&request.type_url)?;
        if let Some(error) = &request.error_detail {
            self.hub
                .metrics
                .refused
                .get_or_create(&TypeLabel::of(&request.type_url))
                .inc();
            warn!(
                namespace = self.identity.namespace,
                pod = self.identity.pod,
                %kind,
                reason = error.message.chars().take(512).collect::<String>(),
                "a proxy refuses a resource and keeps the former one"
            );
        }
        let add = request.resource_names_subscribe.clone();
        let remove = request.resource_names_unsubscribe.clone();
        self.session.handle_request(request)?;
        // Only after the session has checked their number.
        self.hub.subscribe(self.id, kind, &add, &remove);
        let asked = !add.is_empty() || !remove.is_empty();
        if asked && matches!(kind, Kind::Listener | Kind::Route) {
            self.update_view();
        }
        Ok(())
    }

    /// Looks at what changed.
    fn look(&mut self) {
        match self.mailbox.take() {
            Content::Everything => {
                self.session.changed_all();
                self.update_view();
            }
            Content::Batches(batches) => {
                let names = || batches.iter().flat_map(|batch| batch.iter());
                self.session.changed(names());
                // A Service that came, went, or is seen by others gives names another meaning.
                if names().any(|name| name.kind == Kind::Listener) {
                    self.update_view();
                }
            }
        }
    }

    fn update_view(&self) {
        self.hub
            .view(self.id, &self.identity, self.session.subscriptions());
    }

    async fn push(&mut self) -> Result<(), Status> {
        loop {
            let response = {
                let world = self.hub.world.read();
                self.session.poll(&world.sight(&self.identity.namespace))
            };
            let Some(response) = response else {
                return Ok(());
            };
            let told = response.resources.len() + response.removed_resources.len();
            let label = TypeLabel::of(&response.type_url);
            self.hub
                .metrics
                .sent
                .get_or_create(&label)
                .inc_by(told as u64);
            match tokio::time::timeout(UNREAD, self.responses.send(Ok(response))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::cancelled("the proxy went away")),
                Err(_) => return Err(Status::deadline_exceeded("the stream is not being read")),
            }
        }
    }
}

impl Drop for AdsStream {
    fn drop(&mut self) {
        self.hub.close(
            self.id,
            &self.identity.pod_uid,
            self.session.subscriptions(),
        );
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
