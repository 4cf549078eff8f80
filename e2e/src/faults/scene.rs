//! A namespace with a governed Deployment `web`, its Service, and two callers with proxies.

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_crds::{MeshRollout, MeshRolloutStatus, TrafficSplit};
use tokio::task::JoinSet;

use super::{
    objects,
    proxy::{Access, Proxy, Traffic},
    stage::{Stage, apply, new_namespace, until},
};

/// Name of the Deployment, its Service and its MeshRollout.
pub const APP: &str = "web";
/// Pods of the Deployment.
pub const REPLICAS: i32 = 2;
/// Proxies that call it.
const CALLERS: usize = 2;
/// Requests of a proxy in 0.1 s.
const REQUESTS: u64 = 300;

/// The scene of one rollout.
pub struct Scene {
    /// Its namespace.
    pub namespace: String,
    /// The administrator's client, which no fault touches.
    pub admin: Client,
    /// ClusterIP of the Service.
    pub vip: IpAddr,
    /// The callers' proxies.
    pub proxies: Vec<Proxy>,
    /// Their tokens.
    pub tokens: Vec<String>,
    _tasks: JoinSet<()>,
}

impl Scene {
    /// What each proxy's clients ask for, and get, where all is well.
    pub const GOOD: Traffic = Traffic {
        requests: REQUESTS,
        candidate_errors: 0,
        bears: 0,
        stable_errors: 0,
    };

    /// Makes the namespace, and waits until v1 serves; there is no MeshRollout yet.
    ///
    /// # Errors
    /// The apiserver's sentence, or what did not come about.
    pub async fn new(stage: &Stage, namespace: &str) -> Result<Self> {
        let admin = stage.admin.clone();
        let mut scene = Self {
            namespace: namespace.to_owned(),
            admin: admin.clone(),
            vip: IpAddr::from([0, 0, 0, 0]),
            proxies: Vec::new(),
            tokens: Vec::new(),
            _tasks: JoinSet::new(),
        };
        new_namespace(&admin, namespace).await?;
        let service = scene.apply(&objects::service(APP)).await?;
        scene.deploy("v1").await?;
        scene.vip = service.data["spec"]["clusterIP"]
            .as_str()
            .context("no ClusterIP")?
            .parse()?;
        for number in 0..CALLERS {
            let name = format!("caller-{number}");
            let pod = scene.apply(&objects::caller(&name)).await?;
            let token = stage.token_of_pod(namespace, &pod).await?;
            scene.tokens.push(token.clone());
            let access = Access {
                port: stage.xds_port,
                root: stage.root.clone(),
                token,
                service: (namespace.to_owned(), APP.to_owned(), scene.vip, 80),
            };
            let proxy = Proxy::start(access, &mut scene._tasks);
            proxy.serve(Self::GOOD);
            scene.proxies.push(proxy);
        }
        until("v1 to serve", async || {
            let status = scene.deployment().await?.status.unwrap_or_default();
            Ok((status.available_replicas == Some(REPLICAS)).then_some(()))
        })
        .await?;
        Ok(scene)
    }

    /// All objects of a kind in the scene.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Applies what git says.
    ///
    /// # Errors
    /// The apiserver's sentence.
    pub async fn apply(&self, object: &Value) -> kube::Result<kube::api::DynamicObject> {
        let object = objects::within(&self.namespace, object.clone());
        apply(&self.admin, &object).await
    }

    /// Git brings this version of the Deployment.
    ///
    /// # Errors
    /// The apiserver does not take it, for long: the hold webhook may be on its way.
    pub async fn deploy(&self, version: &str) -> Result<()> {
        self.bring(&in_git(version)).await
    }

    /// Git brings this Deployment.
    ///
    /// # Errors
    /// The apiserver does not take it, for long: the hold webhook may be on its way.
    pub async fn bring(&self, deployment: &Value) -> Result<()> {
        until("git's Deployment to be taken", async || {
            self.apply(deployment).await?;
            Ok(Some(()))
        })
        .await
    }

    /// Git brings the MeshRollout.
    ///
    /// # Errors
    /// The apiserver's sentence.
    pub async fn govern(&self, steps: Value, on_failure: Value) -> Result<()> {
        let spec = json!({
            "strategy": {"steps": steps},
            "analysis": {"hold": "300ms"},
            "onFailure": on_failure,
        });
        let rollout = objects::rollout(APP, spec);
        self.apply(&rollout).await?;
        Ok(())
    }

