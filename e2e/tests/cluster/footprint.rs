//! What it costs: memory of every process of ours, time of every webhook. Printed; the bounds
//! that are asserted are far above what is seen.

use kube::{Client, ResourceExt};
use sluice_e2e::world::{self, SYSTEM};

use crate::{
    demo::NAMESPACE,
    figures::Figures,
    node::{self, say},
    place::{is_going, pods},
};

/// Goal and bound of a sidecar's resident memory, KiB.
const SIDECAR: (u64, u64) = (15 << 10, 40 << 10);
/// The same of a process of the operator.
const OPERATOR: (u64, u64) = (60 << 10, 120 << 10);

#[tokio::test]
async fn sidecars_and_operator_stay_small() {
    let client = node::client().await;
    resident(&client, NAMESPACE, &["/sluice-proxy", "sidecar"], SIDECAR).await;
    for role in ["controller", "serving", "ca"] {
        resident(&client, SYSTEM, &["/sluice-operator", role], OPERATOR).await;
    }
}

async fn resident(client: &Client, namespace: &str, command: &[&str], (goal, bound): (u64, u64)) {
    let mut all = Vec::new();
    for pod in pods(client, namespace, "").await.unwrap() {
        let processes = world::processes(&pod.name_any(), command).unwrap();
        all.extend(processes.into_iter().filter_map(world::resident));
    }
    let most = *all
        .iter()
        .max()
        .unwrap_or_else(|| panic!("no process {command:?} runs"));
    let each: Vec<String> = all.iter().map(|kib| megabytes(*kib)).collect();
    say(&format!(
        "{}: {} MiB resident (goal {})",
        command.join(" "),
        each.join(", "),
        megabytes(goal)
    ));
    assert!(most < bound, "{command:?} takes {} MiB", megabytes(most));
}

fn megabytes(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

#[tokio::test]
async fn webhooks_say_how_long_they_took() {
    let client = node::client().await;
    let serving = pods(&client, SYSTEM, "app.kubernetes.io/component=serving")
        .await
        .unwrap();
    let mut answered = 0.0;
    for pod in serving.iter().filter(|pod| !is_going(pod)) {
        let figures = Figures::of(&client, SYSTEM, &pod.name_any(), 15014)
            .await
            .unwrap();
        for webhook in ["hold", "gate", "inject"] {
            let labels = [("webhook", webhook)];
            let count = figures.sum("sluice_webhook_seconds_count", &labels);
            let seconds = figures.sum("sluice_webhook_seconds_sum", &labels);
            let labels = [("webhook", webhook), ("le", "0.01")];
            let fast = figures.sum("sluice_webhook_seconds_bucket", &labels);
            answered += count;
            if count > 0.0 {
                let mean = 1000.0 * seconds / count;
                say(&format!(
                    "{webhook}: {count} reviews, {mean:.2} ms each, {fast} within 10 ms"
                ));
            }
        }
    }
    assert!(answered > 0.0, "no webhook has answered a review");
}
