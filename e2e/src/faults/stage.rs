//! Everything that a rollout needs, on loopback: the chart's objects in a real apiserver, the
//! operator's roles as processes, and in place of nodes a mock kubelet.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, TypeMeta},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    clusters::{self, Cluster},
    kubelet,
    layer::Layer,
    objects,
    operator::{Process, Role},
};
use crate::{
    helm,
    world::{self, SYSTEM},
};

/// Name of the one serving replica.
pub const SERVING: &str = "sluice-serving-0";

/// The longest that anything is waited for in one go.
const PATIENCE: Duration = Duration::from_secs(90);

/// A controller behind a layer of its own.
pub struct Controller {
    /// Its process.
    pub process: Process,
    /// What it takes for the apiserver.
    pub layer: Layer,
    /// Its POD_IP.
    pub ip: String,
}

impl Controller {
    /// From now on it is started anew as soon as it has ended, as a kubelet would.
    pub fn supervise(&self, tasks: &mut JoinSet<()>) {
        let process = self.process.clone();
        tasks.spawn(async move {
            loop {
                sleep(Duration::from_millis(10)).await;
                // It was started before by the same means.
                if !process.runs() && process.again().is_err() {
                    return;
                }
            }
        });
    }
}

/// A cluster with Sluice in it.
pub struct Stage {
    /// The administrator's client, which no fault touches.
    pub admin: Client,
    /// The serving replica.
    pub serving: Process,
    /// Port of xDS and evidence.
    pub xds_port: u16,
    /// The mesh's root certificate, PEM.
    pub root: String,
    anonymous: Client,
    server: Server,
    folder: PathBuf,
    tasks: JoinSet<()>,
    /// Given back last: whoever plays there next finds none of the above.
    cluster: Option<Cluster>,
}

/// Where the apiserver is, as a kubeconfig says it.
#[derive(Clone)]
struct Server {
    url: String,
    authority: Value,
}

impl Stage {
    /// Waits for a free cluster, and starts everything there.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn on_a_free_cluster() -> Result<Self> {
        let cluster = clusters::lend().await;
        let mut stage = Self::start(cluster.kubeconfig()).await?;
        stage.cluster = Some(cluster);
        Ok(stage)
    }

    /// Installs the chart's objects, and starts the serving role and the kubelet.
    ///
    /// # Errors
    /// What is missing, with how to get it.
    pub async fn start(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let server = Server::of(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let mut anonymous = config.clone();
        anonymous.auth_info = AuthInfo::default();
        let anonymous = Client::try_from(anonymous)?;
        let admin = Client::try_from(config)?;
        let folder = folder()?;
        let [xds_port, webhook_port, telemetry_port] = free_ports()?;
        install(&admin, webhook_port).await?;
        let mut tasks = JoinSet::new();
        kubelet::start(admin.clone(), &mut tasks);
        // They last for longer than any test: nobody keeps them.
        drop(certificates(&admin, &server, &folder).await?);
        announce_serving(&admin, SERVING).await?;
        let arguments = [
            "serving".to_owned(),
            format!("--xds-port={xds_port}"),
            format!("--webhook-port={webhook_port}"),
        ];
        let serving = Process::start(Role {
            arguments: arguments.into(),
            pod: SERVING.to_owned(),
            ip: "127.0.0.1".to_owned(),
            kubeconfig: server.kubeconfig(&admin, "serving", &folder, None).await?,
            telemetry_port,
            log: folder.join("serving.log"),
        })?;
        ready(telemetry_port)
            .await
            .context("the serving role is not ready")?;
        let roots = Api::<ConfigMap>::namespaced(admin.clone(), "default");
        let root = until("the root certificate", async || {
            let found = roots.get_opt("sluice-root-ca").await?;
            Ok(found.and_then(|map| map.data?.into_values().next()))
        });
        Ok(Self {
            root: root.await?,
            admin,
            serving,
            xds_port,
            anonymous,
            server,
            folder,
            tasks,
            cluster: None,
        })
    }

    /// Starts a controller replica of this name behind a layer.
    ///
    /// # Errors
    /// The program is not built.
    pub async fn controller(&self, pod: &str) -> Result<Controller> {
        let layer = Layer::start(self.anonymous.clone()).await?;
        let (process, ip) = self.start_controller(pod, Some(&layer)).await?;
        layer.may_kill(&process);
        Ok(Controller { process, layer, ip })
    }

    /// Starts a controller replica of this name with nothing between it and the apiserver, and
    /// waits until it leads. Also its address.
    ///
    /// # Errors
    /// The program is not built, or another leads.
    pub async fn leader(&self, pod: &str) -> Result<(Process, String)> {
        let started = self.start_controller(pod, None).await?;
        until("the controller to lead", async || {
            Ok((world::leader(&self.admin).await? == pod).then_some(()))
        })
        .await?;
        Ok(started)
    }

    async fn start_controller(
        &self,
        pod: &str,
        layer: Option<&Layer>,
    ) -> Result<(Process, String)> {
        let ip = loopback_address();
        let kubeconfig = self.server.kubeconfig(
            &self.admin,
            "controller",
            &self.folder,
            layer.map(|layer| (pod, layer)),
        );
        let [telemetry_port, _, _] = free_ports()?;
        let process = Process::start(Role {
            arguments: vec!["controller".to_owned()],
            pod: pod.to_owned(),
            ip: ip.clone(),
            kubeconfig: kubeconfig.await?,
            telemetry_port,
            log: self.folder.join(format!("{pod}.log")),
        })?;
        Ok((process, ip))
    }

    /// Starts the ca role, and waits until all certificates are in place.
    ///
    /// # Errors
    /// They do not come.
    pub async fn ca(&self) -> Result<Process> {
        certificates(&self.admin, &self.server, &self.folder).await
    }

    /// The token of a pod of the account `default`, as it is projected for its proxy.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn token_of_pod(&self, namespace: &str, pod: &DynamicObject) -> Result<String> {
        let name = pod.name_any();
        let spec = json!({
            "audiences": ["sluice.dev"],
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod.uid()},
        });
        token(&self.admin, namespace, "default", &spec).await
    }

    /// Where the logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What runs as long as the stage is there.
    pub fn tasks(&mut self) -> &mut JoinSet<()> {
        &mut self.tasks
    }
}