    /// From now on the candidate answers so many of 100 requests with an error.
    pub fn candidate_fails(&self, errors: u64) {
        self.serve(Traffic {
            candidate_errors: errors,
            ..Self::GOOD
        });
    }

    /// From now on this is what each proxy's clients ask for, and get.
    pub fn serve(&self, traffic: Traffic) {
        self.proxies.iter().for_each(|proxy| proxy.serve(traffic));
    }

    /// The Deployment.
    ///
    /// # Errors
    /// There is none.
    pub async fn deployment(&self) -> Result<Deployment> {
        Ok(self.api::<Deployment>().get(APP).await?)
    }

    /// The MeshRollout's status; an empty one where there is none yet.
    ///
    /// # Errors
    /// There is no MeshRollout.
    pub async fn status(&self) -> Result<MeshRolloutStatus> {
        Ok(self
            .api::<MeshRollout>()
            .get(APP)
            .await?
            .status
            .unwrap_or_default())
    }

    /// The TrafficSplit.
    ///
    /// # Errors
    /// There is none.
    pub async fn split(&self) -> Result<TrafficSplit> {
        Ok(self.api::<TrafficSplit>().get(APP).await?)
    }

    /// The Deployment's ReplicaSets and ours.
    ///
    /// # Errors
    /// The apiserver does not answer.
    pub async fn sets(&self) -> Result<Vec<ReplicaSet>> {
        Ok(self
            .api::<ReplicaSet>()
            .list(&ListParams::default())
            .await?
            .items)
    }

    /// The Deployment's pods, candidates among them.
    ///
    /// # Errors
    /// The apiserver does not answer.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let of_app = ListParams::default().labels(&format!("app={APP}"));
        Ok(self.api::<Pod>().list(&of_app).await?.items)
    }

    /// Waits until the status is such.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn until_status(
        &self,
        what: &str,
        is_such: impl Fn(&MeshRolloutStatus) -> bool,
    ) -> Result<MeshRolloutStatus> {
        let mut last = MeshRolloutStatus::default();
        let waited = until(what, async || {
            last = self.status().await?;
            Ok(is_such(&last).then(|| last.clone()))
        });
        let waited = waited.await;
        waited.with_context(|| format!("the last status: {}", brief(&last)))
    }

    /// Waits until nothing is tried, every proxy has applied that, and new revisions are held.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn settled(&self) -> Result<MeshRolloutStatus> {
        let status = self.until_status("the rollout to settle", |status| {
            let ready = status
                .conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True");
            status.phase.as_deref() == Some("Idle") && status.stable.is_some() && ready
        });
        let status = status.await?;
        self.followed().await?;
        Ok(status)
    }

    /// Waits until every proxy routes by the split of the status.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn followed(&self) -> Result<()> {
        until("every proxy to follow", async || {
            let (status, split) = (self.status().await?, self.split().await?);
            let told = split.status.unwrap_or_default();
            let all = told.fence == status.fence && told.expected == told.applied;
            let held = self
                .proxies
                .iter()
                .all(|p| p.held().facts.fence == status.fence);
            let some = told.applied == i32::try_from(CALLERS)?;
            Ok((all && held && some && split.spec.fence == status.fence).then_some(()))
        })
        .await
    }

    /// Its objects end in the background.
    pub async fn remove(&self) {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        // What is left over does nobody harm: each scene has a name of its own.
        let _ = namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await;
    }
}

/// A version of the Deployment as it stands in git.
#[must_use]
pub fn in_git(version: &str) -> Value {
    objects::deployment(APP, version, REPLICAS)
}

/// What matters of a status, for messages.
#[must_use]
pub fn brief(status: &MeshRolloutStatus) -> String {
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|c| format!("{}={} {}", c.type_, c.status, c.message))
        .collect();
    let evidence = status.evidence.clone().unwrap_or_default();
    format!(
        "{:?} step {:?} weight {} fence {} evidence {} verdict {:?}; {}",
        status.phase,
        status.step,
        status.weight,
        status.fence,
        evidence.text,
        status.verdict,
        conditions.join("; ")
    )
}
