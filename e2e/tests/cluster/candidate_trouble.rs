//! A candidate in trouble: the message is the pod's own, stable serves on, and git or the
//! deadline ends it.

use serde_json::{Value, json};

use crate::{
    app::{TURNS_AT, deployment, podinfo, turn_bad, turncoat},
    busy::{APP, Setting, half, hurried},
    node::{self, say, wait_until},
    place::{Place, within},
};

const REPLICAS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_never_become_ready_are_named_and_the_deadline_ends_it() {
    within("sluice-never-ready", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let stable = place.settled(APP).await.stable;
        let from = busy.now();
        place.apply(&flagged(&["--unready"])).await;
        place
            .reconciling("containers with unready status: [podinfo]")
            .await;
        place.apply(&hurried("1s")).await;
        let why = place.rejected().await;
        assert!(why.contains("the deadline of 1 s is over"), "{why}");
        assert!(why.contains("unready status: [podinfo]"), "{why}");
        assert_eq!(busy.most_weight(from), 0);
        assert_eq!(place.settled_rejected().await, stable);
        nothing_is_left(place).await;
        fix_forward(place).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_crash_are_named_with_how_they_ended_and_a_fix_replaces_them() {
    within("sluice-crash", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let from = busy.now();
        place.apply(&flagged(&["--no-such-flag"])).await;
        place.reconciling("CrashLoopBackOff").await;
        place.reconciling("exit code 2").await;
        let told = place.event(APP, "CandidatePods").await;
        assert!(
            told.contains("container podinfo: CrashLoopBackOff"),
            "{told}"
        );
        assert_eq!(busy.most_weight(from), 0);
        fix_forward(place).await;
        let events = place.events().await;
        let told = events
            .iter()
            .filter(|e| e.reason.as_deref() == Some("CandidatePods"));
        assert!(
            told.count() <= 3,
            "it is said when it changes, not again and again"
        );
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_run_out_of_memory_are_named_and_a_revert_ends_it() {
    within("sluice-oom", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let stable = place.settled(APP).await.stable;
        let from = busy.now();
        let mut hungry = flagged(&["--stress-memory=300"]);
        hungry["spec"]["template"]["spec"]["containers"][0]["resources"] =
            json!({"limits": {"memory": "64Mi"}});
        place.apply(&hungry).await;
        place.reconciling("OOMKilled").await;
        assert_eq!(busy.most_weight(from), 0);
        place.apply(&deployment(APP, "v1", REPLICAS)).await;
        assert_eq!(place.settled(APP).await.stable, stable);
        nothing_is_left(place).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_beyond_the_quota_are_waited_for_with_the_quotas_own_words() {
    within("sluice-quota", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let from = busy.now();
        // The gateway and the stable pods, and none beside.
        place.apply(&quota(1 + REPLICAS)).await;
        place.apply(&deployment(APP, "v2", REPLICAS)).await;
        place.reconciling("exceeded quota: pods").await;
        busy.goes_on().await;
        assert_eq!(busy.most_weight(from), 0);
        let events = place.events().await;
        let told = |e: &&k8s_openapi::api::events::v1::Event| {
            e.note
                .as_deref()
                .unwrap_or_default()
                .contains("exceeded quota")
                && e.regarding
                    .as_ref()
                    .is_some_and(|r| r.kind.as_deref() == Some("MeshRollout"))
        };
        let said = events.iter().filter(told).count();
        assert!((1..=2).contains(&said), "said {said} times");
        place.apply(&quota(1 + 2 * REPLICAS)).await;
        let look = place
            .until(APP, "v2 at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        assert!(!look.verdict.contains("quota"), "{look:?}");
        place.promote(APP, &look.candidate).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_start_slowly_get_no_weight_before_they_are_ready() {
    within("sluice-slow-start", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let from = busy.now();
        let mut slow = deployment(APP, "v2", REPLICAS);
        slow["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["initialDelaySeconds"] =
            json!(8);
        place.apply(&slow).await;
        place.reconciling("0 of 1 candidate pods").await;
        assert_eq!(busy.most_weight(from), 0);
        let look = place
            .until(APP, "v2 at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        let waited = busy
            .since(from)
            .into_iter()
            .find(|(_, look)| look.weight > 0);
        let waited = waited.unwrap().0 - from;
        assert!(waited.as_secs() >= 8, "{waited:?}");
        assert!(look.verdict.is_empty(), "{look:?}");
        place.promote(APP, &look.candidate).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_are_failures_and_end_the_candidate() {
    within("sluice-hang", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let stable = place.settled(APP).await.stable;
        let mut hanging = flagged(&[
            "--random-delay",
            "--random-delay-min=60",
            "--random-delay-max=61",
        ]);
        // The delay is in the way of podinfo's own health answers too.
        hanging["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
            json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1});
        place.apply(&hanging).await;
        let why = place.rejected().await;
        assert!(why.contains("failed"), "{why}");
        assert_eq!(place.settled_rejected().await, stable);
        let rejected = place.status(APP).await.history[0].revision.clone();
        let asked = busy.now();
        place
            .until(APP, "off traffic", |look| look.weight == 0 && look.applied)
            .await;
        busy.goes_on().await;
        nothing_is_left(place).await;
        say(&format!("gone after {:?}", busy.now() - asked));
        let failed = busy.end_with_failures_of(&rejected).await;
        assert!((1..60).contains(&failed), "{failed} requests failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_pod_that_crashes_in_mid_step_has_no_weight_until_it_is_back() {
    within("sluice-crash-later", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        place.apply(&long_hold()).await;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        let pod = place.tried_pods(&revision).await.remove(0);
        let from = busy.now();
        place.panic(&pod).await;
        place.event(APP, "CapacityLost").await;
        place
            .until(APP, "back at its first step", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        assert!(busy.since(from).iter().any(|(_, look)| look.weight == 0));
        assert_eq!(
            place.tried_pods(&revision).await,
            [pod],
            "it is the same pod"
        );
        busy.goes_on().await;
        place.promote(APP, &revision).await;
        // Its container ended without a word: what it had in hand is lost with it.
        let failed = busy.end_with_failures_of(&revision).await;
        assert!(failed < 8, "{failed} requests failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_pod_of_two_is_named_and_gets_nothing_until_it_is_deleted() {
    within("sluice-bad-pod", true, async |place| {
        let replicas = 2 * REPLICAS;
        let setting = Setting {
            path: TURNS_AT,
            ..Setting::of(turncoat(APP, "v1", replicas))
        };
        let busy = place.busy_with(&setting).await;
        place.apply(&half()).await;
        let revision = place.try_out_at(50, &turncoat(APP, "v2", replicas)).await;
        busy.goes_on_for(2).await;
        let tried = place.tried_pods(&revision).await;
        let [bad, good] = &tried[..] else {
            panic!("half of {replicas} pods: {tried:?}");
        };
        turn_bad(bad);
        let message = place.condition(APP, "PodFault", "True").await;
        assert!(message.contains(bad.as_str()), "{message}");
        wait_until("it to get nothing more", async || {
            let from = busy.now();
            busy.goes_on_for(2).await;
            Ok(busy.traffic.answered_by(bad, from) == 0)
        })
        .await;
        let from = busy.now();
        busy.goes_on_for(2).await;
        assert!(
            busy.traffic.answered_by(good, from) > 0,
            "the other one serves"
        );
        let look = place.until(APP, "half", |look| look.weight == 50).await;
        assert_eq!(look.phase, "Observing", "the revision is not taken back");
        place.delete_pod(bad).await;
        let over = place.event(APP, "PodFaultOver").await;
        assert!(over.contains(bad.as_str()), "{over}");
        place.promote(APP, &revision).await;
        let failed = busy.end_with_failures_of(&revision).await;
        assert!((1..60).contains(&failed), "{failed} requests failed");
    })
    .await;
}

fn flagged(flags: &[&str]) -> Value {
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    podinfo(APP, REPLICAS, &flags)
}

fn quota(pods: i32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods"},
        "spec": {"hard": {"pods": pods.to_string()}},
    })
}

fn long_hold() -> Value {
    let mut rollout = hurried("2h");
    rollout["spec"]["analysis"]["hold"] = json!("1h");
    rollout
}

/// The next version gets through.
async fn fix_forward(place: &Place) {
    place.apply(&hurried("2h")).await;
    place.apply(&deployment(APP, "fixed", REPLICAS)).await;
    let look = place
        .until(APP, "the fix to have weight", |look| look.weight > 0)
        .await;
    assert!(look.verdict.is_empty(), "{look:?}");
    place.promote(APP, &look.candidate).await;
    nothing_is_left(place).await;
}

/// Only the stable revision's ReplicaSet has pods, or is ours.
async fn nothing_is_left(place: &Place) {
    wait_until("the candidate to be gone", async || {
        let pods = place.pods(&format!("app={APP}")).await;
        let count = pods
            .iter()
            .filter(|pod| !crate::place::is_going(pod))
            .count();
        Ok(count == usize::try_from(REPLICAS).unwrap())
    })
    .await;
}

impl Place {
    /// The stable revision while another is rejected: all of it serves.
    async fn settled_rejected(&self) -> String {
        let look = self
            .until(APP, "Rejected at weight 0", |look| {
                look.phase == "Rejected" && look.weight == 0
            })
            .await;
        self.wait_until_ready(APP, REPLICAS).await;
        look.stable
    }

    /// Ends a pod's container as a crash does.
    async fn panic(&self, pod: &str) {
        let namespace = &self.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9898/proxy/panic");
        // It ends before it answers.
        let _ = node::kubectl(&["get", "--raw", &path]).await;
    }
}