impl Server {
    fn of(kubeconfig: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(kubeconfig)?;
        let config: Value = serde_saphyr::from_str(&text)?;
        let cluster = &config["clusters"][0]["cluster"];
        let url = cluster["server"]
            .as_str()
            .context("the kubeconfig names no server")?;
        Ok(Self {
            url: url.to_owned(),
            authority: cluster["certificate-authority"].clone(),
        })
    }

    /// A kubeconfig of a role's account, to the apiserver or to a layer before it.
    async fn kubeconfig(
        &self,
        admin: &Client,
        role: &str,
        folder: &Path,
        layer: Option<(&str, &Layer)>,
    ) -> Result<PathBuf> {
        let token = token(admin, SYSTEM, &format!("sluice-{role}"), &json!({})).await?;
        let cluster = match layer {
            Some((_, layer)) => json!({"server": layer.url()}),
            None => json!({"server": self.url, "certificate-authority": self.authority}),
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        let name = layer.map_or(role, |(pod, _)| pod);
        let path = folder.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }
}

/// Applies the chart's objects but its workloads, which run as processes here. The webhooks'
/// Service leads to loopback, and so does its port.
async fn install(admin: &Client, webhook_port: u16) -> Result<()> {
    let rendered = helm::render(&[]).map_err(anyhow::Error::msg)?;
    apply(admin, &objects::namespace(SYSTEM)).await?;
    let mut documents = helm::parse(&rendered);
    let is_crd = |document: &Value| document["kind"] == "CustomResourceDefinition";
    documents.sort_by_key(|document| !is_crd(document));
    for mut document in documents {
        match document["kind"].as_str().unwrap_or_default() {
            "Deployment" | "PodDisruptionBudget" | "NetworkPolicy" | "Namespace" => continue,
            "Service" => {
                document["spec"] = json!({
                    "type": "ExternalName", "externalName": "localhost",
                    "ports": [{"name": "https-webhooks", "port": webhook_port}],
                });
            }
            "MutatingWebhookConfiguration" => {
                for webhook in document["webhooks"].as_array_mut().into_iter().flatten() {
                    webhook["clientConfig"]["service"]["port"] = json!(webhook_port);
                }
            }
            _ => {}
        }
        apply(admin, &document)
            .await
            .with_context(|| document["metadata"]["name"].to_string())?;
    }
    Ok(())
}

/// Starts the ca role, and waits until the certificates are there.
async fn certificates(admin: &Client, server: &Server, folder: &Path) -> Result<Process> {
    let [telemetry_port, _, _] = free_ports()?;
    let ca = Process::start(Role {
        arguments: vec!["ca".to_owned()],
        pod: "sluice-ca-0".to_owned(),
        ip: "127.0.0.1".to_owned(),
        kubeconfig: server.kubeconfig(admin, "ca", folder, None).await?,
        telemetry_port,
        log: folder.join("ca.log"),
    })?;
    ready(telemetry_port)
        .await
        .with_context(|| format!("the ca role is not ready:\n{}", ca.log()))?;
    Ok(ca)
}

/// A serving replica as the controller sees it: a pod that is Ready.
///
/// # Errors
/// It does not become so.
pub async fn announce_serving(admin: &Client, name: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": SYSTEM,
            "labels": {"app.kubernetes.io/component": "serving"},
        },
        "spec": {"containers": [{"name": "operator", "image": "none"}]},
    });
    until("an account for pods of our namespace", async || {
        Ok(apply(admin, &pod).await.ok())
    })
    .await?;
    let pods = Api::<Pod>::namespaced(admin.clone(), SYSTEM);
    until("the serving pod to be ready", async || {
        let conditions = pods
            .get(name)
            .await?
            .status
            .and_then(|status| status.conditions);
        let mut conditions = conditions.into_iter().flatten();
        Ok(conditions.find(|c| c.type_ == "Ready" && c.status == "True"))
    })
    .await?;
    Ok(())
}

