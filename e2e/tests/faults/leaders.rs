//! Fences: two replicas, one of which wakes up late or is cut off.

use std::time::Duration;

use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::json;
use sluice_crds::MeshRolloutStatus;
use sluice_e2e::faults::{
    cable::{Cable, Cut},
    history::Reader,
    rule::{Action, Rule},
    stage::{Controller, Stage, until},
};

use crate::ground::{Ground, PROMOTION, steps, throughout};

/// The one write in which the split gives v2 its first weight.
fn first_weight(namespace: &str, action: Action) -> Rule {
    let reader = Mutex::new(Reader::new(namespace));
    Rule::once(action, move |asked| {
        let deed = reader.lock().read(&asked.call, &asked.body);
        deed.is_some_and(|deed| deed.what.starts_with("stable 50 candidate 50"))
    })
}

/// Two replicas, the first of which leads.
async fn two() -> (Stage, Controller, Controller) {
    let stage = Stage::on_a_free_cluster().await.unwrap();
    let first = stage.controller("sluice-controller-first").await.unwrap();
    leads(&first).await;
    let second = stage.controller("sluice-controller-second").await.unwrap();
    (stage, first, second)
}

async fn leads(controller: &Controller) {
    until("it to lead", async || {
        Ok(controller
            .process
            .log()
            .contains("this process leads")
            .then_some(()))
    })
    .await
    .unwrap();
}

