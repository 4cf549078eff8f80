//! The apiserver is away in mid-step, and the candidate turns bad: nothing can be written, and it
//! is off traffic all the same.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sluice_e2e::world;

use crate::{
    app::podinfo,
    busy::{APP, Busy, Setting, half},
    node::{afterwards, say, start_apiserver, stop_apiserver, wait_until},
    place::within,
};

const REPLICAS: i32 = 2;
/// Seconds after which a leader's Lease has lapsed for certain.
const LAPSED: usize = 10;
/// From its first failure on a candidate is off traffic within this.
const SOON: Duration = Duration::from_secs(10);
/// What the load asks for: a file that the kubelet puts into every pod.
const PATH: &str = "/store/hosts";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_turns_bad_without_an_apiserver_is_off_traffic_in_seconds() {
    within("sluice-eject", true, async |place| {
        let setting = Setting {
            path: PATH,
            ..Setting::of(keeping("v1"))
        };
        let busy = place.busy_with(&setting).await;
        let stable = place.settled(APP).await.stable;
        place.apply(&half()).await;
        let revision = place.try_out_at(50, &keeping("v2")).await;
        let tried = place.tried_pods(&revision).await;
        let outage = async {
            stop_apiserver().await;
            busy.goes_on_for(LAPSED).await;
            let bad = busy.now();
            tried.iter().for_each(|pod| lose_files(pod));
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

/// [`APP`] serving files, in pods that can be found.
fn keeping(version: &str) -> Value {
    let flags = ["--data-path=/etc", &format!("--ui-message={version}")];
    let mut deployment = podinfo(APP, REPLICAS, &flags.map(str::to_owned));
    deployment["spec"]["template"]["spec"]["containers"][0]["env"] = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    deployment
}

/// Takes the files of a pod's application away; it answers 500 from now on.
fn lose_files(pod: &str) {
    let processes = world::processes(pod, &["/podinfo"]).unwrap();
    let root = format!("/proc/{}/root", processes[0]);
    fs::rename(format!("{root}/etc"), format!("{root}/lost")).unwrap();
}

/// Waits until a revision that has turned bad at this time answers nobody any more.
async fn off_traffic(busy: &Busy, revision: &str, bad: Duration) {
    wait_until("the candidate to be off traffic", async || {
        let from = busy.now();
        busy.goes_on_for(1).await;
        Ok(busy.answered_by(revision, from) == 0)
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
