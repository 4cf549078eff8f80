//! A mock of the metrics server, which a HorizontalPodAutoscaler asks what pods use. It tells no
//! processor time, which would depend on the machine: it tells the requests that each pod answers,
//! as its sidecar counts them, and calls each request a second so much of a processor.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::{
    figures::Figures,
    node::{self, wait_until},
    place::{GIT, Place, pods},
};

/// What a request a second is called.
const MILLICORES: f64 = 4.0;
/// Over how long requests are counted.
const WINDOW: Duration = Duration::from_secs(5);
const NAME: &str = "v1beta1.metrics.k8s.io";
const PATH: &str = "/apis/metrics.k8s.io/v1beta1";

/// Metrics as the API gives them, of all pods of one application.
type Told = Arc<Mutex<Value>>;

/// It ends with this value; the APIService must be removed before.
pub struct MetricsServer {
    _tasks: JoinSet<()>,
}

impl MetricsServer {
    /// Serves the metrics of the pods of one application, as all there are.
    pub async fn start(place: &Place, app: &str) -> Self {
        let listener = TcpListener::bind((host(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Told::default();
        let mut tasks = JoinSet::new();
        let (client, namespace) = (place.client.clone(), place.namespace.clone());
        tasks.spawn(measure(
            client,
            namespace,
            format!("app={app}"),
            told.clone(),
        ));
        tasks.spawn(serve(listener, acceptor(), told));
        announce(place, address).await;
        Self { _tasks: tasks }
    }
}

/// Our end of the link to the node.
fn host() -> IpAddr {
    match node::gateway().ip() {
        IpAddr::V4(node) => {
            let [a, b, c, _] = node.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(node) => panic!("the node has an address that xtask does not give: {node}"),
    }
}

fn acceptor() -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["metrics".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// The apiserver asks us from now on.
async fn announce(place: &Place, address: SocketAddr) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics-server-mock"},
        "spec": {"type": "ExternalName", "externalName": address.ip().to_string(),
            "ports": [{"port": address.port()}]},
    });
    place.apply(&service).await;
    let api_service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": NAME},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
            "service": {"name": "metrics-server-mock", "namespace": place.namespace, "port": address.port()},
        },
    });
    let params = PatchParams::apply(GIT).force();
    let api = api_services(&place.client);
    api.patch(NAME, &params, &Patch::Apply(api_service))
        .await
        .unwrap();
    wait_until(
        "the apiserver to reach the mock of the metrics server",
        async || {
            let seen = api.get(NAME).await?;
            let conditions = seen.data["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            Ok(conditions.any(|c| c["type"] == "Available" && c["status"] == "True"))
        },
    )
    .await;
}

/// An API that nobody serves keeps every namespace from going.
pub async fn remove(client: &Client) {
    let removed = api_services(client)
        .delete(NAME, &DeleteParams::default())
        .await;
    if let Err(error) = removed {
        assert!(
            matches!(&error, kube::Error::Api(status) if status.is_not_found()),
            "removing APIService {NAME}: {error}"
        );
    }
}

fn api_services(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService");
    Api::all_with(client.clone(), &ApiResource::from_gvk(&kind))
}

/// Asks every sidecar now and then, and tells what came since.
async fn measure(client: Client, namespace: String, selector: String, told: Told) {
    let mut before = HashMap::<String, (Instant, f64)>::new();
    let mut ticks = tokio::time::interval(WINDOW);
    loop {
        ticks.tick().await;
        let mut items = Vec::new();
        for pod in pods(&client, &namespace, &selector)
            .await
            .unwrap_or_default()
        {
            let name = pod.name_any();
            // A pod that does not run has no metrics.
            let Ok(figures) = Figures::of(&client, &namespace, &name, 15020).await else {
                continue;
            };
            let count = figures.sum("istio_requests_total", &[("reporter", "destination")]);
            let now = Instant::now();
            let Some((then, earlier)) = before.insert(name.clone(), (now, count)) else {
                continue;
            };
            let rate = (count - earlier) / (now - then).as_secs_f64();
            items.push(json!({
                "metadata": {"name": name, "namespace": namespace, "labels": pod.labels()},
                "timestamp": Timestamp::now().to_string(),
                "window": format!("{}s", WINDOW.as_secs()),
                "containers": [{"name": "podinfo",
                    "usage": {"cpu": format!("{}m", (rate * MILLICORES).round()), "memory": "1Mi"}}],
            }));
        }
        *told.lock() = json!({
            "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {}, "items": items,
        });
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, told: Told) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, told) = (acceptor.clone(), told.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request| {
                let answer = answer(&request, &told);
                async move { Ok::<_, Infallible>(answer) }
            });
            // Whoever asked has gone away.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, told: &Told) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let body = if path == PATH {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
            "resources": [{"name": "pods", "singularName": "", "namespaced": true,
                "kind": "PodMetrics", "verbs": ["get", "list"]}]})
    } else if path.starts_with(PATH) && path.ends_with("/pods") {
        told.lock().clone()
    } else {
        Value::Null
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    if body.is_null() {
        *response.status_mut() = http::StatusCode::NOT_FOUND;
    }
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
