//! A candidate turns bad while the apiserver is away: the leader takes it off traffic all the
//! same, and the decision is written when the apiserver is back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use serde_json::{Value, json};
use sluice_e2e::{
    ledger::{Entry, Ledger, Outcome},
    load::ANSWERED_BY,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    app::{podinfo, rollout, service},
    gateway,
    node::{afterwards, say, wait_until, xtask},
    place::within,
};

const APP: &str = "shop";
/// Requests a second, a fifth of them to the candidate.
const RATE: usize = 100;
/// NodePort of this test's gateway.
const GATEWAY_PORT: u16 = 30081;
/// Longer than a leader leads without renewing its Lease.
const LAPSED: usize = 10 * RATE;
/// So many answers in a row without one of the candidate mean that it gets nothing.
const NONE: usize = 2 * RATE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_turns_bad_while_the_apiserver_is_away_gets_no_more_requests() {
    within("sluice-eject", true, async |place| {
        let (good, bad) = ("/data", "/nowhere");
        let steps = json!([{"weight": 20, "hold": "1h"}, {"weight": 100}]);
        place.apply(&service(APP)).await;
        place.apply(&writer("v1", good)).await;
        let spec = json!({"workload": {"name": APP}, "strategy": {"steps": steps}});
        place.apply(&rollout(APP, spec)).await;
        place.wait_until_ready(APP, 2).await;
        let stable = place.settled(APP).await.stable;
        let gateway = gateway::start(place, APP, GATEWAY_PORT).await;

        place.apply(&writer("v2", bad)).await;
        let calls = Calls::start(gateway);
        let step = place.until(APP, "v2 at its first step, on every proxy", |look| {
            look.phase == "Observing" && look.weight == 20 && look.applied
        });
        let candidate = step.await.candidate;
        let fence = place.split(APP).await.spec.fence;
        calls
            .until("the candidate to serve", |calls| {
                calls.by_candidate(Duration::ZERO) >= 20
            })
            .await;

        let outage = async {
            xtask(&["stop", "apiserver"]).await;
            // Left alone, these look for the apiserver again after up to half a minute.
            for component in ["controller-manager", "scheduler"] {
                xtask(&["stop", component]).await;
            }
            let away = calls.ledger.now();
            calls.goes_on(LAPSED).await;
            assert!(calls.by_candidate(away) > 0, "the step stays as it was");
            calls.turn_bad();
            calls
                .until("the candidate to get nothing", Calls::is_off)
                .await;
            calls.goes_on(3 * RATE).await;
            assert!(calls.is_off(), "it comes back by itself");
        };
        afterwards(outage, xtask(&["up"])).await;

        // Its verdict is written as it was told, whoever leads now.
        place
            .until(APP, "v2 rejected", |look| {
                look.phase == "Rejected" && look.stable == stable && look.weight == 0
            })
            .await;
        let status = place.status(APP).await;
        let ended = &status.history[0];
        assert_eq!(
            (ended.revision.as_str(), ended.outcome.as_str()),
            (candidate.as_str(), "RolledBack")
        );
        assert!(
            ended.why.contains("while the apiserver did not answer"),
            "{}",
            ended.why
        );
        assert!(place.split(APP).await.spec.fence > fence);
        calls.goes_on(NONE).await;
        calls.end().await;
    })
    .await;
}

/// podinfo that keeps what is posted to `/store`; where it cannot, it answers with an error.
fn writer(version: &str, folder: &str) -> Value {
    let flags = [
        format!("--ui-message={version}"),
        format!("--data-path={folder}"),
    ];
    let mut deployment = podinfo(APP, 2, &flags);
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    deployment
}

/// Open-loop requests through the gateway, each in a connection of its own.
struct Calls {
    ledger: Arc<Ledger>,
    bad: Arc<AtomicBool>,
    clock: JoinHandle<()>,
}

