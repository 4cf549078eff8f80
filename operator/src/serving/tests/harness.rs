//! A server on in-memory connections, with an apiserver that believes every token.

use std::{io, sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use futures::{FutureExt, future::BoxFuture};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use serde_json::{Value, json};
use sluice_crds::names;
use sluice_evidence::Identity;
use sluice_xds::Kind;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::serving::{AuthError, Authenticator, Hub, metrics::Metrics, serve};

/// Believes a token of the form `NAMESPACE/POD`.
struct Gullible;

impl Authenticator for Gullible {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        let identity = token.split_once('/').map(|(namespace, pod)| Identity {
            pod_uid: format!("uid-{pod}"),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            service_account: "default".to_owned(),
        });
        let refused = || AuthError::Refused("no such pod".to_owned());
        futures::future::ready(identity.ok_or_else(refused)).boxed()
    }
}

/// A server and its hub.
pub(super) struct Harness {
    pub hub: Arc<Hub>,
    pub shutdown: CancellationToken,
    connections: mpsc::UnboundedSender<io::Result<DuplexStream>>,
}

/// An ADS stream of a client.
pub(super) struct Ads {
    pub requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub responses: Streaming<DeltaDiscoveryResponse>,
}

impl Harness {
    pub fn new() -> Self {
        let hub = Hub::new("cluster.local", "serving-1", Metrics::default());
        let shutdown = CancellationToken::new();
        let (connections, incoming) = mpsc::unbounded_channel();
        let incoming = UnboundedReceiverStream::new(incoming);
        tokio::spawn(serve(
            incoming,
            hub.clone(),
            Arc::new(Gullible),
            shutdown.clone(),
        ));
        Self {
            hub,
            shutdown,
            connections,
        }
    }

    /// A connection of its own.
    pub fn channel(&self) -> Channel {
        let connections = self.connections.clone();
        Endpoint::from_static("http://serving").connect_with_connector_lazy(tower::service_fn(
            move |_: http::Uri| {
                let (near, far) = tokio::io::duplex(1 << 16);
                let _ = connections.send(Ok(far));
                async move { Ok::<_, io::Error>(TokioIo::new(near)) }
            },
        ))
    }

    /// Opens an ADS stream on a channel, as this pod.
    pub async fn ads_on(&self, channel: Channel, token: &str) -> Result<Ads, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        authorize(&mut request, token);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        Ok(Ads {
            requests,
            responses,
        })
    }

    /// The same on a connection of its own.
    pub async fn ads(&self, token: &str) -> Result<Ads, Status> {
        self.ads_on(self.channel(), token).await
    }

    /// A Service `reviews` with one ready pod and, if `weight` says so, a split.
    pub fn reviews(&self) {
        self.hub
            .change(|world| world.apply_service(&parse::<Service>(service("reviews"))));
        self.hub
            .change(|world| world.apply_pod(&parse::<Pod>(pod("reviews-1", "10.0.0.1"))));
        self.hub.change(|world| {
            world.apply_slice(&parse::<EndpointSlice>(slice(&[("reviews-1", "10.0.0.1")])))
        });
    }

    /// The Service `reviews` is seen by these.
    pub fn export(&self, to: &str) {
        let mut object = service("reviews");
        object["metadata"]["annotations"] = json!({names::EXPORT_TO: to});
        self.hub
            .change(|world| world.apply_service(&parse::<Service>(object)));
    }

    /// The split of `reviews` at this weight.
    pub fn split(&self, fence: i64, weight: i32) {
        self.hub.apply_split(&super::split(fence, weight));
    }
}

impl Ads {
    pub async fn subscribe(&self, kind: Kind, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            resource_names_subscribe: names.iter().map(|&name| name.to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, acknowledged.
    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.responses.message().await.unwrap().unwrap();
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
        response
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self) -> bool {
        let next = self.responses.message();
        tokio::time::timeout(Duration::from_secs(5), next)
            .await
            .is_err()
    }
}

pub(super) fn authorize<T>(request: &mut Request<T>, token: &str) {
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
}

pub(super) fn parse<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(super) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "bookinfo"},
        "spec": {
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

pub(super) fn pod(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "bookinfo", "labels": {"app": "reviews"}},
        "spec": {"containers": [], "serviceAccountName": "reviews"},
        "status": {
            "podIP": ip, "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"},
            ],
        },
    })
}

pub(super) fn slice(endpoints: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(pod, ip)| {
            json!({
                "addresses": [ip],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "bookinfo"},
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": "reviews-abc", "namespace": "bookinfo",
            "labels": {"kubernetes.io/service-name": "reviews"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}
