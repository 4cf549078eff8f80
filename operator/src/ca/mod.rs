//! The `ca` role: keeps the root, the leafs of the other roles, and the root's certificate
//! where proxies and the apiserver look for it.
//!
//! ```text
//!  Secret sluice-ca ─▶ plan ─┬─▶ Secrets sluice-serving-tls, sluice-controller-tls
//!  (root and its key)        ├─▶ ConfigMap sluice-root-ca in each namespace but Kubernetes' own
//!                            └─▶ caBundle of the three webhook configurations
//! ```
//!
//! **Invariants**
//! - Level-triggered: what is written follows from what is there, never from what happened.
//! - Replicas need no leader: a Secret is created only if it is absent and replaced only in the
//!   version that was read, so that who comes second takes what the first has made; what is
//!   applied is the same whoever applies it.
//! - A root that cannot be read is never replaced: that would change whom the mesh trusts.
//! - Key material is never logged.

mod act;
mod plan;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{
    Api, ResourceExt,
    api::PartialObjectMeta,
    runtime::{reflector::Store, watcher},
};
use sluice_identity::{LEAF_LIFETIME, Seconds};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::plan::{Config, Seen};
use crate::{
    backoff::Backoff,
    context::{Context, lost},
    stores,
};

/// Field manager of everything that is applied.
pub(crate) const MANAGER: &str = "sluice-ca";
/// The root and its key; only this role's account reads it.
const ROOT_SECRET: &str = "sluice-ca";
/// The roles that get a leaf in the Secret `ROLE-tls`.
const ROLES: [&str; 2] = ["sluice-serving", "sluice-controller"];
/// ConfigMap with the root's certificate for the proxies.
pub(crate) const ROOT_CONFIG_MAP: &str = "sluice-root-ca";
/// Kubernetes' own namespaces, in which no pod gets a sidecar.
const WITHOUT_ROOT: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// The webhook configurations whose caBundle is kept.
const WEBHOOKS: [&str; 3] = ["sluice-hold", "sluice-gate", "sluice-inject"];

/// Several objects that change at once are one round.
const SETTLE: Duration = Duration::from_millis(50);
/// The longest that nobody looks, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(300);
/// The longest wait after a write that failed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Settings of the `ca` role.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Trust domain of all SPIFFE ids.
    #[arg(long, env = "SLUICE_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// How long a leaf lives, in seconds; it is renewed at half of it.
    #[arg(long, env = "SLUICE_LEAF_SECONDS", default_value_t = LEAF_LIFETIME, value_parser = clap::value_parser!(i64).range(60..))]
    pub leaf_seconds: Seconds,
}

