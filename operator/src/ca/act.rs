//! Carries out the writes of a plan.

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use tracing::{debug, info};

use super::{MANAGER, ROOT_CONFIG_MAP, plan::Write};

/// Writes in order. What another replica was faster with is no error: the watch brings its
/// result. What fails does not stop the others; the first failure is returned.
pub(super) async fn act(client: &Client, namespace: &str, writes: Vec<Write>) -> Result<()> {
    let mut failure = Ok(());
    for write in writes {
        let outcome = one(client, namespace, write).await;
        failure = failure.and(outcome);
    }
    failure
}

async fn one(client: &Client, namespace: &str, write: Write) -> Result<()> {
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let apply = PatchParams::apply(MANAGER).force();
    match write {
        Write::Create(secret) => {
            let api = Api::<Secret>::namespaced(client.clone(), namespace);
            settled(
                api.create(&params, &secret).await,
                "Secret",
                &secret.name_any(),
            )
        }
        Write::Replace(secret) => {
            let api = Api::<Secret>::namespaced(client.clone(), namespace);
            let name = secret.name_any();
            settled(api.replace(&name, &params, &secret).await, "Secret", &name)
        }
        Write::RootTo(namespace, patch) => {
            let api = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
            match api
                .patch(ROOT_CONFIG_MAP, &apply, &Patch::Apply(patch))
                .await
            {
                Ok(_) => info!(namespace, "root certificate written"),
                Err(Error::Api(status)) if status.is_not_found() => {
                    debug!(namespace, "the namespace is gone");
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("ConfigMap {ROOT_CONFIG_MAP} of {namespace}"));
                }
            }
            Ok(())
        }
        Write::BundleTo(name, patch) => {
            let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
            api.patch(&name, &apply, &Patch::Apply(patch))
                .await
                .with_context(|| format!("caBundle of MutatingWebhookConfiguration {name}"))?;
            info!(name, "caBundle written");
            Ok(())
        }
    }
}

fn settled(outcome: kube::Result<Secret>, kind: &str, name: &str) -> Result<()> {
    match outcome {
        Ok(_) => info!(kind, name, "written"),
        Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            debug!(kind, name, "another replica was faster");
        }
        Err(error) => return Err(error).with_context(|| format!("{kind} {name}")),
    }
    Ok(())
}
