//! A control plane: the real server end of ADS, and an evidence server that keeps what it gets;
//! over TLS, with a token.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use envoy_types::pb::{
    envoy::config::core::v3::Node,
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
        },
    },
    google::protobuf::Any,
};
use futures::stream::BoxStream;
use sluice_evidence::v1::{
    ProxyReport, ServerNote,
    evidence_server::{Evidence, EvidenceServer},
};
use sluice_proxy::{
    control::{Control, Settings, Target},
    shared::Shared,
    worker::bind,
};
use sluice_xds::{Kind, Limits, Resource, Resources, ServerSession};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig},
};

const TOKEN: &str = "Bearer let-me-in";

#[derive(Clone, Default)]
struct Table(HashMap<(Kind, String), Arc<Resource>>);

impl Resources for Table {
    fn get(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        self.0.get(&(kind, name.to_owned())).cloned()
    }

    fn system_version(&self) -> String {
        String::new()
    }
}

/// A proxy's end of the talk.
pub struct Talk {
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Talk {
    /// As on SIGTERM.
    pub async fn leave(self) {
        self.leave.send_replace(true);
        self.task.await.unwrap();
    }

    /// As on SIGKILL.
    pub async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What is served, whoever serves it.
pub struct Plane {
    table: watch::Sender<Table>,
    reports: mpsc::Sender<ProxyReport>,
    received: mpsc::Receiver<ProxyReport>,
    rejections: mpsc::UnboundedSender<String>,
    rejected: mpsc::UnboundedReceiver<String>,
    sent: Arc<AtomicUsize>,
    muted: watch::Sender<bool>,
    files: TempDir,
    identity: Identity,
    address: std::net::SocketAddr,
    runtime: Option<Runtime>,
}

impl Plane {
    pub fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = TempDir::new().unwrap();
        std::fs::write(files.path().join("ca.crt"), certified.cert.pem()).unwrap();
        std::fs::write(files.path().join("token"), "let-me-in\n").unwrap();
        let identity =
            Identity::from_pem(certified.cert.pem(), certified.signing_key.serialize_pem());
        let (reports, received) = mpsc::channel(64);
        let (rejections, rejected) = mpsc::unbounded_channel();
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let mut plane = Self {
            table: watch::Sender::new(Table::default()),
            reports,
            received,
            rejections,
            rejected,
            sent: Arc::default(),
            muted: watch::Sender::new(false),
            files,
            identity,
            address: listener.local_addr().unwrap(),
            runtime: None,
        };
        plane.serve(listener);
        plane
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        let service = Service {
            table: self.table.clone(),
            reports: self.reports.clone(),
            rejections: self.rejections.clone(),
            sent: self.sent.clone(),
            muted: self.muted.clone(),
        };
        let tls = ServerTlsConfig::new().identity(self.identity.clone());
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(AggregatedDiscoveryServiceServer::new(service.clone()))
            .add_service(EvidenceServer::new(service));
        // A runtime of its own, which takes all its connections with it when it goes.
        let runtime = Runtime::new().unwrap();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let incoming = TcpListenerStream::new(listener);
        runtime.spawn(server.serve_with_incoming(incoming));
        self.runtime = Some(runtime);
    }

    /// Away, with all its connections.
    pub fn stop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Back at the same address.
    pub fn restart(&mut self) {
        self.serve(bind(self.address).unwrap());
    }

    pub fn target(&self) -> Target {
        Target {
            url: format!("https://localhost:{}", self.address.port()),
            token_file: self.file("token"),
            root_file: self.file("ca.crt"),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn set(&self, resources: Vec<(Kind, &str, Any)>) {
        self.table.send_modify(|table| {
            for (kind, name, body) in resources {
                let mut hasher = DefaultHasher::new();
                body.value.hash(&mut hasher);
                let version = hasher.finish().to_string();
                let resource = Arc::new(Resource { version, body });
                table.0.insert((kind, name.to_owned()), resource);
            }
        });
    }

    /// From now on it answers nothing about resources, or does again; evidence it always takes.
    pub fn mute(&self, muted: bool) {
        self.muted.send_replace(muted);
    }

    /// Nothing is there.
    pub fn clear(&self) {
        self.table.send_replace(Table::default());
    }

    /// The first report from now on that `wanted` likes.
    pub async fn report(&mut self, wanted: impl Fn(&ProxyReport) -> bool) -> ProxyReport {
        loop {
            let report = self.received.recv().await.unwrap();
            if wanted(&report) {
                return report;
            }
        }
    }

    /// How many resources were sent, ever.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Makes a proxy talk with it.
    pub fn connect(&self, shared: &Arc<Shared>, last_good: Option<PathBuf>) -> Talk {
        let (leave, leaving) = watch::channel(false);
        let settings = Settings {
            target: self.target(),
            node: Node {
                id: "sidecar~web.shop".to_owned(),
                ..Node::default()
            },
            always: Vec::new(),
            last_good,
        };
        let control = Control::new(shared.clone(), settings, leaving).unwrap();
        Talk {
            leave,
            task: tokio::spawn(control.run()),
        }
    }

    /// The next reason of a NACK, or of a stream that was refused.
    pub async fn rejection(&mut self) -> String {
        self.rejected.recv().await.unwrap()
    }
}

#[derive(Clone)]
struct Service {
    table: watch::Sender<Table>,
    reports: mpsc::Sender<ProxyReport>,
    rejections: mpsc::UnboundedSender<String>,
    sent: Arc<AtomicUsize>,
    muted: watch::Sender<bool>,
}

fn check<T>(service: &Service, request: &Request<T>) -> Result<(), Status> {
    let token = request.metadata().get("authorization");
    if token.is_some_and(|token| token == TOKEN) {
        return Ok(());
    }
    let _ = service.rejections.send("no token".to_owned());
    Err(Status::unauthenticated("no token"))
}

async fn talk(
    service: Service,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
) {
    let mut session = ServerSession::new(Limits::default());
    let mut changes = service.table.subscribe();
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                session.handle_request(request).unwrap();
                for rejection in session.rejections() {
                    let _ = service.rejections.send(rejection.reason);
                }
            }
            _ = changes.changed() => {}
        }
        let unmuted = |muted: &bool| !muted;
        let _ = service.muted.subscribe().wait_for(unmuted).await;
        session.changed_all();
        let table = changes.borrow_and_update().clone();
        while let Some(response) = session.poll(&table) {
            service
                .sent
                .fetch_add(response.resources.len(), Ordering::Relaxed);
            if responses.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        check(self, &request)?;
        let (responses, stream) = mpsc::channel(16);
        tokio::spawn(talk(self.clone(), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Evidence for Service {
    type ReportStream = ReceiverStream<Result<ServerNote, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<ProxyReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        check(self, &request)?;
        let (notes, stream) = mpsc::channel(16);
        let reports = self.reports.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            let _ = notes.send(Ok(ServerNote { interval_ms: 250 })).await;
            while let Ok(Some(report)) = incoming.message().await {
                let _ = reports.send(report).await;
                let _ = notes.send(Ok(ServerNote { interval_ms: 250 })).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