/// Keeps the certificates until `shutdown`.
///
/// # Errors
/// A watch ended. What else fails is said in the log and in `/readyz`, and tried again.
pub async fn run(context: Context, options: Options, shutdown: CancellationToken) -> Result<()> {
    let check = context.health.check("certificates");
    let config = Config {
        namespace: context.pod.namespace.clone(),
        trust_domain: options.trust_domain,
        leaf_lifetime: options.leaf_seconds,
    };
    let wake = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    let stores = Stores::follow(&context, &wake, &mut watches);
    let work = async {
        stores.synced().await;
        info!("watches are complete");
        let mut backoff = Backoff::up_to(LONGEST_WAIT);
        loop {
            let wait = match round(&context, &config, &stores).await {
                Ok(Round {
                    in_place,
                    spread,
                    wait,
                }) => {
                    if in_place {
                        check.pass();
                    }
                    match spread {
                        Ok(()) => {
                            backoff.reset();
                            wait
                        }
                        Err(error) => {
                            warn!(
                                error = format!("{error:#}"),
                                "a namespace lacks the root certificate; trying again"
                            );
                            backoff.wait()
                        }
                    }
                }
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "certificates are not all in place; trying again"
                    );
                    check.fail(format!("{error:#}"));
                    backoff.wait()
                }
            };
            let _ = tokio::time::timeout(wait, wake.notified()).await;
            tokio::time::sleep(SETTLE).await;
        }
    };
    tokio::select! {
        () = work => Ok(()),
        error = lost(&mut watches, &shutdown) => Err(error),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// What a round has found.
struct Round {
    /// Everything that the control plane itself needs was in place already.
    in_place: bool,
    /// Whether every namespace has the root's certificate. One that refuses it (a quota, a
    /// policy) is its owner's matter, and makes nobody here unready.
    spread: Result<()>,
    /// How long until the next look, unless something changes.
    wait: Duration,
}

/// One look and its writes.
async fn round(context: &Context, config: &Config, stores: &Stores) -> Result<Round> {
    let started = Instant::now();
    let now = Timestamp::now().as_second();
    let plan = plan::plan(now, config, &stores.seen())?;
    let in_place = plan.writes.is_empty();
    act::act(&context.client, &config.namespace, plan.writes).await?;
    let spread = act::act(&context.client, &config.namespace, plan.elsewhere).await;
    let due = Duration::from_secs(u64::try_from(plan.next - now).unwrap_or(0).max(1));
    Ok(Round {
        in_place,
        spread,
        wait: due.min(RESYNC).saturating_sub(started.elapsed()),
    })
}

/// What the watches keep.
struct Stores {
    root: Store<Secret>,
    leafs: [Store<Secret>; 2],
    config_maps: Store<ConfigMap>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    webhooks: [Store<MutatingWebhookConfiguration>; 3],
}

impl Stores {
    /// One watch a Secret and a webhook configuration: RBAC can then name each of them.
    fn follow(context: &Context, wake: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self {
        let client = &context.client;
        let named =
            |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut secret = |name: &str| {
            let api = Api::namespaced(client.clone(), &context.pod.namespace);
            stores::follow(api, named(name), |_| {}, wake, tasks)
        };
        let root = secret(ROOT_SECRET);
        let leafs = ROLES.map(|role| secret(&secret_of(role)));
        Self {
            root,
            leafs,
            config_maps: stores::follow(
                Api::all(client.clone()),
                named(ROOT_CONFIG_MAP),
                |map: &mut ConfigMap| map.metadata.managed_fields = None,
                wake,
                tasks,
            ),
            namespaces: stores::namespaces(client, wake, tasks),
            webhooks: WEBHOOKS.map(|name| {
                stores::follow(
                    Api::all(client.clone()),
                    named(name),
                    |hook: &mut MutatingWebhookConfiguration| hook.metadata.managed_fields = None,
                    wake,
                    tasks,
                )
            }),
        }
    }

    async fn synced(&self) {
        // An error says that the watch's task is gone: then we are stopping.
        let _ = self.root.wait_until_ready().await;
        for store in &self.leafs {
            let _ = store.wait_until_ready().await;
        }
        let _ = self.config_maps.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
        for store in &self.webhooks {
            let _ = store.wait_until_ready().await;
        }
    }

    fn seen(&self) -> Seen {
        let roots: BTreeMap<String, String> = self
            .config_maps
            .state()
            .iter()
            .filter_map(|map| {
                let pem = map.data.as_ref()?.get("ca.crt")?;
                Some((map.namespace()?, pem.clone()))
            })
            .collect();
        let namespaces = self
            .namespaces
            .state()
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
            .map(|namespace| namespace.name_any())
            .filter(|name| !WITHOUT_ROOT.contains(&name.as_str()))
            .collect();
        Seen {
            root: self.root.state().into_iter().next(),
            leafs: ROLES
                .into_iter()
                .zip(&self.leafs)
                .map(|(role, store)| (role, store.state().into_iter().next()))
                .collect(),
            namespaces,
            roots,
            webhooks: self.webhooks.iter().flat_map(Store::state).collect(),
        }
    }
}

/// The Secret with a role's leaf.
fn secret_of(role: &str) -> String {
    format!("{role}-tls")
}