/// A token of a service account, as the apiserver gives it.
///
/// # Errors
/// There is no such account.
async fn token(admin: &Client, namespace: &str, account: &str, spec: &Value) -> Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
    });
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())?;
    let answer: Value = admin.request(request).await?;
    let token = answer["status"]["token"].as_str();
    Ok(token
        .context("the TokenRequest came back without a token")?
        .to_owned())
}

/// Applies an object as it stands in git.
///
/// # Errors
/// The apiserver's sentence.
pub async fn apply(client: &Client, object: &Value) -> kube::Result<DynamicObject> {
    let params = PatchParams::apply("git").force();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    place_of(client, object)?
        .patch(name, &params, &Patch::Apply(object))
        .await
}

/// Makes an object that is not there yet.
///
/// # Errors
/// The apiserver's sentence.
pub async fn create(client: &Client, object: &Value) -> kube::Result<DynamicObject> {
    let api = place_of(client, object)?;
    let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await
}

/// Makes a namespace, and waits until pods can be made in it.
///
/// # Errors
/// Its account does not come.
pub async fn new_namespace(admin: &Client, name: &str) -> Result<()> {
    apply(admin, &objects::namespace(name)).await?;
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), name);
    until("the namespace's account", async || {
        Ok(accounts.get_opt("default").await?)
    })
    .await?;
    Ok(())
}

/// Where objects of its kind are, in its namespace.
fn place_of(client: &Client, object: &Value) -> kube::Result<Api<DynamicObject>> {
    let types: TypeMeta =
        serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let resource = GroupVersionKind::try_from(&types).map(|gvk| ApiResource::from_gvk(&gvk));
    let resource = resource.map_err(|_| kube::Error::Service("no apiVersion or kind".into()))?;
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// Asks again and again, until there is an answer.
///
/// # Errors
/// There was none for long, or asking failed all the while.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let asked = ask().await;
        match asked {
            Ok(Some(answer)) => return Ok(answer),
            _ if began.elapsed() < PATIENCE => sleep(Duration::from_millis(50)).await,
            Ok(None) => bail!("waited {PATIENCE:?} for {what}"),
            Err(error) => return Err(error.context(format!("waited {PATIENCE:?} for {what}"))),
        }
    }
}

/// Waits until a role says that it is ready.
async fn ready(telemetry_port: u16) -> Result<()> {
    let address = ("127.0.0.1", telemetry_port);
    until("/readyz", async || {
        let answer = timeout(Duration::from_secs(2), get(address, "/readyz")).await??;
        Ok(answer.starts_with("HTTP/1.1 200").then_some(()))
    })
    .await
}

/// What a role tells on its metrics port.
///
/// # Errors
/// It does not answer.
pub async fn metrics(of: &Process) -> Result<String> {
    get(("127.0.0.1", of.telemetry_port()), "/metrics").await
}

async fn get(address: (&str, u16), path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn free_ports() -> Result<[u16; 3]> {
    // All are held at once, so that no two are the same.
    let held = [(); 3].map(|()| TcpListener::bind("[::]:0"));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// One of the many addresses of loopback, another one each time and for each process.
fn loopback_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "127.{}.{}.{}",
        64 + process / 256 % 128,
        process % 256,
        next % 250 + 1
    )
}

/// A folder of its own for logs and kubeconfigs.
fn folder() -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let folder = target.join(format!("faults/{}-{next}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
