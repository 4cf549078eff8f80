//! Flux brings a fix while the version that it mends is still being let in.

use std::{cell::Cell, time::Duration};

use sluice_e2e::world;

use crate::{
    demo::{self, NAMESPACE, ROLLOUT, Traffic, rolled_out},
    git,
    node::{self, say, wait_until},
    place::Place,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fix_pushed_in_mid_rollout_takes_its_place_and_flux_is_ready_only_when_it_serves() {
    let client = node::client().await;
    let before = demo::settled(&client).await;
    let traffic = Traffic::start(100).await;
    let demo = Place {
        client: client.clone(),
        namespace: NAMESPACE.to_owned(),
    };

    let flawed = git::publish("A version that needs a fix");
    let first = demo
        .until(ROLLOUT, "the flawed version to get weight", |look| {
            look.weight > 0 && look.candidate != before.stable
        })
        .await;
    let fix = git::publish("The fix");
    let pushed = tokio::time::Instant::now();

    let is_over = Cell::new(false);
    let story = async {
        let fixed = demo
            .until(ROLLOUT, "the fix to get weight", |look| {
                look.weight > 0 && ![&before.stable, &first.candidate].contains(&&look.candidate)
            })
            .await;
        say(&format!(
            "the fix had its first weight {:.1} s after its push",
            pushed.elapsed().as_secs_f64()
        ));
        assert_eq!(
            fixed.stable, before.stable,
            "the flawed version never became stable"
        );
        demo.promote(ROLLOUT, &fixed.candidate).await;
        wait_until("Flux to be Ready with the fix", async || {
            let synced = git::synced(&client).await?;
            Ok(synced.why_not_ready.is_empty() && synced.done.ends_with(&fix))
        })
        .await;
        is_over.set(true);
        fixed.candidate
    };
    let flux = async {
        while !is_over.get() {
            let synced = git::synced(&client).await.unwrap();
            assert!(!synced.done.ends_with(&flawed), "Flux calls it done");
            if synced.done.ends_with(&fix) {
                let look = world::look(&client, NAMESPACE, ROLLOUT).await.unwrap();
                assert_ne!(
                    look.stable, before.stable,
                    "Flux calls the fix done: {look:?}"
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (fixed, ()) = tokio::join!(story, flux);

    let history = demo.status(ROLLOUT).await.history;
    let ends: Vec<(&str, &str)> = history
        .iter()
        .take(2)
        .map(|ended| (&*ended.revision, &*ended.outcome))
        .collect();
    assert_eq!(
        ends,
        [(&*fixed, "Promoted"), (&*first.candidate, "Replaced")]
    );
    rolled_out(&client, NAMESPACE, "frontend").await;
    traffic.end().await;
}
