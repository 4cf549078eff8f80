//! An edge outside the mesh in front of a governed service: said, and no evidence. The edge is
//! nginx, without a sidecar.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sluice_crds::names;
use tokio::task::JoinHandle;

use crate::{
    app::{podinfo, rollout},
    mode_b::call,
    node::{say, wait_until},
    place::{Place, within},
};

const APP: &str = "backend";
/// Requests of the edge that would be far more than a step needs to be looked at.
const ENOUGH: i64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_outside_the_mesh_is_named_with_its_share_and_promotes_nothing() {
    within("sluice-bypassed", true, async |place| {
        place.deploy(APP, "v1", 1).await;
        // So short that what a step waits for later is evidence.
        let spec = json!({"workload": {"name": APP}, "analysis": {"hold": "1s"}});
        place.apply(&rollout(APP, spec)).await;
        place.apply(&caller("meshed")).await;
        place.apply(&configuration("edge")).await;
        place.apply(&nginx("edge")).await;

        let meshed = Calls::start(place, "meshed").await;
        let message = place.condition(APP, "Bypassed", "False").await;
        say(&format!("through the mesh alone: {message}"));

        let edge = Calls::start(place, "edge").await;
        let message = place.condition(APP, "Bypassed", "True").await;
        say(&message);
        // Both call ten times a second; the looks are a minute's.
        let share = message.split_once(" % of the requests").unwrap().0;
        let share: u32 = share.parse().unwrap();
        assert!((1..=80).contains(&share), "{message}");
        let source = format!("pod sluice-bypassed/{}", edge.pod);
        for part in [source.as_str(), "Inject a sidecar", "gateway"] {
            assert!(message.contains(part), "{message}");
        }

        // The meshed caller goes: what is left is traffic that nobody splits.
        meshed.end();
        let revision = place.release(APP, "v2", 1).await;
        let before = place.status(APP).await.evidence.unwrap_or_default();
        edge.make(ENOUGH).await;
        let status = place.status(APP).await;
        let evidence = status.evidence.unwrap_or_default();
        assert_eq!(evidence.candidate, before.candidate, "no evidence of it");
        assert_eq!(
            (status.phase.as_deref(), status.weight),
            (Some("Observing"), 10)
        );
        place.condition(APP, "Bypassed", "True").await;

        edge.end();
        place.condition(APP, "Bypassed", "False").await;
        place.promote(APP, &revision).await;
    })
    .await;
}

/// podinfo with a sidecar that calls the service behind.
fn caller(name: &str) -> Value {
    podinfo(name, 1, &[format!("--backend-url=http://{APP}:9898/echo")])
}

/// nginx that passes everything on to the service, as one does whose upstream is a Service's name.
fn configuration(name: &str) -> Value {
    let text = format!(
        "pid /tmp/nginx.pid;
         events {{}}
         http {{
           access_log off;
           client_body_temp_path /tmp/body;
           proxy_temp_path /tmp/proxy;
           fastcgi_temp_path /tmp/fastcgi;
           uwsgi_temp_path /tmp/uwsgi;
           scgi_temp_path /tmp/scgi;
           server {{
             listen 9898;
             location / {{ proxy_pass http://{APP}:9898; }}
           }}
         }}"
    );
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"nginx.conf": text},
    })
}

fn nginx(name: &str) -> Value {
    let mut edge = podinfo(name, 1, &[]);
    let template = &mut edge["spec"]["template"];
    template["metadata"]["labels"][names::INJECT] = json!("false");
    template["spec"]["containers"] = json!([{
        "name": "nginx",
        "image": "nginx:debian",
        "args": ["-c", "/etc/edge/nginx.conf", "-e", "stderr", "-g", "daemon off;"],
        "ports": [{"containerPort": 9898}],
        "readinessProbe": {"tcpSocket": {"port": 9898}, "periodSeconds": 1},
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/edge"}],
    }]);
    template["spec"]["volumes"] = json!([{"name": "configuration", "configMap": {"name": name}}]);
    edge
}

/// Calls through one pod, ten a second.
struct Calls {
    pod: String,
    answered: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Calls {
    async fn start(place: &Place, app: &str) -> Self {
        let pod = place.ready_pods(&format!("app={app}"), 1).await.remove(0);
        let answered = Arc::new(AtomicI64::new(0));
        let (client, namespace) = (place.client.clone(), place.namespace.clone());
        let (name, counted) = (pod.clone(), answered.clone());
        let task = tokio::spawn(async move {
            loop {
                if call(&client, &namespace, &name).await.is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            pod,
            answered,
            task,
        }
    }

    async fn make(&self, calls: i64) {
        let before = self.answered.load(Ordering::Relaxed);
        let what = format!("{calls} calls through {}", self.pod);
        let more = || self.answered.load(Ordering::Relaxed) - before;
        wait_until(&what, async || Ok(more() >= calls)).await;
    }

    fn end(self) {
        self.task.abort();
    }
}
