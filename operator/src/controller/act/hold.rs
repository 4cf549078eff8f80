//! `spec.paused` of the Deployment: the only field of it that is ever written.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_rollout::desired::Hold;

use super::{ActError, Writer};
use crate::controller::{
    facts::{DeploymentFacts, MANAGER, Meta},
    seen::Kind,
};

/// The patch that brings `spec.paused` to what is asked for; none when it is so already.
///
/// A merge patch that takes the field away leaves nobody owning it, so that the next sync of git
/// sees no difference and has no conflict; `false` would leave it ours.
fn patch(deployment: &DeploymentFacts, hold: Hold) -> Option<Value> {
    let paused = match hold {
        Hold::Leave => return None,
        Hold::Hold => json!(true),
        Hold::Release => Value::Null,
    };
    if deployment.paused == (hold == Hold::Hold) {
        return None;
    }
    let Meta { uid, version, .. } = &deployment.meta;
    Some(json!({"metadata": {"uid": uid, "resourceVersion": version}, "spec": {"paused": paused}}))
}

impl Writer<'_> {
    /// Holds or releases the Deployment.
    pub async fn hold(&self, deployment: &DeploymentFacts, hold: Hold) -> Result<(), ActError> {
        let Some(patch) = patch(deployment, hold) else {
            return Ok(());
        };
        let name = &deployment.meta.name;
        let done = if hold == Hold::Hold {
            "holding"
        } else {
            "releasing"
        };
        let what = format!("{done} Deployment {name}");
        let api = Api::<Deployment>::namespaced(self.client.clone(), &deployment.meta.namespace);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let request = async { api.patch(name, &params, &Patch::Merge(&patch)).await };
        let written = self.send(Kind::Deployment, what, request).await?;
        let paused = written
            .spec
            .and_then(|spec| spec.paused)
            .unwrap_or_default();
        if paused != (hold == Hold::Hold) {
            // The hold webhook decides from its own cache, which may be a moment behind ours.
            return Err(ActError::Conflict(format!(
                "{done} Deployment {name}: the hold webhook undid it"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures::deployment;

    #[test]
    fn releasing_takes_the_field_away_and_holding_sets_it() {
        let running = deployment("web", "r1");
        let held = DeploymentFacts {
            paused: true,
            ..running.clone()
        };
        assert_eq!(patch(&running, Hold::Release), None);
        assert_eq!(patch(&held, Hold::Hold), None);
        assert_eq!(patch(&held, Hold::Leave), None);
        assert!(patch(&held, Hold::Release).is_some_and(|p| p["spec"]["paused"].is_null()));
        assert!(patch(&running, Hold::Hold).is_some_and(|p| p["spec"]["paused"] == true));
    }

    #[test]
    fn the_version_that_was_read_goes_with_the_patch() {
        let patch = patch(&deployment("web", "r1"), Hold::Hold);
        assert!(patch.is_some_and(|p| p["metadata"]["resourceVersion"] == "1"));
    }
}