/// Case 18.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_after_its_status_write_changes_nothing_when_it_wakes() {
    let (stage, first, second) = two().await;
    let ground = Ground::on(stage, first, "wakes", steps("60s")).await;
    ground
        .layer()
        .add(first_weight(&ground.scene.namespace, Action::Stop));
    ground.scene.deploy("v2").await.unwrap();
    until("the first leader to be stopped", async || {
        Ok((ground.layer().fired() == 1).then_some(()))
    })
    .await
    .unwrap();
    leads(&second).await;
    ground.phase("Observing").await;
    ground.scene.candidate_fails(50);
    ground.ended("RolledBack").await;
    ground.candidate_gone().await;

    let versions = async || {
        let (status, split) = (
            ground.scene.api::<sluice_crds::MeshRollout>(),
            ground.scene.split().await?,
        );
        let deployment = ground.scene.deployment().await?;
        let rollout = status.get("web").await?;
        // Figures may be told again; what was decided may not.
        let state = rollout.status.and_then(|status| status.state);
        anyhow::Ok((state, split.spec, deployment.resource_version()))
    };
    let before = versions().await.unwrap();
    ground.layer().release();
    ground.controller.process.go_on().unwrap();
    until("the late write to be answered", async || {
        let writes = ground.layer().writes();
        let late = writes.iter().rev().find(|write| {
            write.call.resource == "trafficsplits" && write.call.subresource.is_empty()
        });
        Ok(late.and_then(|write| write.code))
    })
    .await
    .map(|code| assert_eq!(code, 409, "the late write carries what was read before"))
    .unwrap();
    until("it to notice", async || {
        Ok(ground
            .controller
            .process
            .log()
            .contains("does not lead any more")
            .then_some(()))
    })
    .await
    .unwrap();
    throughout(Duration::from_secs(2), async || {
        Ok(versions().await? == before)
    })
    .await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_followed_by_the_other_replica_within_its_lease() {
    let (stage, first, second) = two().await;
    let ground = Ground::on(stage, first, "heir", steps("500ms")).await;
    ground
        .layer()
        .add(first_weight(&ground.scene.namespace, Action::KillAfter));
    ground.scene.deploy("v2").await.unwrap();
    ground.ended("Promoted").await;
    ground.released().await;
    assert!(!ground.controller.process.runs(), "it was not started anew");
    let made = second
        .layer
        .writes()
        .into_iter()
        .chain(ground.layer().writes());
    let made = made.filter(|write| write.applied() && write.call.resource == "replicasets");
    let made = made.filter(|write| write.call.name.is_empty()).count();
    assert_eq!(made, 1, "one candidate was made");
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_proxies_say_does_not_arrive_and_no_step_passes_until_it_does() {
    cut_relay(
        "forth",
        Cut {
            forth: true,
            back: false,
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_leader_answers_does_not_arrive_and_no_step_passes_until_it_does() {
    cut_relay(
        "back",
        Cut {
            forth: false,
            back: true,
        },
    )
    .await;
}

/// The relay is cut while a step is observed, for longer than the step's hold. Whichever direction
/// is lost, a replica's word is as old as its last exchange with the leader.
async fn cut_relay(name: &str, cut: Cut) {
    let mut stage = Stage::on_a_free_cluster().await.unwrap();
    let controller = stage.controller("sluice-controller-0").await.unwrap();
    let relay = format!("{}:15013", controller.ip);
    let cable = Cable::to(relay.clone()).await.unwrap();
    // The address in the Lease becomes the cable's.
    controller.layer.rewrite(&relay, &cable.address);
    controller.supervise(stage.tasks());
    // What was told less than 5 s ago holds: the step is to be over after that.
    let ground = Ground::on(stage, controller, name, steps("7s")).await;
    ground.scene.deploy("v2").await.unwrap();
    let observed = ground.phase("Observing").await;
    cable.cut(cut);
    throughout(Duration::from_secs(10), async || {
        let status = ground.scene.status().await?;
        Ok((status.weight, status.fence) == (observed.weight, observed.fence))
    })
    .await;
    cable.cut(Cut::default());
    ground.ended("Promoted").await;
    ground.released().await;
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

/// Case 25.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_takes_no_news_holds_the_step_and_is_named() {
    let ground = Ground::new("deaf", steps("500ms")).await;
    let deaf = &ground.scene.proxies[1];
    deaf.be_deaf(true);
    ground.scene.deploy("v2").await.unwrap();
    let shifting = |status: &MeshRolloutStatus| status.weight == 50;
    ground
        .scene
        .until_status("the first weight", shifting)
        .await
        .unwrap();
    until("the split to name it", async || {
        let told = ground.scene.split().await?.status.unwrap_or_default();
        let is_named =
            told.behind == 1 && told.laggards.iter().any(|name| name.contains("caller-1"));
        Ok(is_named.then_some(()))
    })
    .await
    .unwrap();
    throughout(Duration::from_secs(2), async || {
        Ok(ground.scene.status().await?.phase.as_deref() == Some("Shifting"))
    })
    .await;
    deaf.be_deaf(false);
    ground.ended("Promoted").await;
    assert_eq!(ground.states()[..PROMOTION.len()], PROMOTION);
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_alone_is_cut_off_takes_a_bad_candidate_off_and_the_next_one_rolls_back() {
    let (stage, first, second) = two().await;
    let ground = Ground::on(stage, first, "alone", steps("60s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    ground.scene.followed().await.unwrap();
    ground.layer().add(Rule::always(Action::Drop, |_| true));
    ground.layer().end_watches();
    ground.scene.candidate_fails(50);
    until("the candidate to be off traffic", async || {
        let shares = ground.candidate_shares();
        Ok(shares.iter().all(|share| *share == 0).then_some(()))
    })
    .await
    .unwrap();
    assert!(
        !second.process.log().contains("this process leads"),
        "it is off before anybody else leads"
    );
    leads(&second).await;
    let status = ground.ended("RolledBack").await;
    let told = "while the apiserver did not answer";
    assert!(status.verdict.contains(told), "{}", status.verdict);
    ground.candidate_gone().await;
    let decided = async || {
        let rollout = ground.scene.status().await?;
        anyhow::Ok((rollout.state, ground.scene.split().await?.spec))
    };
    let before = decided().await.unwrap();
    ground.layer().heal();
    throughout(Duration::from_secs(3), async || {
        Ok(decided().await? == before)
    })
    .await;
    ground.close().await;
}

/// Case 4: the owner is in the very request that makes the candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_made_in_the_last_breath_goes_with_its_rollout() {
    let stage = Stage::on_a_free_cluster().await.unwrap();
    let controller = stage.controller("sluice-controller-0").await.unwrap();
    let ground = Ground::on(stage, controller, "orphan", steps("60s")).await;
    let is_creation = |asked: &sluice_e2e::faults::rule::Asked| {
        asked.call.resource == "replicasets" && asked.call.name.is_empty() && asked.call.is_write()
    };
    ground
        .layer()
        .add(Rule::once(Action::KillAfter, is_creation));
    ground.scene.deploy("v2").await.unwrap();
    until("the candidate to be made", async || {
        Ok((ground.scene.sets().await?.len() == 2).then_some(()))
    })
    .await
    .unwrap();
    let rollouts = ground.scene.api::<sluice_crds::MeshRollout>();
    rollouts.delete("web", &Default::default()).await.unwrap();
    until(
        "the candidate and the split to be gone, though the operator is dead",
        async || {
            let split = ground
                .scene
                .api::<sluice_crds::TrafficSplit>()
                .get_opt("web")
                .await?;
            Ok((split.is_none() && ground.scene.sets().await?.len() == 1).then_some(()))
        },
    )
    .await
    .unwrap();
    let held = ground.scene.deployment().await.unwrap().spec.unwrap();
    assert_eq!(
        (held.paused, json!(held.replicas)),
        (Some(true), json!(2)),
        "stable serves on"
    );
    ground.close().await;
}
