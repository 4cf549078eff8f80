//! The match conditions of our webhooks: whom the apiserver asks about. Both lists live in the
//! webhook configurations themselves, so that a webhook that is down can delay only what it is
//! there for: releases in namespaces with a MeshRollout, and unpromoted pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MutatingWebhookConfiguration};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde_json::json;
use sluice_crds::names;
use sluice_rollout::revision::candidate_pod_hash;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tracing::{info, warn};

use super::{
    act::{ActError, REQUEST, answer},
    facts::{Key, MANAGER, ReplicaSetFacts, RolloutFacts},
    watches::World,
};
use crate::{backoff::Backoff, lease::Leadership};

/// The webhook that pauses a Deployment when a new revision comes.
pub const HOLD: &str = "hold.sluice.dev";
/// The webhook that puts the readiness gate into candidate pods.
pub const GATE: &str = "gate.sluice.dev";
/// Their configurations.
const HOLD_CONFIGURATION: &str = "sluice-hold";
const GATE_CONFIGURATION: &str = "sluice-gate";
/// Name of our match condition where the configuration brings none.
const CONDITION: &str = "governed";
/// How often the lists are compared although nothing seems to have changed.
const TIDY: Duration = Duration::from_secs(10);

/// CEL of the hold: a template or `paused` changes in a namespace that holds a MeshRollout.
#[must_use]
pub fn hold_expression(namespaces: &BTreeSet<String>) -> String {
    if namespaces.is_empty() {
        return "false".to_owned();
    }
    let paused = |object: &str| format!("(has({object}.spec.paused) && {object}.spec.paused)");
    format!(
        "request.namespace in [{}] && (object.spec.template != oldObject.spec.template || {} != {})",
        quoted(namespaces),
        paused("object"),
        paused("oldObject"),
    )
}

/// CEL of the gate: a pod of an unpromoted candidate, told by `NAMESPACE/HASH`. The namespace
/// counts: what is a candidate here may have been promoted from the same template elsewhere.
#[must_use]
pub fn gate_expression(candidates: &BTreeSet<String>) -> String {
    if candidates.is_empty() {
        return "false".to_owned();
    }
    let label = names::POD_TEMPLATE_HASH;
    format!(
        "has(object.metadata.labels) && '{label}' in object.metadata.labels && (request.namespace + '/' + object.metadata.labels['{label}']) in [{}]",
        quoted(candidates),
    )
}

