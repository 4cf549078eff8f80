//! What a test of one fault stands on: a stage, a controller, a scene that has settled on v1.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use sluice_crds::MeshRolloutStatus;
use sluice_e2e::faults::{
    history::by_object,
    layer::{Layer, Write},
    operator::Process,
    scene::Scene,
    stage::{Controller, Stage, until},
    witness::Witness,
};
use tokio::time::{Instant, sleep};

/// What each look at the rollout's state says when v2 is promoted in steps of 50 and 100.
pub const PROMOTION: [&str; 10] = [
    "Idle at 0 %, fence +0",
    "Preparing at 0 %, fence +1",
    "Shifting 0 at 50 %, fence +2",
    "Observing 0 at 50 %, fence +2",
    "Shifting 1 at 50 %, fence +2",
    "Shifting 1 at 100 %, fence +3",
    "Observing 1 at 100 %, fence +3",
    "Promoting OpenGates at 100 %, fence +4",
    "Promoting Adopt at 100 %, fence +4",
    "Promoting Release at 100 %, fence +4",
];

pub struct Ground {
    pub controller: Controller,
    pub scene: Scene,
    pub witness: Witness,
    /// Of the rollout, when it had settled.
    pub before: MeshRolloutStatus,
    /// Last, as with it the cluster is given back.
    stage: Stage,
}

/// Two steps, so fast that a test need not wait, or so slow that nothing passes by itself.
pub fn steps(hold: &str) -> Value {
    json!([{"weight": 50, "hold": hold}, {"weight": 100}])
}

impl Ground {
    /// Everything is up, and v1 is stable.
    pub async fn new(name: &str, steps: Value) -> Self {
        let mut stage = Stage::on_a_free_cluster().await.unwrap();
        let controller = stage.controller("sluice-controller-0").await.unwrap();
        controller.supervise(stage.tasks());
        Self::on(stage, controller, name, steps).await
    }

    /// The same with this controller.
    pub async fn on(stage: Stage, controller: Controller, name: &str, steps: Value) -> Self {
        let namespace = format!("{name}-{}", std::process::id());
        let scene = Scene::new(&stage, &namespace).await.unwrap();
        let witness = Witness::start(&scene);
        scene
            .govern(steps, json!({"keepCandidatePods": 0}))
            .await
            .unwrap();
        let before = scene.settled().await.unwrap();
        Self {
            controller,
            scene,
            witness,
            before,
            stage,
        }
    }

    /// Another rollout under the same operator, settled on v1.
    pub async fn another(&self, name: &str, steps: Value) -> Scene {
        let namespace = format!("{name}-{}", std::process::id());
        let scene = Scene::new(&self.stage, &namespace).await.unwrap();
        scene.govern(steps, json!({})).await.unwrap();
        scene.settled().await.unwrap();
        scene
    }

    /// The serving replica.
    pub fn serving(&self) -> &Process {
        &self.stage.serving
    }

    pub fn layer(&self) -> &Layer {
        &self.controller.layer
    }

    /// Waits until a phase is reached.
    pub async fn phase(&self, phase: &str) -> MeshRolloutStatus {
        let is_it = |status: &MeshRolloutStatus| status.phase.as_deref() == Some(phase);
        self.scene.until_status(phase, is_it).await.unwrap()
    }

    /// Waits until the rollout has ended so, and every proxy follows.
    pub async fn ended(&self, outcome: &str) -> MeshRolloutStatus {
        let is_it = |status: &MeshRolloutStatus| {
            let newest = status.history.first();
            let is_over = matches!(status.phase.as_deref(), Some("Idle" | "Rejected"));
            is_over && newest.is_some_and(|ended| ended.outcome == outcome)
        };
        let status = self.scene.until_status(outcome, is_it).await.unwrap();
        self.scene.followed().await.unwrap();
        status
    }

    /// Waits until only stable's ReplicaSet is there.
    pub async fn candidate_gone(&self) {
        until("the candidate to be gone", async || {
            Ok((self.scene.sets().await?.len() == 1).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until the Deployment is an ordinary one again.
    pub async fn released(&self) {
        until("the Deployment to be released", async || {
            let spec = self.scene.deployment().await?.spec.unwrap_or_default();
            Ok((!spec.paused.unwrap_or_default()).then_some(()))
        })
        .await
        .unwrap();
    }

    /// The candidate's share at each proxy, percent.
    pub fn candidate_shares(&self) -> Vec<u64> {
        let proxies = self.scene.proxies.iter();
        proxies.map(|proxy| proxy.held().weight).collect()
    }

    /// Writes about the scene that were carried out.
    pub fn applied(&self) -> Vec<Write> {
        let writes = self.layer().writes().into_iter();
        let ours = |write: &Write| write.call.namespace == self.scene.namespace;
        writes
            .filter(|write| write.applied() && ours(write))
            .collect()
    }

    /// What the states have said, retries counted once.
    pub fn states(&self) -> Vec<String> {
        let mut told = by_object(&self.scene.namespace, &self.layer().writes());
        told.remove("meshrollout").unwrap_or_default()
    }

    /// How many writes of the candidate ReplicaSet did this.
    pub fn sets(&self, what: &str) -> usize {
        let told = by_object(&self.scene.namespace, &self.layer().writes());
        let sets = told.get("replicaset").into_iter().flatten();
        sets.filter(|deed| deed.starts_with(what)).count()
    }

    /// Nothing was wrong at any revision, and nobody panicked.
    pub async fn close(self) {
        self.close_despite(|_| false).await;
    }

    /// The same where one name has had two lives, whose states do not follow from each other.
    pub async fn close_of_two_lives(self) {
        self.close_despite(|wrong| !wrong.contains("ready")).await;
    }

    /// The same but for what the test itself has made wrong.
    pub async fn close_despite(self, is_ours: impl Fn(&str) -> bool) {
        // What the apiserver has told by now is on its way to the witness.
        sleep(Duration::from_millis(300)).await;
        let mut wrongs = self.witness.verdict();
        wrongs.retain(|wrong| !is_ours(wrong));
        assert_eq!(wrongs, [""; 0]);
        assert!(
            !self.controller.process.log().contains("panicked"),
            "{}",
            self.controller.process.log()
        );
        self.scene.remove().await;
    }
}

/// Holds for all of this time, looked at again and again.
pub async fn throughout(time: Duration, mut holds: impl AsyncFnMut() -> Result<bool>) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert!(
            holds().await.unwrap(),
            "no more after {:?}",
            began.elapsed()
        );
        sleep(Duration::from_millis(100)).await;
    }
}
