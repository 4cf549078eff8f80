//! Git's manifests are applied each second, as the most eager sync does: nobody fights.

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use serde_json::Value;
use sluice_e2e::audit::{Audit, Event};

use crate::{
    app::{deployment, governing, service},
    node::{self, say},
    place::{GIT, Place, within},
};

const APP: &str = "web";
const REPLICAS: i32 = 2;

/// What a rollout does to its Deployment.
#[derive(Debug)]
struct Traces {
    /// Writes that came from git, the commit among them.
    applies: usize,
    /// Our writes.
    ours: usize,
    /// How often the spec changed.
    generations: i64,
    /// Who owned what while the revision was held.
    held: Owners,
    /// The same after its promotion.
    promoted: Owners,
}

/// Field managers with their fields.
type Owners = BTreeSet<(String, String)>;

#[tokio::test]
async fn an_apply_each_second_makes_us_write_no_more_and_moves_no_field_to_another_owner() {
    within("sluice-apply-loop", false, async |place| {
        place.deploy(APP, "v1", REPLICAS).await;
        let quiet = roll_out(place, "v2", None).await;
        assert!(quiet.ours >= 1, "the hold was released: {quiet:?}");
        let seconds = if node::runs_long() { 300 } else { 20 };
        let looped = roll_out(place, "v3", Some(seconds)).await;
        assert!(looped.applies >= seconds, "{looped:?}");
        assert!(looped.ours <= quiet.ours, "{looped:?}, without: {quiet:?}");
        assert_eq!(looped.generations, quiet.generations);
        assert_eq!(looped.held, quiet.held);
        assert_eq!(looped.promoted, quiet.promoted);
        let pausing = looped
            .held
            .iter()
            .find(|owner| owner.1.contains("f:paused"));
        assert_eq!(pausing, None, "what nobody owns, nobody takes");
        say(&format!(
            "{} applies in one rollout: {} writes of ours to the Deployment, {} without them",
            looped.applies, looped.ours, quiet.ours
        ));
    })
    .await;
}

/// A rollout; with applies each second for at least so long in its middle and until its end.
async fn roll_out(place: &Place, version: &str, seconds: Option<usize>) -> Traces {
    let deployment = deployment(APP, version, REPLICAS);
    let mut audit = Audit::begin(&node::audit_log()).unwrap();
    let before = generation(place, &deployment).await;
    let revision = place.release(APP, version, REPLICAS).await;
    let is_over = Cell::new(seconds.is_none());
    let applies = async {
        let mut each_second = tokio::time::interval(Duration::from_secs(1));
        while !is_over.get() {
            each_second.tick().await;
            for object in [&deployment, &service(APP), &governing(APP, APP)] {
                place.apply(object).await;
            }
        }
    };
    let rollout = async {
        let middle = Duration::from_secs(seconds.unwrap_or(0) as u64);
        tokio::time::sleep(middle).await;
        let held = owners(place, &deployment).await;
        place.promote(APP, &revision).await;
        is_over.set(true);
        held
    };
    let ((), held) = tokio::join!(applies, rollout);
    place.wait_until_ready(APP, REPLICAS).await;
    let events = audit
        .until_now(&place.client, &place.namespace)
        .await
        .unwrap();
    let is_of_deployment = |event: &&Event| {
        event.is_write()
            && event.namespace == place.namespace
            && (event.what == "deployments" && event.name == APP)
    };
    let to_deployment = || events.iter().filter(is_of_deployment);
    Traces {
        applies: to_deployment()
            .filter(|w| !w.who.starts_with("system:"))
            .count(),
        ours: to_deployment().filter(|w| w.is_ours()).count(),
        generations: generation(place, &deployment).await - before,
        held,
        promoted: owners(place, &deployment).await,
    }
}

async fn generation(place: &Place, deployment: &Value) -> i64 {
    let live = place.live(deployment).await;
    live.metadata.generation.unwrap()
}

/// Owners of what is not status, which belongs to controllers alone.
async fn owners(place: &Place, deployment: &Value) -> Owners {
    let live = place.live(deployment).await;
    let entries = live.managed_fields().iter();
    let of_spec = entries.filter(|entry| entry.subresource.is_none());
    let owners: Owners = of_spec.map(owner).collect();
    assert!(owners.iter().any(|(manager, _)| manager.starts_with(GIT)));
    owners
}

fn owner(entry: &ManagedFieldsEntry) -> (String, String) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let fields = entry.fields_v1.as_ref().map(|fields| fields.0.to_string());
    let manager = format!("{} by {}", text(&entry.manager), text(&entry.operation));
    (manager, text(&fields))
}
