//! Reports that are not true, and failures that are not the candidate's alone.

use std::time::Duration;

use sluice_crds::MeshRolloutStatus;
use sluice_e2e::faults::{proxy::Traffic, scene::Scene};

use crate::ground::{Ground, steps, throughout};

/// The message of a condition with this reason.
fn told(status: &MeshRolloutStatus, reason: &str) -> Option<String> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|condition| condition.reason == reason);
    found.map(|condition| condition.message.clone())
}

async fn until_told(ground: &Ground, reason: &str) -> String {
    let what = format!("the status to say {reason}");
    let is_told = |status: &MeshRolloutStatus| told(status, reason).is_some();
    let status = ground.scene.until_status(&what, is_told).await.unwrap();
    told(&status, reason).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_proxy_that_makes_up_failures_pauses_the_rollout_and_is_named() {
    let ground = Ground::new("forger", steps("60s")).await;
    ground.scene.deploy("v2").await.unwrap();
    ground.phase("Observing").await;
    ground.scene.proxies[0].serve(Traffic {
        candidate_errors: 100,
        ..Scene::GOOD
    });
    let message = until_told(&ground, "Contested").await;
    assert!(message.contains("caller-0"), "{message}");
    throughout(Duration::from_secs(3), async || {
        let status = ground.scene.status().await?;
        Ok(status.phase.as_deref() == Some("Paused") && status.history.is_empty())
    })
    .await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_both_arms_pauses_the_rollout_which_goes_on_by_itself() {
    for errors in [20, 100] {
        let ground = Ground::new(&format!("outage-{errors}"), steps("4s")).await;
        ground.scene.deploy("v2").await.unwrap();
        ground.phase("Observing").await;
        ground.scene.serve(Traffic {
            candidate_errors: errors,
            stable_errors: errors,
            ..Scene::GOOD
        });
        until_told(&ground, "SharedOutage").await;
        throughout(Duration::from_secs(3), async || {
            let status = ground.scene.status().await?;
            Ok(status.weight <= 50 && status.history.is_empty())
        })
        .await;
        ground.scene.serve(Scene::GOOD);
        ground.ended("Promoted").await;
        ground.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_fails_above_sixty_percent_is_caught_by_a_step_down_to_fifty() {
    let ground = Ground::new("bears", steps("1s")).await;
    ground.scene.serve(Traffic {
        candidate_errors: 50,
        bears: 60,
        ..Scene::GOOD
    });
    ground.scene.deploy("v2").await.unwrap();
    let status = ground.ended("RolledBack").await;
    let why = "does not bear the load";
    assert!(status.verdict.contains(why), "{}", status.verdict);
    let states = ground.states();
    let at = |weight: &str| states.iter().filter(|state| state.contains(weight)).count();
    let first_down = states
        .iter()
        .position(|state| state.contains("at 100 %"))
        .map(|up| states[up..].iter().any(|state| state.contains("at 50 %")));
    assert_eq!(first_down, Some(true), "{states:#?}");
    assert!(at("at 100 %") > 1, "{states:#?}");
    ground.close().await;
}
