//! Proxies that the control plane hears no more: named, and no step is passed without them.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use serde_json::{Value, json};
use sluice_crds::TrafficSplitStatus;

use crate::{
    app::{deployment, podinfo},
    busy::{APP, Setting, hurried},
    figures::Figures,
    mode_b::call,
    node::{afterwards, say, wait_until},
    place::{Place, within},
    proxy::Proxy,
};

const REPLICAS: i32 = 2;
const CALLER: &str = "caller";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_stands_still_is_named_and_the_step_waits_until_it_follows() {
    within("sluice-frozen", true, async |place| {
        let busy = place.busy(REPLICAS).await;
        let frozen = caller(place).await;
        place
            .apply(&steps(
                json!([{"weight": 10}, {"weight": 25}, {"weight": 100}]),
            ))
            .await;
        let revision = place.try_out(&deployment(APP, "v2", REPLICAS)).await;
        let stands_still = async {
            frozen.signal("-STOP").unwrap();
            place.command(APP, "skip", &revision).await;
            named(place, &frozen, "routes by fence", |split| split.behind > 0).await;
            let away = named(place, &frozen, "not heard of", |split| split.away == 1).await;
            say(&away);
            place.reconciling("to be heard of again").await;
            busy.goes_on_for(3).await;
            let look = place.until(APP, "its second step", |look| look.weight == 25);
            assert_eq!(look.await.phase, "Shifting", "the step waits");
        };
        let goes_on = async { frozen.signal("-CONT").unwrap() };
        afterwards(stands_still, goes_on).await;
        let moves = Instant::now();
        place
            .until(APP, "at its second step", |look| {
                look.phase == "Observing" && look.weight == 25
            })
            .await;
        say(&format!("it follows {:.1?} later", moves.elapsed()));
        place.promote(APP, &revision).await;
        busy.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_cut_off_from_the_control_plane_goes_back_to_stable_alone_and_follows_again() {
    within("sluice-cut-off", true, async |place| {
        let setting = Setting {
            gateways: 2,
            ..Setting::of(labelled("v1"))
        };
        let busy = place.busy_with(&setting).await;
        let [cut, other] = gateways(place).await;
        // Long enough for the cut to be noticed before the step could be passed.
        place
            .apply(&steps(
                json!([{"weight": 50, "hold": "20s"}, {"weight": 100, "hold": "1s"}]),
            ))
            .await;
        let revision = place.try_out_at(50, &labelled("v2")).await;
        let cut_off = async {
            let began = Instant::now();
            cut.cut_off().unwrap();
            say(&named(place, &cut, "not heard of", |split| split.away == 1).await);
            let last = last_tried(place, &cut).await;
            let held = last.duration_since(began);
            say(&format!(
                "{} sent the candidate requests for {held:.1?} after it was cut off",
                cut.pod
            ));
            // A weight on an unpromoted arm is a lease of a minute.
            assert!((50..70).contains(&held.as_secs()), "{held:?}");
            let before = tried(place, &other).await;
            busy.goes_on_for(3).await;
            assert!(tried(place, &other).await > before, "the other goes on");
            let message = place.condition(APP, "Reconciling", "True").await;
            assert!(message.contains("to be heard of again"), "{message}");
            let look = place.until(APP, "half", |look| look.weight == 50).await;
            assert_eq!(look.phase, "Observing", "the step is not passed without it");
        };
        afterwards(cut_off, async { cut.reconnect().unwrap() }).await;
        let back = Instant::now();
        let before = tried(place, &cut).await;
        wait_until("the gateway to send the candidate its share", async || {
            Ok(tried(place, &cut).await > before)
        })
        .await;
        say(&format!("it follows {:.1?} later", back.elapsed()));
        place.promoted(APP, &revision).await;
        busy.end().await;
    })
    .await;
}

/// The MeshRollout of [`APP`] with these steps; one that names no hold lasts.
fn steps(steps: Value) -> Value {
    let mut rollout = hurried("2h");
    rollout["spec"]["strategy"] = json!({"steps": steps});
    rollout["spec"]["analysis"]["hold"] = json!("1h");
    rollout
}

/// [`APP`] in pods whose version proxies count requests by.
fn labelled(version: &str) -> Value {
    let mut deployment = deployment(APP, version, REPLICAS);
    deployment["spec"]["template"]["metadata"]["labels"]["version"] = json!(version);
    deployment
}

/// The sidecar of a pod that calls [`APP`], and has done so once: from then on it routes it.
async fn caller(place: &Place) -> Proxy {
    let url = format!("--backend-url=http://{APP}:9898/echo");
    place.apply(&podinfo(CALLER, 1, &[url])).await;
    let pod = place
        .ready_pods(&format!("app={CALLER}"), 1)
        .await
        .remove(0);
    call(&place.client, &place.namespace, &pod).await.unwrap();
    let kind = "sidecar";
    Proxy { pod, kind }
}

async fn gateways(place: &Place) -> [Proxy; 2] {
    let pods = place.pods("app=gateway").await;
    let pods: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
    let pods: [String; 2] = pods.try_into().unwrap();
    let kind = "gateway";
    pods.map(|pod| Proxy { pod, kind })
}

/// Waits until the split names this proxy with this reason; what it says of it.
async fn named(
    place: &Place,
    proxy: &Proxy,
    why: &str,
    counted: impl Fn(&TrafficSplitStatus) -> bool,
) -> String {
    let who = format!("{}/{}: ", place.namespace, proxy.pod);
    let mut said = String::new();
    wait_until(&format!("the split to say `{who}{why}`"), async || {
        let status = place.split(APP).await.status.unwrap_or_default();
        let mut laggards = status.laggards.iter();
        let found = laggards.find(|said| said.starts_with(&who) && said.contains(why));
        said = found.cloned().unwrap_or_default();
        Ok(found.is_some() && counted(&status))
    })
    .await;
    said
}

/// How many requests a proxy has sent to v2.
async fn tried(place: &Place, proxy: &Proxy) -> f64 {
    let figures = Figures::of(&place.client, &place.namespace, &proxy.pod, 15020)
        .await
        .unwrap();
    let labels = [("reporter", "source"), ("destination_version", "v2")];
    figures.sum("istio_requests_total", &labels)
}

/// Waits until a proxy sends the candidate nothing any more; when it last did.
async fn last_tried(place: &Place, proxy: &Proxy) -> Instant {
    let mut last = (tried(place, proxy).await, Instant::now());
    wait_until("the candidate to get nothing from it", async || {
        let now = tried(place, proxy).await;
        if now > last.0 {
            last = (now, Instant::now());
        }
        Ok(last.1.elapsed() > Duration::from_secs(4))
    })
    .await;
    last.1
}
