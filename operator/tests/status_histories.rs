//! What GitOps tools read of whole rollouts: every status that the controller renders in them, in
//! virtual time, with what a tool should make of it. They are kept in
//! `e2e/tests/golden/statuses.jsonl`; `e2e/tests/gitops.rs` asks the tools. `UPDATE=1` writes them
//! anew.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../rollout/tests/world/mod.rs"]
mod world;

use std::{fs, path::Path};

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_crds::{FailureAction, MeshRolloutSpec, MeshRolloutStatus, Pause, Step};
use sluice_operator::controller::status::{
    Difference, Fact, Shown, difference, render, with_hindrance,
};
use sluice_rollout::{
    conditions::conditions,
    observation::{Observation, Workload},
    project::project,
    state::{PauseReason, Phase, State},
};
use world::{World, policy};

/// A workload that is missing is waited for this long, in ms.
const PATIENCE: i64 = 120_000;

/// A rollout's life as those see it who read the MeshRollout alone.
struct Life {
    story: &'static str,
    world: World,
    began: i64,
    generation: i64,
    status: Option<MeshRolloutStatus>,
    missing_since: Option<i64>,
    proxies_stand_still: bool,
    hindrance: Option<&'static str>,
    deleting: bool,
    lines: Vec<Value>,
}

/// What kstatus and Argo CD should say.
type Verdicts = (&'static str, &'static str);

impl Life {
    /// The first deployment, until its pods are ready.
    fn begin(story: &'static str, change: impl FnOnce(&mut MeshRolloutSpec)) -> Self {
        let mut world = World::new(policy(change));
        world.state = State::default();
        world.starting = true;
        let mut life = Self {
            story,
            began: world.now,
            world,
            generation: 1,
            status: None,
            missing_since: None,
            proxies_stand_still: false,
            hindrance: None,
            deleting: false,
            lines: Vec::new(),
        };
        life.record();
        life.run(3);
        life.world.starting = false;
        life.run(3);
        life
    }

    fn seen(&self) -> Observation {
        let mut seen = self.world.seen();
        if self.missing_since.is_some() {
            seen.workload = Workload::Missing;
        }
        seen
    }

    /// One reconcile as the controller does it, and a second of the cluster.
    fn second(&mut self) {
        let before = self.expected();
        let written = self.reconcile();
        if written || self.expected() != before {
            self.record();
        }
        let desired = project(&self.world.policy, &self.world.state, &self.seen());
        self.world.apply(&desired);
        let applied = self.world.applied_fence;
        self.world.cluster();
        if self.proxies_stand_still {
            self.world.applied_fence = applied;
        }
        self.world.now += 1000;
    }

    /// Whether the status was written. Figures alone tell a tool nothing.
    fn reconcile(&mut self) -> bool {
        let (seen, now) = (self.seen(), self.world.now);
        let decision = self.world.decide(&seen);
        let facts = conditions(Ok(&self.world.policy), &decision.state, &seen, now);
        let facts = facts.into_iter().map(Fact::from).collect();
        let shown = Shown {
            policy: Some(&self.world.policy),
            state: &decision.state,
            seen: &seen,
            facts: with_hindrance(facts, self.hindrance),
            generation: self.generation,
            now: Timestamp::from_millisecond(now).unwrap(),
        };
        let next = render(shown, &self.status.clone().unwrap_or_default()).unwrap();
        self.world.store(decision);
        let written = difference(self.status.as_ref(), &next) == Difference::Substance;
        if written {
            self.status = Some(next);
        }
        written
    }

    fn run(&mut self, seconds: u32) {
        (0..seconds).for_each(|_| self.second());
    }

    fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..600 {
            if holds(&self.world) {
                return;
            }
            self.second();
        }
        panic!("{}: no {what} in ten minutes", self.story);
    }

    /// Git changes the MeshRollout itself.
    fn edit(&mut self, change: impl FnOnce(&mut MeshRolloutSpec)) {
        self.world.policy = policy(change);
        self.generation += 1;
        self.record();
    }

    /// What is true, whatever the status says of it.
    fn expected(&self) -> Verdicts {
        let observed = self.status.as_ref().and_then(|s| s.observed_generation);
        if self.deleting {
            return ("Terminating", "Progressing");
        }
        if observed != Some(self.generation) {
            return ("InProgress", "Progressing");
        }
        if self.is_hopeless() {
            return ("Failed", "Degraded");
        }
        if self.is_done() {
            return ("Current", "Healthy");
        }
        if self.waits_for_a_person() {
            return ("InProgress", "Suspended");
        }
        ("InProgress", "Progressing")
    }

    /// Nothing gets better unless somebody acts.
    fn is_hopeless(&self) -> bool {
        let (state, git) = (&self.world.state, &self.world.git);
        let condemned = state.candidate.as_ref().filter(|c| c.condemned);
        let late = |since| self.world.now >= since + PATIENCE;
        condemned.is_some_and(|c| c.arm.revision == *git)
            || state.rejected.iter().any(|r| r.revision == *git)
            || self.missing_since.is_some_and(late)
    }

    fn is_done(&self) -> bool {
        let world = &self.world;
        *world.phase() == Phase::Idle
            && world.stable() == world.git
            && !world.starting
            && self.missing_since.is_none()
            && self.hindrance.is_none()
    }

    fn waits_for_a_person(&self) -> bool {
        matches!(
            self.world.phase(),
            Phase::Paused {
                why: PauseReason::Step | PauseReason::Command,
                ..
            }
        )
    }

    fn record(&mut self) {
        let mut metadata =
            json!({"name": "reviews", "namespace": "bookinfo", "generation": self.generation});
        if self.deleting {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        let (kstatus, argo) = self.expected();
        self.lines.push(json!({
            "story": self.story,
            "second": (self.world.now - self.began) / 1000,
            "kstatus": kstatus,
            "argo": argo,
            "object": {
                "apiVersion": "sluice.dev/v1alpha1",
                "kind": "MeshRollout",
                "metadata": metadata,
                "status": self.shown_status(),
            },
        }));
    }

    /// Without the state, which belongs to the controller.
    fn shown_status(&self) -> Value {
        let Some(status) = &self.status else {
            return status_at_first();
        };
        let mut status = serde_json::to_value(status).unwrap();
        status.as_object_mut().unwrap().remove("state");
        status
    }
}

/// What the apiserver gives an object that the controller has not seen.
fn status_at_first() -> Value {
    let crds = sluice_crds::yaml::all();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == "MeshRollout");
    let schema = serde_json::to_value(&crd.unwrap().spec.versions[0].schema).unwrap();
    schema["openAPIV3Schema"]["properties"]["status"]["default"].clone()
}

fn promoted() -> Life {
    let mut life = Life::begin("promoted", |_| {});
    life.world.commit("v2");
    life.run(120);
    assert_eq!(life.world.stable(), "v2");
    life
}

fn rejected_and_reverted() -> Life {
    let mut life = Life::begin("rejected, then reverted", |_| {});
    life.world.bad.push("v2".to_owned());
    life.world.commit("v2");
    life.run(60);
    life.world.commit("v1");
    life.run(10);
    life
}

fn rejected_while_a_proxy_stands_still() -> Life {
    let mut life = Life::begin("rejected while a proxy stands still", |_| {});
    life.world.bad.push("v2".to_owned());
    life.world.commit("v2");
    life.until("verdict", |world| {
        matches!(world.phase(), Phase::RollingBack { .. })
    });
    life.proxies_stand_still = true;
    life.run(5);
    life.world.commit("v1");
    life.run(3);
    life.proxies_stand_still = false;
    life.run(10);
    life
}

fn reverted_in_the_middle() -> Life {
    let mut life = Life::begin("reverted in the middle", |_| {});
    life.world.commit("v2");
    life.run(15);
    life.world.commit("v1");
    life.run(10);
    life
}

fn fixed_in_the_middle() -> Life {
    let mut life = Life::begin("fixed in the middle", |_| {});
    life.world.commit("v2");
    life.run(15);
    life.world.commit("v3");
    life.run(150);
    assert_eq!(life.world.stable(), "v3");
    life
}

