//! The readiness gates of candidate pods.

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_crds::names;

use super::{ActError, Writer};
use crate::controller::{
    facts::{MANAGER, PodFacts, ReplicaSetFacts},
    seen::Kind,
};

/// How many pods are written to at one time.
const AT_ONCE: usize = 8;

fn gate(pod: &PodFacts, open: bool, now: Timestamp) -> Value {
    let (status, reason, message) = if open {
        ("True", "Promoted", "all evidence for this revision is in")
    } else {
        ("False", "TakenBack", "the revision is not promoted")
    };
    json!({
        "metadata": {"uid": pod.meta.uid, "resourceVersion": pod.meta.version},
        "status": {"conditions": [{
            "type": names::PROMOTED_GATE,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": Time(now),
        }]},
    })
}

impl Writer<'_> {
    /// Opens or shuts the gate of every pod of the ReplicaSet that has one.
    pub(super) async fn set_gates(
        &self,
        set: &ReplicaSetFacts,
        open: bool,
    ) -> Result<(), ActError> {
        let mut wrong = Vec::new();
        for pod in &self.namespace.pods {
            let is_its = pod.meta.owned_by("ReplicaSet", &set.meta.uid);
            if is_its && pod.lives() && pod.gated && pod.promoted != open {
                wrong.push(pod.as_ref());
            }
        }
        for some in wrong.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|pod| self.set_gate(pod, open))).await?;
        }
        Ok(())
    }

    async fn set_gate(&self, pod: &PodFacts, open: bool) -> Result<(), ActError> {
        let name = &pod.meta.name;
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.meta.namespace);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(gate(pod, open, Timestamp::now()));
        let request = async { api.patch_status(name, &params, &patch).await };
        let done = if open { "opening" } else { "shutting" };
        let what = format!("{done} the gate of pod {name}");
        self.send(Kind::Pod, what, request).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures::pod;

    #[test]
    fn only_our_condition_is_written_and_only_to_the_pod_that_was_seen() {
        for (open, status) in [(true, "True"), (false, "False")] {
            let patch = gate(&pod("web-1"), open, Timestamp::UNIX_EPOCH);
            assert_eq!(patch["metadata"]["resourceVersion"], "1");
            let conditions = patch["status"]["conditions"].as_array().map(Vec::as_slice);
            assert!(
                matches!(conditions, Some([only]) if only["type"] == "sluice.dev/promoted" && only["status"] == status)
            );
            assert_eq!(
                patch["status"].as_object().map(serde_json::Map::len),
                Some(1)
            );
        }
    }
}
