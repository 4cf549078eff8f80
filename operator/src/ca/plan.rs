//! What is to be written, from what is there. Pure but for the keys that rcgen draws.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use sluice_identity::{
    Authority, IdentityError, Issued, Names, Plan as Due, PrivateKey, Seconds, create_root,
    inspect_pem, plan_leaf, plan_root, spiffe_id,
};
use tracing::info;

use super::{ROOT_CONFIG_MAP, ROOT_SECRET, secret_of};

/// What the certificates are to say.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The operator's namespace.
    pub namespace: String,
    /// Trust domain of the SPIFFE ids.
    pub trust_domain: String,
    /// How long a leaf lives.
    pub leaf_lifetime: Seconds,
}

/// What is there.
#[derive(Default, Clone)]
pub(super) struct Seen {
    /// The root's Secret.
    pub root: Option<Arc<Secret>>,
    /// Each role with its leaf's Secret.
    pub leafs: Vec<(&'static str, Option<Arc<Secret>>)>,
    /// Namespaces in which pods may get a sidecar.
    pub namespaces: BTreeSet<String>,
    /// The root's certificate in each namespace that has it.
    pub roots: BTreeMap<String, String>,
    /// Our webhook configurations.
    pub webhooks: Vec<Arc<MutatingWebhookConfiguration>>,
}

/// One write. It has no `Debug`, for the Secrets.
pub(super) enum Write {
    /// Create it unless it is there.
    Create(Box<Secret>),
    /// Replace it in the version it carries.
    Replace(Box<Secret>),
    /// Apply the ConfigMap with the root to a namespace.
    RootTo(String, Value),
    /// Apply the caBundle to a webhook configuration.
    BundleTo(String, Value),
}

/// What to do now, and when to look again.
pub(super) struct Plan {
    /// What the control plane itself needs, in order.
    pub writes: Vec<Write>,
    /// The root's certificate for namespaces of others.
    pub elsewhere: Vec<Write>,
    /// The next renewal.
    pub next: Seconds,
}

/// Why nothing can be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// The root's Secret is damaged.
    #[error(
        "Secret {ROOT_SECRET} has no {0}: restore it from a backup, or delete the Secret to start a new root (all proxies then need it)"
    )]
    Missing(&'static str),
    /// The root cannot be used.
    #[error("Secret {ROOT_SECRET}: {0}")]
    Root(IdentityError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Make(#[from] IdentityError),
}

/// What to do at `now`.
///
/// # Errors
/// The root is there but cannot be used, or a certificate cannot be made.
pub(super) fn plan(now: Seconds, config: &Config, seen: &Seen) -> Result<Plan, PlanError> {
    let root = seen.root.as_deref();
    let cert = root.map(|secret| text(secret, "tls.crt").ok_or(PlanError::Missing("tls.crt")));
    let cert = cert.transpose()?;
    let facts = cert
        .as_deref()
        .map(inspect_pem)
        .transpose()
        .map_err(PlanError::Root)?;
    let (Some(secret), Some(cert), Due::Keep { until }) =
        (root, cert, plan_root(now, facts.as_ref()))
    else {
        info!("making a root");
        let root = create_root(&config.trust_domain, now)?;
        let bundle = root.cert_pem.clone();
        let write = secret_write(config, ROOT_SECRET, root, &bundle, seen.root.as_deref());
        return Ok(Plan {
            writes: vec![write],
            elsewhere: Vec::new(),
            next: now,
        });
    };
    let key = text(secret, "tls.key").ok_or(PlanError::Missing("tls.key"))?;
    let authority = Authority::load(&cert, &PrivateKey::from_pem(key)).map_err(PlanError::Root)?;
    // The bundle may hold more roots than the one that signs: an old one that is still in use.
    let bundle = text(secret, "ca.crt").unwrap_or(cert);

    let mut plan = Plan {
        writes: Vec::new(),
        elsewhere: Vec::new(),
        next: until,
    };
    for (role, leaf) in &seen.leafs {
        plan_role(
            now,
            config,
            &authority,
            &bundle,
            role,
            leaf.as_deref(),
            &mut plan,
        )?;
    }
    let lacks = |namespace: &&String| seen.roots.get(*namespace) != Some(&bundle);
    let root_to = |namespace: &String| Write::RootTo(namespace.clone(), config_map(&bundle));
    let own = Some(&config.namespace);
    plan.writes
        .extend(own.into_iter().filter(lacks).map(root_to));
    let others = seen.namespaces.iter().filter(|name| Some(*name) != own);
    plan.elsewhere.extend(others.filter(lacks).map(root_to));
    for hook in &seen.webhooks {
        if let Some(patch) = bundle_patch(hook, &bundle) {
            plan.writes.push(Write::BundleTo(hook.name_any(), patch));
        }
    }
    Ok(plan)
}

fn plan_role(
    now: Seconds,
    config: &Config,
    authority: &Authority,
    bundle: &str,
    role: &str,
    secret: Option<&Secret>,
    plan: &mut Plan,
) -> Result<(), PlanError> {
    let names = names(config, role);
    // A leaf that cannot be read is ours to replace.
    let leaf = secret
        .and_then(|secret| text(secret, "tls.crt"))
        .and_then(|pem| inspect_pem(&pem).ok());
    let why = match plan_leaf(now, leaf.as_ref(), authority.facts(), &names) {
        Due::Renew { why } => why,
        Due::Keep { until } => {
            let carried = secret.and_then(|secret| text(secret, "ca.crt"));
            if carried.as_deref() == Some(bundle) {
                plan.next = plan.next.min(until);
                return Ok(());
            }
            "the roots have changed"
        }
    };
    info!(role, why, "making a leaf");
    let leaf = authority.issue(&names, now, config.leaf_lifetime)?;
    plan.writes
        .push(secret_write(config, &secret_of(role), leaf, bundle, secret));
    plan.next = plan.next.min(now + config.leaf_lifetime / 2);
    Ok(())
}

/// The names of a role: those of its Service, and its account's SPIFFE id.
fn names(config: &Config, role: &str) -> Names {
    let namespace = &config.namespace;
    Names {
        dns: vec![
            format!("{role}.{namespace}.svc"),
            format!("{role}.{namespace}.svc.cluster.local"),
            format!("{role}.{namespace}"),
        ],
        spiffe_id: spiffe_id(&config.trust_domain, namespace, role),
    }
}

fn secret_write(
    config: &Config,
    name: &str,
    issued: Issued,
    bundle: &str,
    before: Option<&Secret>,
) -> Write {
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    let mut secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(config.namespace.clone()),
            labels: Some(
                [(
                    "app.kubernetes.io/managed-by".to_owned(),
                    super::MANAGER.to_owned(),
                )]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            [
                entry("tls.crt", &issued.cert_pem),
                entry("tls.key", issued.key.expose_pem()),
                entry("ca.crt", bundle),
            ]
            .into(),
        ),
        ..Secret::default()
    };
    match before {
        None => Write::Create(Box::new(secret)),
        Some(before) => {
            secret.metadata.resource_version = before.metadata.resource_version.clone();
            secret.metadata.uid = before.metadata.uid.clone();
            secret.type_ = before.type_.clone();
            Write::Replace(Box::new(secret))
        }
    }
}

fn config_map(bundle: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ROOT_CONFIG_MAP},
        "data": {"ca.crt": bundle},
    })
}

/// The apply that sets the caBundle of every webhook of a configuration; `None` when all have
/// it.
fn bundle_patch(hook: &MutatingWebhookConfiguration, bundle: &str) -> Option<Value> {
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let webhooks = hook.webhooks.as_deref().unwrap_or_default();
    let missing = |have: Option<&ByteString>| have != Some(&bundle);
    if !webhooks
        .iter()
        .any(|one| missing(one.client_config.ca_bundle.as_ref()))
    {
        return None;
    }
    let webhooks: Vec<Value> = webhooks
        .iter()
        .map(|one| json!({"name": one.name, "clientConfig": {"caBundle": bundle}}))
        .collect();
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": hook.name_any()},
        "webhooks": webhooks,
    }))
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok()
}

#[cfg(test)]
mod tests;
