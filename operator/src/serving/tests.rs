//! Clients against the server in one process, over in-memory connections.
#![allow(clippy::unwrap_used)]

mod ads;
mod ejects;
mod harness;
mod relay;
mod reports;
mod tenants;

use serde_json::json;
use sluice_crds::TrafficSplit;
use sluice_evidence::{Identity, relay::Eject, v1::ProxyReport};

use super::hub::{Hub, View};

/// A report of this proxy, as if its stream had brought it.
pub(crate) fn report(hub: &Hub, identity: &Identity, report: &ProxyReport, view: &View) {
    hub.report(identity, report, view).unwrap();
}

/// The split of `bookinfo/reviews`, whose candidate is `r2`.
pub(crate) fn split(fence: i64, weight: i32) -> TrafficSplit {
    harness::parse(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "TrafficSplit",
        "metadata": {"name": "reviews", "namespace": "bookinfo", "uid": "s1"},
        "spec": {
            "fence": fence, "services": ["reviews"], "revision": "r2", "leased": true,
            "arms": [
                {"name": "stable", "weight": 100 - weight, "podLabelValues": []},
                {"name": "candidate", "weight": weight, "podLabelValues": ["sluice-r2"]},
            ],
        },
    }))
}

/// An eject of its candidate.
pub(crate) fn eject(fence: i64) -> Eject {
    Eject {
        namespace: "bookinfo".to_owned(),
        rollout: "reviews".to_owned(),
        revision: "r2".to_owned(),
        fence,
        since_ms: 1,
        why: "it fails".to_owned(),
    }
}
