//! A mock of a serving replica: it serves nobody, and shares with the leader what the proxies
//! that it has made up report. The table, what goes out of it and when, the relay's protocol and
//! its TLS are the real ones.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use sluice_crds::TrafficSplit;
use sluice_evidence::{
    Identity, Table,
    relay::{Table as Message, relay_client::RelayClient},
    v1::{AppliedSplit, ArmCounts, PodCounts, ProxyReport, Record},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Leaf};

use crate::world::SYSTEM;

/// Least time between two messages of a serving replica.
const GAP: Duration = Duration::from_millis(10);
/// Port of the leader's relay.
const RELAY: u16 = 15013;
/// Requests of a proxy between two of its reports.
const REQUESTS: u64 = 2;

/// The split that its proxies route by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routed {
    fence: i64,
    revision: String,
    weight: u64,
}

/// Follows the split of a service, as serving replicas do.
pub fn follow_split(
    client: &Client,
    namespace: &str,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Routed> {
    let (publish, receiver) = watch::channel(Routed::default());
    let api = Api::<TrafficSplit>::namespaced(client.clone(), namespace);
    tasks.spawn(async move {
        let mut splits = watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .inspect_err(|error| eprintln!("mock replicas: {error}"))
            .filter_map(async |split| split.ok())
            .boxed();
        while let Some(split) = splits.next().await {
            let routed = Routed {
                fence: split.spec.fence,
                weight: u64::try_from(split.spec.candidate_weight()).unwrap_or_default(),
                revision: split.spec.revision,
            };
            publish.send_if_modified(|held| {
                *held != routed && {
                    *held = routed;
                    true
                }
            });
        }
    });
    receiver
}

/// What all mock replicas are told.
#[derive(Clone)]
pub struct Script {
    /// `NAMESPACE/NAME` of the service that all proxies route.
    pub service: String,
    /// Its split.
    pub split: watch::Receiver<Routed>,
    /// How often each proxy reports.
    pub pace: watch::Receiver<Duration>,
}

/// A replica with its proxies.
pub struct Replica {
    table: Table,
    proxies: Vec<Proxy>,
    script: Script,
    name: String,
    began: Instant,
}

struct Proxy {
    identity: Identity,
    /// Under the present fence.
    record: Record,
}

impl Replica {
    /// A replica of this pod name, to which these proxies are connected.
    #[must_use]
    pub fn new(name: &str, proxies: impl Iterator<Item = Identity>, script: Script) -> Self {
        let started = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let proxies = proxies.map(|identity| Proxy {
            identity,
            record: Record::default(),
        });
        Self {
            table: Table::new(name, started),
            proxies: proxies.collect(),
            script,
            name: name.to_owned(),
            began: Instant::now(),
        }
    }

    /// Shares its table with the leader at this address; returns only with why that ended.
    ///
    /// # Errors
    /// Always.
    pub async fn run(mut self, client: Client, leader: String) -> Result<()> {
        let channel = connect(&client, &leader).await?;
        let (tables, receiver) = mpsc::channel(4);
        self.report(0..self.proxies.len());
        let mut told = 0;
        tables.send(self.message(&mut told)).await?;
        let mut acks = RelayClient::new(channel)
            .share(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut ticks = tokio::time::interval(GAP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = 0.0;
        let mut next = 0;
        loop {
            tokio::select! {
                ack = acks.message() => {
                    ensure!(ack?.context("the leader has closed the relay")?.leading, "it leads no more");
                    continue;
                }
                changed = self.script.split.changed() => {
                    changed?;
                    // What is in force is told at once.
                    self.report(0..self.proxies.len());
                }
                _ = ticks.tick() => {
                    // Each proxy in its turn, all of them once in the time that is asked for.
                    let pace = *self.script.pace.borrow();
                    due += self.proxies.len() as f64 * GAP.as_secs_f64() / pace.as_secs_f64();
                    let end = (next + due as usize).min(self.proxies.len());
                    due -= (end - next) as f64;
                    self.report(next..end);
                    next = end % self.proxies.len().max(1);
                }
            }
            let message = self.message(&mut told);
            if tables.send(message).await.is_err() {
                bail!("the leader has closed the relay");
            }
        }
    }

    /// These proxies have answered some requests, and say so.
    fn report(&mut self, which: std::ops::Range<usize>) {
        let Routed {
            fence,
            revision,
            weight,
        } = self.script.split.borrow_and_update().clone();
        let now = self.began.elapsed().as_millis() as u64;
        let service = &self.script.service;
        let views = std::slice::from_ref(service);
        for proxy in &mut self.proxies[which] {
            let record = &mut proxy.record;
            if record.fence != fence {
                *record = Record {
                    service: service.clone(),
                    revision: revision.clone(),
                    fence,
                    ..Record::default()
                };
            }
            let records = if revision.is_empty() {
                Vec::new()
            } else {
                count(record, weight);
                vec![record.clone()]
            };
            let report = ProxyReport {
                process_start_ms: 1,
                version: "mock".to_owned(),
                applied: vec![AppliedSplit {
                    service: service.clone(),
                    fence,
                }],
                records,
                ..ProxyReport::default()
            };
            if let Err(refused) = self.table.report(&proxy.identity, &report, views, now) {
                eprintln!("{}: {refused}", self.name);
            }
        }
    }

    /// What has changed since `told`.
    fn message(&self, told: &mut u64) -> Message {
        let now = self.began.elapsed().as_millis() as u64;
        let proxies = self.table.outgoing(*told, now);
        *told = self.table.sequence();
        Message {
            replica: self.name.clone(),
            proxies,
            ejects: Vec::new(),
        }
    }
}

/// The requests between two reports, by the weight in force, all of them answered well.
fn count(record: &mut Record, weight: u64) {
    let stable = record.stable.get_or_insert_default();
    let candidate = record.candidate.get_or_insert_default();
    let all = stable.coined + candidate.coined + REQUESTS;
    candidate.coined = all * weight / 100;
    stable.coined = all - candidate.coined;
    for arm in [&mut *stable, &mut *candidate] {
        arm.duration_buckets = fast(arm);
    }
    record.pods = vec![PodCounts {
        pod: "web-sluice-candidate".to_owned(),
        coined: candidate.coined,
        failures: 0,
    }];
}

/// Answered within 5 ms.
fn fast(arm: &ArmCounts) -> Vec<u64> {
    let mut buckets = vec![0; 12];
    buckets[0] = arm.coined;
    buckets
}

/// With the certificate of the serving replicas.
async fn connect(client: &Client, leader: &str) -> Result<Channel> {
    let secrets = Api::<Secret>::namespaced(client.clone(), SYSTEM);
    let secret = secrets.get("sluice-serving-tls").await?;
    let data = secret.data.unwrap_or_default();
    let part = |name: &str| {
        let bytes = data.get(name).map(|bytes| bytes.0.clone());
        bytes.with_context(|| format!("the Secret sluice-serving-tls has no {name}"))
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(part("ca.crt")?))
        .identity(Leaf::from_pem(part("tls.crt")?, part("tls.key")?))
        .domain_name("sluice-controller.sluice-system.svc");
    let endpoint = Endpoint::from_shared(format!("https://{leader}:{RELAY}"))?;
    Ok(endpoint.tls_config(tls)?.connect().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_report_counts_by_the_weight_and_goes_out_once() {
        let routed = Routed {
            fence: 3,
            revision: "r2".to_owned(),
            weight: 50,
        };
        let script = Script {
            service: "shop/web".to_owned(),
            split: watch::channel(routed).1,
            pace: watch::channel(Duration::from_millis(250)).1,
        };
        let proxies = ["a", "b"].map(|pod| Identity {
            pod_uid: pod.to_owned(),
            ..Identity::default()
        });
        let mut replica = Replica::new("serving", proxies.into_iter(), script);
        let mut told = 0;
        replica.report(0..2);
        assert_eq!(replica.message(&mut told).proxies.len(), 2);
        replica.report(0..1);
        let message = replica.message(&mut told);
        assert_eq!(message.proxies.len(), 1);
        let record = &message.proxies[0].records[0];
        let coined = |arm: &Option<ArmCounts>| arm.as_ref().map(|arm| arm.coined);
        assert_eq!(
            (coined(&record.stable), coined(&record.candidate)),
            (Some(2), Some(2))
        );
    }
}
