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

fn open(pod: &PodFacts, now: Timestamp) -> Value {
    json!({
        "metadata": {"uid": pod.meta.uid, "resourceVersion": pod.meta.version},
        "status": {"conditions": [{
            "type": names::PROMOTED_GATE,
            "status": "True",
            "reason": "Promoted",
            "message": "all evidence for this revision is in",
            "lastTransitionTime": Time(now),
        }]},
    })
}

impl Writer<'_> {
    /// Opens the gate of every pod of the ReplicaSet that has one and is not open yet.
    pub(super) async fn open_gates(&self, set: &ReplicaSetFacts) -> Result<(), ActError> {
        let mut shut = Vec::new();
        for pod in &self.namespace.pods {
            let is_its = pod.meta.owned_by("ReplicaSet", &set.meta.uid);
            if is_its && pod.lives() && pod.gated && !pod.promoted {
                shut.push(pod.as_ref());
            }
        }
        for some in shut.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|pod| self.open_gate(pod))).await?;
        }
        Ok(())
    }

    async fn open_gate(&self, pod: &PodFacts) -> Result<(), ActError> {
        let name = &pod.meta.name;
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.meta.namespace);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(open(pod, Timestamp::now()));
        let request = async { api.patch_status(name, &params, &patch).await };
        self.send(
            Kind::Pod,
            format!("opening the gate of pod {name}"),
            request,
        )
        .await
        .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures::pod;

    #[test]
    fn only_our_condition_is_written_and_only_to_the_pod_that_was_seen() {
        let patch = open(&pod("web-1"), Timestamp::UNIX_EPOCH);
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
        let conditions = patch["status"]["conditions"].as_array().map(Vec::as_slice);
        assert!(matches!(conditions, Some([only]) if only["type"] == "sluice.dev/promoted"));
        assert_eq!(
            patch["status"].as_object().map(serde_json::Map::len),
            Some(1)
        );
    }
}