fn fixed_after_a_rejection() -> Life {
    let mut life = Life::begin("fixed after a rejection", |_| {});
    life.world.bad.push("v2".to_owned());
    life.world.commit("v2");
    life.run(30);
    life.world.commit("v3");
    life.run(120);
    assert_eq!(life.world.stable(), "v3");
    life
}

fn paused() -> Life {
    let pause = Step {
        pause: Some(Pause { duration: None }),
        ..Step::default()
    };
    let mut life = Life::begin("paused by a step, then by command", |spec| {
        spec.strategy.steps.insert(1, pause)
    });
    life.world.commit("v2revision");
    life.until("pause", |world| {
        matches!(world.phase(), Phase::Paused { .. })
    });
    life.run(30);
    life.world.command = "resume@v2revision".to_owned();
    life.run(5);
    life.world.command = "pause@v2revision".to_owned();
    life.run(5);
    life.world.command = "resume@v2revision".to_owned();
    life.run(5);
    life
}

fn shared_outage() -> Life {
    let mut life = Life::begin("shared outage", |_| {});
    life.world.commit("v2");
    life.run(15);
    life.world.shared_outage = true;
    life.run(20);
    life.world.shared_outage = false;
    life.run(20);
    life
}

fn condemned_and_aborted() -> Life {
    let mut life = Life::begin("condemned with onFailure Pause, then aborted", |spec| {
        spec.on_failure.action = FailureAction::Pause
    });
    life.world.bad.push("v2revision".to_owned());
    life.world.commit("v2revision");
    life.run(40);
    life.world.command = "abort@v2revision".to_owned();
    life.run(15);
    life
}

fn workload_missing() -> Life {
    let mut life = Life::begin("workload missing", |_| {});
    life.missing_since = Some(life.world.now);
    life.run(130);
    life.missing_since = None;
    life.run(5);
    life
}

fn spec_edited_in_the_middle() -> Life {
    let mut life = Life::begin("spec edited in the middle, then retried", |_| {});
    life.edit(|spec| spec.deadline = "3h".to_owned());
    life.run(3);
    life.world.bad.push("v2".to_owned());
    life.world.commit("v2");
    life.run(15);
    life.edit(|spec| spec.deadline = "4h".to_owned());
    life.run(20);
    life.world.bad.clear();
    life.edit(|spec| spec.retry = "now".to_owned());
    life.run(120);
    assert_eq!(life.world.stable(), "v2");
    life
}

fn hindered() -> Life {
    let mut life = Life::begin("hindered", |_| {});
    life.hindrance = Some("the list of the webhook sluice-hold cannot be written");
    life.run(3);
    life.hindrance = None;
    life.run(3);
    life
}

fn deleted_in_the_middle() -> Life {
    let mut life = Life::begin("deleted in the middle", |_| {});
    life.world.commit("v2");
    life.run(15);
    life.deleting = true;
    life.record();
    life
}

#[test]
fn the_statuses_of_whole_rollouts_are_those_that_the_tools_were_asked_about() {
    let lives = [
        promoted(),
        rejected_and_reverted(),
        rejected_while_a_proxy_stands_still(),
        reverted_in_the_middle(),
        fixed_in_the_middle(),
        fixed_after_a_rejection(),
        paused(),
        shared_outage(),
        condemned_and_aborted(),
        workload_missing(),
        spec_edited_in_the_middle(),
        hindered(),
        deleted_in_the_middle(),
    ];
    let lines = lives.into_iter().flat_map(|life| life.lines);
    let told: String = lines.map(|line| format!("{line}\n")).collect();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/tests/golden/statuses.jsonl");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &told).unwrap();
    }
    assert!(
        fs::read_to_string(&golden).unwrap_or_default() == told,
        "statuses are no longer those in {}: look at the difference after \
         `UPDATE=1 cargo test -p sluice-operator --test status_histories`, then `cargo xtask test --only api`",
        golden.display()
    );
}
