//! The apiserver is away in mid-step, and the candidate turns bad: nothing can be written, and it
//! is off traffic all the same.

use std::time::{Duration, Instant};

use crate::{
    app::{TURNS_AT, turn_bad, turncoat},
    busy::{APP, Busy, Setting, half},
    node::{afterwards, say, start_apiserver, stop_apiserver, wait_until},
    place::within,
};

const REPLICAS: i32 = 2;
/// Seconds after which a leader's Lease has lapsed for certain.
const LAPSED: usize = 10;
/// From its first failure on a candidate is off traffic within this.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_turns_bad_without_an_apiserver_is_off_traffic_in_seconds() {
    within("sluice-eject", true, async |place| {
        let setting = Setting {
            path: TURNS_AT,
            ..Setting::of(turncoat(APP, "v1", REPLICAS))
        };
        let busy = place.busy_with(&setting).await;
        let stable = place.settled(APP).await.stable;
        place.apply(&half()).await;
        let revision = place.try_out_at(50, &turncoat(APP, "v2", REPLICAS)).await;
        let tried = place.tried_pods(&revision).await;
        let outage = async {
            stop_apiserver().await;
            busy.goes_on_for(LAPSED).await;
            let bad = busy.now();
            tried.iter().for_each(|pod| turn_bad(pod));
            off_traffic(&busy, &revision, bad).await;
            let from = busy.now();
            busy.goes_on_for(3).await;
            assert_eq!(busy.answered_by(&revision, from), 0, "it stays off traffic");
        };
        let began = Instant::now();
        afterwards(outage, start_apiserver(&place.client)).await;
        say(&format!("the outage lasted {:.0?}", began.elapsed()));
        let why = place.rejected().await;
        let told = "while the apiserver did not answer";
        assert!(why.contains("failed") && why.contains(told), "{why}");
        let look = place.until(APP, "off traffic", |look| look.weight == 0);
        assert_eq!(look.await.stable, stable);
        let failed = busy.end_with_failures_of(&revision).await;
        assert!(failed > 0, "it did turn bad");
    })
    .await;
}

/// Waits until a revision that has turned bad at this time answers nobody any more.
async fn off_traffic(busy: &Busy, revision: &str, bad: Duration) {
    wait_until("the candidate to be off traffic", async || {
        let from = busy.now();
        busy.goes_on_for(1).await;
        let answered = busy.answered_by(revision, from);
        let failed = busy.failures_since(from).len();
        anyhow::ensure!(
            answered == 0,
            "it answers {answered} in a second, {failed} with errors"
        );
        Ok(true)
    })
    .await;
    let failed = busy.failures_since(bad);
    let (first, last) = (failed.first().unwrap(), failed.last().unwrap());
    let took = *last - *first;
    say(&format!(
        "{} failures, the last one {took:.2?} after the first",
        failed.len()
    ));
    assert!(took < SOON, "{took:?}");
}