impl Calls {
    fn start(gateway: SocketAddr) -> Self {
        let (ledger, bad) = (Arc::<Ledger>::default(), Arc::<AtomicBool>::default());
        let (booked, writes) = (ledger.clone(), bad.clone());
        let clock = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                tokio::spawn(call(
                    gateway,
                    writes.load(Ordering::Relaxed),
                    booked.clone(),
                ));
            }
        });
        Self { ledger, bad, clock }
    }

    /// From now on every request is one that the candidate fails.
    fn turn_bad(&self) {
        self.bad.store(true, Ordering::Relaxed);
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        wait_until(what, async || Ok(holds(self))).await;
    }

    /// Waits until so many requests that are sent from now on have been answered.
    async fn goes_on(&self, requests: usize) {
        let from = self.ledger.now();
        let ended = |calls: &Self| calls.ledger.entries(from, Duration::MAX, |_| true).len();
        self.until(&format!("{requests} further answers"), |calls| {
            ended(calls) >= requests
        })
        .await;
    }

    /// How many requests sent since then the candidate has answered.
    fn by_candidate(&self, from: Duration) -> usize {
        self.ledger
            .entries(from, Duration::MAX, is_candidates)
            .len()
    }

    /// Whether none of the last requests came to the candidate, and it had failed some before.
    fn is_off(&self) -> bool {
        let mut ended = self.ledger.entries(Duration::ZERO, Duration::MAX, |_| true);
        ended.sort_by_key(|entry| entry.sent);
        let last = ended.iter().rev().take(NONE);
        !self.failures().is_empty() && !last.into_iter().any(is_candidates)
    }

    fn failures(&self) -> Vec<Entry> {
        let failed = |entry: &Entry| entry.outcome != Outcome::Ok;
        self.ledger.entries(Duration::ZERO, Duration::MAX, failed)
    }

    /// Ends it: nothing is lost, and only the candidate has failed, for a few seconds.
    async fn end(self) {
        self.clock.abort();
        self.until("the last answers", |calls| calls.ledger.in_flight() == 0)
            .await;
        let failures = self.failures();
        for entry in &failures {
            let by_candidate = is_candidates(entry);
            let is_error = matches!(entry.outcome, Outcome::Failed { status: 500, .. });
            assert!(by_candidate && is_error, "{entry:?}");
        }
        let first = failures.iter().map(|entry| entry.ended).min().unwrap();
        let last = failures.iter().map(|entry| entry.sent).max().unwrap();
        let took = last.saturating_sub(first);
        let sent = self.ledger.totals(Duration::ZERO, Duration::MAX).sent;
        say(&format!(
            "off traffic {:.2} s after its first failure, without the apiserver; {} of {sent} requests failed, none lost",
            took.as_secs_f64(),
            failures.len()
        ));
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

/// Pods of a candidate are named after its ReplicaSet.
fn is_candidates(entry: &Entry) -> bool {
    let pod = entry.pod.as_deref().unwrap_or_default();
    pod.contains("-sluice-")
}

async fn call(gateway: SocketAddr, writes: bool, ledger: Arc<Ledger>) {
    let id = ledger.open();
    let answer = tokio::time::timeout(Duration::from_secs(15), exchange(gateway, writes));
    let (pod, outcome) = match answer.await {
        Ok(Ok((status, pod))) if status < 400 => (pod, Outcome::Ok),
        Ok(Ok((status, pod))) => {
            let what = "POST /store".to_owned();
            (pod, Outcome::Failed { status, what })
        }
        Ok(Err(error)) => {
            let why = format!("{error:#}");
            (None, Outcome::Lost { why })
        }
        Err(_) => {
            let why = "no answer".to_owned();
            (None, Outcome::Lost { why })
        }
    };
    ledger.close(id, pod, outcome);
}

/// Status of the answer, and the pod that gave it.
async fn exchange(gateway: SocketAddr, writes: bool) -> anyhow::Result<(u16, Option<String>)> {
    let (line, body) = if writes {
        ("POST /store HTTP/1.1", "an order")
    } else {
        ("GET /version HTTP/1.1", "")
    };
    let length = body.len();
    let request = format!(
        "{line}\r\nhost: {APP}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, _) = answer.split_once("\r\n\r\n").context("cut in its head")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("no status")?.parse()?;
    let mut headers = lines.filter_map(|line| line.split_once(": "));
    let pod = headers.find(|(name, _)| name.eq_ignore_ascii_case(ANSWERED_BY));
    Ok((status, pod.map(|(_, pod)| pod.to_owned())))
}