/// Namespaces and hashes have no quotes in them, by the apiserver's own rules.
fn quoted(items: &BTreeSet<String>) -> String {
    items
        .iter()
        .map(|item| format!("'{item}'"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The candidates that a gate expression of ours names.
fn candidates_in(expression: &str) -> BTreeSet<String> {
    let infix = format!("/{}", names::CANDIDATE_HASH_PREFIX);
    let quoted = expression.split('\'').skip(1).step_by(2);
    quoted
        .filter(|text| text.contains(&infix))
        .map(str::to_owned)
        .collect()
}

fn candidate(namespace: &str, hash: &str) -> String {
    format!("{namespace}/{hash}")
}

/// Keeps both lists; only the leader writes.
pub struct Webhooks {
    client: Client,
    leadership: Leadership,
    world: Arc<World>,
    /// Held during a write, so that lists are written one after the other.
    lists: AsyncMutex<Lists>,
    /// The namespaces that are held for certain, and the term in which that was written: so that
    /// a look does not wait for the write of another.
    in_force: Mutex<(Option<i32>, BTreeSet<String>)>,
    /// What the watch saw last, by webhook.
    shown: Mutex<BTreeMap<&'static str, MatchCondition>>,
    changed: Notify,
    /// Candidates whose gate was seen at work.
    proved: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct Lists {
    /// The term that they belong to.
    term: Option<i32>,
    /// Gated by a MeshRollout that this term has looked at.
    gated: BTreeMap<Key, String>,
    /// Found in the configuration when the term began: gated until nobody tries them and their
    /// ReplicaSet is gone, or their MeshRollout has been looked at.
    inherited: BTreeSet<String>,
    /// The expressions that stand in the cluster, as far as is known.
    hold: Option<String>,
    gate: Option<String>,
}

impl Lists {
    fn candidates(&self) -> BTreeSet<String> {
        self.gated
            .values()
            .chain(&self.inherited)
            .cloned()
            .collect()
    }
}

impl Webhooks {
    /// The keeper of this cluster's webhook lists.
    #[must_use]
    pub fn new(client: Client, leadership: Leadership, world: Arc<World>) -> Self {
        Self {
            client,
            leadership,
            world,
            lists: AsyncMutex::default(),
            in_force: Mutex::default(),
            shown: Mutex::default(),
            changed: Notify::new(),
            proved: Mutex::default(),
        }
    }

    /// Makes sure that new revisions in this namespace are held.
    ///
    /// # Errors
    /// The list cannot be written; the sentence says why.
    pub async fn hold(&self, namespace: &str) -> Result<(), ActError> {
        if self.is_held(namespace) {
            return Ok(());
        }
        let mut lists = self.lists.lock().await;
        self.begin(&mut lists).await?;
        let mut namespaces: BTreeSet<String> =
            self.world.rollouts.namespaces().into_iter().collect();
        namespaces.insert(namespace.to_owned());
        self.write_hold(&mut lists, &namespaces).await
    }

    /// Makes sure that pods of this hash are gated, for this MeshRollout and no other hash.
    ///
    /// # Errors
    /// The list cannot be written; the sentence says why.
    pub async fn gate(&self, key: &Key, hash: &str) -> Result<(), ActError> {
        let mut lists = self.lists.lock().await;
        self.begin(&mut lists).await?;
        let candidate = candidate(&key.namespace, hash);
        lists.inherited.remove(&candidate);
        lists.gated.insert(key.clone(), candidate);
        self.write_gate(&mut lists).await
    }

    /// Makes sure that new pods of this MeshRollout depend on us no more.
    ///
    /// # Errors
    /// The list cannot be written; the sentence says why.
    pub async fn ungate(&self, key: &Key) -> Result<(), ActError> {
        let mut lists = self.lists.lock().await;
        self.begin(&mut lists).await?;
        if let Some(candidate) = lists.gated.remove(key) {
            lists.inherited.remove(&candidate);
        }
        for set in self.world.replica_sets.within(&key.namespace) {
            if set
                .meta
                .labels
                .get(names::ROLLOUT)
                .is_some_and(|rollout| *rollout == key.name)
            {
                lists
                    .inherited
                    .remove(&candidate(&key.namespace, &set.pod_hash));
            }
        }
        self.write_gate(&mut lists).await
    }

    /// Whether a dry run has shown that pods of this hash are gated.
    pub fn is_proved(&self, namespace: &str, hash: &str) -> bool {
        self.proved.lock().contains(&candidate(namespace, hash))
    }

    /// A dry run has shown it.
    pub fn proved(&self, namespace: &str, hash: &str) {
        self.proved.lock().insert(candidate(namespace, hash));
    }

    /// Follows the configurations and the namespaces, and puts right what is not; runs for ever.
    pub async fn keep(self: Arc<Self>, rollouts_changed: Arc<Notify>) {
        let mut leadership = self.leadership.clone();
        let watches = async {
            tokio::join!(
                self.watch(HOLD_CONFIGURATION, HOLD),
                self.watch(GATE_CONFIGURATION, GATE),
            )
        };
        tokio::pin!(watches);
        loop {
            tokio::select! {
                _ = &mut watches => return,
                () = rollouts_changed.notified() => {}
                () = self.changed.notified() => {}
                () = leadership.changed() => {}
                () = tokio::time::sleep(TIDY) => {}
            }
            if self.leadership.leads()
                && let Err(error) = self.tidy().await
            {
                warn!(%error, "the webhooks' lists are not as they should be; tried again in {TIDY:?}");
            }
        }
    }

    async fn tidy(&self) -> Result<(), ActError> {
        self.world.synced().await;
        let mut lists = self.lists.lock().await;
        self.begin(&mut lists).await?;
        for (webhook, condition) in self.shown.lock().iter() {
            let known = if *webhook == HOLD {
                &mut lists.hold
            } else {
                &mut lists.gate
            };
            *known = Some(condition.expression.clone());
        }
        let is_it = |set: &ReplicaSetFacts, told: &str| {
            candidate(&set.meta.namespace, &set.pod_hash) == *told
        };
        lists.inherited.retain(|told| {
            let exists = self.world.replica_sets.any(|set| is_it(set, told));
            exists || self.world.rollouts.any(|rollout| is_tried(rollout, told))
        });
        lists
            .gated
            .retain(|key, _| self.world.rollouts.get(&key.namespace, &key.name).is_some());
        let namespaces = self.world.rollouts.namespaces().into_iter().collect();
        self.write_hold(&mut lists, &namespaces).await?;
        self.write_gate(&mut lists).await
    }

    /// A new term starts from what stands in the cluster.
    async fn begin(&self, lists: &mut Lists) -> Result<(), ActError> {
        let term = self.leadership.term();
        if term.is_none() {
            return Err(ActError::NotLeading("the webhooks' lists".to_owned()));
        }
        if lists.term == term {
            return Ok(());
        }
        let gate = self.read(GATE_CONFIGURATION, GATE).await?;
        let hold = self.read(HOLD_CONFIGURATION, HOLD).await?;
        *lists = Lists {
            term,
            gated: BTreeMap::new(),
            inherited: candidates_in(&gate.expression),
            hold: Some(hold.expression),
            gate: Some(gate.expression),
        };
        Ok(())
    }

    fn is_held(&self, namespace: &str) -> bool {
        let in_force = self.in_force.lock();
        in_force.0.is_some()
            && in_force.0 == self.leadership.term()
            && in_force.1.contains(namespace)
    }

    async fn write_hold(
        &self,
        lists: &mut Lists,
        namespaces: &BTreeSet<String>,
    ) -> Result<(), ActError> {
        let wanted = hold_expression(namespaces);
        if lists.hold.as_deref() != Some(&*wanted) {
            *self.in_force.lock() = (None, BTreeSet::new());
            lists.hold = None;
            self.apply(HOLD_CONFIGURATION, HOLD, &wanted).await?;
            lists.hold = Some(wanted);
        }
        *self.in_force.lock() = (lists.term, namespaces.clone());
        Ok(())
    }

    async fn write_gate(&self, lists: &mut Lists) -> Result<(), ActError> {
        let wanted = gate_expression(&lists.candidates());
        if lists.gate.as_deref() != Some(&*wanted) {
            lists.gate = None;
            self.apply(GATE_CONFIGURATION, GATE, &wanted).await?;
            lists.gate = Some(wanted);
            self.proved.lock().clear();
        }
        Ok(())
    }

    /// The match condition as it stands.
    async fn read(&self, configuration: &str, webhook: &str) -> Result<MatchCondition, ActError> {
        let what = format!("reading MutatingWebhookConfiguration {configuration}");
        let api = self.api();
        let found = answer(what, REQUEST, api.get_opt(configuration)).await?;
        found.and_then(|found| condition(&found, webhook)).ok_or_else(|| {
            ActError::Waits(format!(
                "MutatingWebhookConfiguration {configuration} with the webhook {webhook} is not there: install the chart whole"
            ))
        })
    }

    async fn apply(
        &self,
        configuration: &str,
        webhook: &'static str,
        expression: &str,
    ) -> Result<(), ActError> {
        let what = format!("match condition of {webhook}");
        let stands = self.read(configuration, webhook).await?;
        if !self.leadership.leads() {
            return Err(ActError::NotLeading(what));
        }
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": configuration},
            "webhooks": [{
                "name": webhook,
                "matchConditions": [{"name": stands.name, "expression": expression}],
            }],
        });
        let (api, params, patch) = (
            self.api(),
            PatchParams::apply(MANAGER).force(),
            Patch::Apply(&patch),
        );
        let request = api.patch(configuration, &params, &patch);
        let written = answer(what, REQUEST, request).await?;
        info!(webhook, expression, "match condition written");
        if let Some(condition) = condition(&written, webhook) {
            self.shown.lock().insert(webhook, condition);
        }
        Ok(())
    }

    /// Learns when somebody else, as an upgrade of the chart, changes a list. Each configuration
    /// is watched by its name: the account may read no others.
    async fn watch(&self, configuration: &str, webhook: &'static str) {
        let config = watcher::Config::default().fields(&format!("metadata.name={configuration}"));
        let mut objects = watcher(self.api(), config)
            .backoff(Backoff::default())
            .touched_objects()
            .inspect_err(|error| warn!(%error, configuration, "watch of the webhook configuration failed; it is tried again"))
            .filter_map(async |object| object.ok())
            .boxed();
        while let Some(object) = objects.next().await {
            if let Some(condition) = condition(&object, webhook) {
                self.shown.lock().insert(webhook, condition);
                self.changed.notify_one();
            }
        }
    }

    fn api(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }
}

/// Whether the MeshRollout tries this candidate, whose ReplicaSet may not be made yet.
fn is_tried(rollout: &RolloutFacts, told: &str) -> bool {
    let state = rollout.state().unwrap_or_default();
    let revision = state["candidate"]["revision"].as_str();
    revision.is_some_and(|revision| {
        candidate(&rollout.meta.namespace, &candidate_pod_hash(revision)) == told
    })
}

/// The one match condition of a webhook; a nameless `true` where it has none.
fn condition(
    configuration: &MutatingWebhookConfiguration,
    webhook: &str,
) -> Option<MatchCondition> {
    let webhook = configuration
        .webhooks
        .iter()
        .flatten()
        .find(|w| w.name == webhook)?;
    let first = webhook.match_conditions.iter().flatten().next().cloned();
    Some(first.unwrap_or_else(|| MatchCondition {
        name: CONDITION.to_owned(),
        expression: String::new(),
    }))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::controller::fixtures::{rollout, with_state};

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn nobody_is_asked_about_when_there_is_nobody() {
        assert_eq!(hold_expression(&set(&[])), "false");
        assert_eq!(gate_expression(&set(&[])), "false");
    }

    #[test]
    fn the_hold_is_asked_about_templates_and_pauses_of_the_listed_namespaces() {
        assert_eq!(
            hold_expression(&set(&["shop", "bank"])),
            "request.namespace in ['bank', 'shop'] && (object.spec.template != oldObject.spec.template \
             || (has(object.spec.paused) && object.spec.paused) \
             != (has(oldObject.spec.paused) && oldObject.spec.paused))"
        );
    }

    #[test]
    fn the_gate_is_asked_about_pods_of_the_listed_hashes() {
        assert_eq!(
            gate_expression(&set(&["shop/sluice-b", "bank/sluice-a"])),
            "has(object.metadata.labels) && 'pod-template-hash' in object.metadata.labels \
             && (request.namespace + '/' + object.metadata.labels['pod-template-hash']) \
             in ['bank/sluice-a', 'shop/sluice-b']"
        );
    }

    #[test]
    fn a_candidate_is_gated_from_its_first_state_on_though_it_has_no_replica_set_yet() {
        let state = json!({"candidate": {"revision": "0123456789abcdef"}});
        let trying = with_state(&rollout("web", "web"), state);
        let namespace = &trying.meta.namespace;
        assert!(is_tried(&trying, &format!("{namespace}/sluice-0123456789")));
        assert!(!is_tried(
            &trying,
            &format!("{namespace}/sluice-9876543210")
        ));
        assert!(!is_tried(
            &rollout("web", "web"),
            &format!("{namespace}/sluice-")
        ));
    }

    #[test]
    fn a_new_leader_reads_the_gated_candidates_back() {
        let candidates = set(&["shop/sluice-0a", "bank/sluice-ff"]);
        assert_eq!(candidates_in(&gate_expression(&candidates)), candidates);
        assert!(candidates_in("false").is_empty());
    }
}
