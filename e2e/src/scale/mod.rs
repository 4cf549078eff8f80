//! What Sluice costs where there is much of everything.
//!
//! ```text
//!  fleet, callers ─▶ kube-apiserver ◀──▶ controller, serving, ca (real) ◀─ usage: memory, cpu
//!                      ▲   ▲   └─▶ audit log ─▶ calls          ▲   ▲
//!  controller-manager ─┘   └─ kubelet (mock)                   │   └relay─ replicas (mock)
//!  (real)                                      proxies (mock) ─┘
//! ```
//!
//! **Invariants**
//! - What is mocked is named so: the kubelet, the proxies, and of the serving replicas those to
//!   which thousands of proxies would be connected.
//! - Figures are told, never judged: only what breaks is an error.

mod callers;
mod calls;
mod fleet;
mod replica;
mod statuses;
mod usage;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{Client, api::DynamicObject};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    audit::Audit,
    bench::{Bench, Row},
    faults::{
        objects::{rollout, within},
        operator::Process,
        proxy::{Access, Proxy, Traffic},
        scene::{APP, Scene},
        stage::{Stage, announce_serving, apply},
    },
};
use replica::{Replica, Script};
use statuses::Statuses;
use usage::{Cpu, resident};

/// Goal of a leader's memory, MB, beside what is proportional to pods.
const MEMORY: f64 = 100.0;
/// Goal of the writes of one step.
const WRITES: f64 = 6.0;
/// How often a proxy reports while what it routes is tried, and otherwise.
const TRYING: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_millis(2500);
/// After the last change, before memory and calls are looked at.
const SETTLE: Duration = Duration::from_secs(15);
/// Over which cores are counted.
const WINDOW: Duration = Duration::from_secs(30);
/// The mock replicas.
const REPLICAS: [&str; 2] = ["sluice-serving-mock-0", "sluice-serving-mock-1"];
/// Namespace of the service that all proxies call.
const CALLED: &str = "called";

/// How much of everything.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// Of a cluster with an apiserver and a controller-manager, and nothing else.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// The apiserver's audit log.
    #[arg(long)]
    pub audit: PathBuf,
    /// MeshRollouts.
    #[arg(long, default_value_t = 10_000)]
    pub rollouts: usize,
    /// Of them, those that release at one time.
    #[arg(long, default_value_t = 100)]
    pub active: usize,
    /// Proxies that the leader hears of.
    #[arg(long, default_value_t = 10_000)]
    pub proxies: usize,
    /// Of them, those that are connected to a real serving replica.
    #[arg(long, default_value_t = 1_000)]
    pub connected: usize,
    /// For how long calls are counted while nothing happens.
    #[arg(long, default_value_t = 120)]
    pub idle_seconds: u64,
}

/// The processes that are looked at.
struct Roles {
    leader: Process,
    serving: Process,
    ca: Process,
}

/// Memory of the roles in MB.
struct Memory {
    leader: f64,
    serving: f64,
    ca: f64,
}

impl Roles {
    fn memory(&self) -> Result<Memory> {
        Ok(Memory {
            leader: resident(&self.leader)?,
            serving: resident(&self.serving)?,
            ca: resident(&self.ca)?,
        })
    }
}

/// Everything that is measured on.
struct Ground {
    stage: Stage,
    roles: Roles,
    /// The leader's address.
    relay: String,
    statuses: Statuses,
    bench: Bench,
}

/// Measures; tells of its progress.
///
/// # Errors
/// Something broke, or did not come about.
pub async fn run(options: &Options) -> Result<Bench> {
    let fleet = options.rollouts.checked_sub(options.active);
    let fleet = fleet.context("of so few MeshRollouts not so many can release at one time")?;
    let few = fleet.min(options.rollouts / 10);
    let mut ground = Ground::new(options).await?;
    told("nothing yet", &ground.roles.memory()?);
    ground.grow(0..few, few).await?;
    let little = ground.measure(few, few).await?;
    ground.grow(few..fleet, options.rollouts).await?;
    let scenes = ground.scenes(options.active).await?;
    let much = ground.measure(options.rollouts, fleet).await?;
    ground.slope("rollout", &little, &much, options.rollouts - few);
    ground.idle(options).await?;
    ground.active(options, &scenes).await?;
    drop(scenes);
    let before = ground.roles.memory()?;
    let pods = ground.callers(options.proxies).await?;
    let after = ground.roles.memory()?;
    told(&format!("{} pods more", options.proxies), &after);
    let each = ground.slope("pod", &before, &after, options.proxies);
    ground.goal(options.rollouts, fleet, each);
    ground.relay(options, &pods).await?;
    Ok(ground.bench)
}

impl Ground {
    async fn new(options: &Options) -> Result<Self> {
        let mut stage = Stage::start(&options.kubeconfig).await?;
        let ca = stage.ca().await?;
        let (leader, relay) = stage.leader("sluice-controller-0").await?;
        let version = stage.admin.apiserver_version().await?.git_version;
        let admin = stage.admin.clone();
        println!("logs: {}", stage.folder().display());
        Ok(Self {
            roles: Roles {
                leader,
                serving: stage.serving.clone(),
                ca,
            },
            relay,
            statuses: Statuses::follow(&admin, stage.tasks()),
            bench: Bench::new("scale", &version),
            stage,
        })
    }

    fn admin(&self) -> &Client {
        &self.stage.admin
    }

    /// More of the fleet, until all of it is Idle and Ready; `rollouts` names the row.
    async fn grow(&mut self, numbers: std::ops::Range<usize>, rollouts: usize) -> Result<()> {
        println!("MeshRollouts {} to {} are made", numbers.start, numbers.end);
        let (began, count) = (Instant::now(), numbers.end);
        let made = json!({"made in this time": numbers.len()});
        let making = async {
            fleet::grow(self.admin(), numbers).await?;
            println!("  all made after {:.0} s", began.elapsed().as_secs_f64());
            Ok(())
        };
        let ready = self
            .statuses
            .until("Idle and Ready", count, |key, standing| {
                key.starts_with("fleet-") && standing.phase == "Idle" && standing.is_ready
            });
        tokio::try_join!(making, ready)?;
        let row = Row::of(began.elapsed().as_secs_f64(), "s", 1).with(made);
        self.bench
            .add(format!("rollouts_{rollouts}.seconds_to_ready"), row);
        Ok(())
    }

    /// Memory with so many MeshRollouts, so many of them of the fleet.
    async fn measure(&mut self, rollouts: usize, fleet: usize) -> Result<Memory> {
        sleep(SETTLE).await;
        let memory = self.roles.memory()?;
        told(
            &format!("{rollouts} MeshRollouts, {} pods", fleet::pods(fleet)),
            &memory,
        );
        for (name, mb) in [
            ("rss_mb", memory.leader),
            ("serving_rss_mb", memory.serving),
            ("ca_rss_mb", memory.ca),
        ] {
            let row = Row::of(mb, "MB", 1).with(json!({"pods": fleet::pods(fleet)}));
            self.bench.add(format!("rollouts_{rollouts}.{name}"), row);
        }
        Ok(memory)
    }

    /// What one thing more costs the leader, in bytes.
    fn slope(&mut self, what: &str, little: &Memory, much: &Memory, more: usize) -> f64 {
        let each = |little: f64, much: f64| (much - little) * 1e6 / more.max(1) as f64;
        let leader = each(little.leader, much.leader);
        let row = Row::of(leader, "bytes", 1).with(json!({
            "more of them": more, "serving": each(little.serving, much.serving),
        }));
        self.bench.add(format!("rss_bytes_per_{what}"), row);
        leader
    }

    /// The goal of the leader's memory leaves out what is proportional to pods.
    fn goal(&mut self, rollouts: usize, fleet: usize, bytes_per_pod: f64) {
        let goal = MEMORY + fleet::pods(fleet) as f64 * bytes_per_pod.max(0.0) / 1e6;
        if let Some(row) = self
            .bench
            .rows
            .remove(&format!("rollouts_{rollouts}.rss_mb"))
        {
            self.bench
                .add(format!("rollouts_{rollouts}.rss_mb"), row.against(goal));
        }
    }

    /// Governed Deployments with callers, whose proxies are connected and carry requests.
    async fn scenes(&self, number: usize) -> Result<Vec<Scene>> {
        println!("{number} MeshRollouts with traffic are made");
        let scenes = stream::iter(0..number).map(async |number| {
            let scene = Scene::new(&self.stage, &format!("active-{number}")).await?;
            scene.proxies.iter().for_each(|proxy| proxy.pace(TRYING));
            scene.apply(&rollout(APP, json!({}))).await?;
            scene.settled().await?;
            anyhow::Ok(scene)
        });
        scenes.buffered(16).try_collect().await
    }

    async fn idle(&mut self, options: &Options) -> Result<()> {
        println!(
            "calls are counted for {} s in which nothing happens",
            options.idle_seconds
        );
        let mut audit = Audit::begin(&options.audit)?;
        let (leader, began) = (Cpu::of(&self.roles.leader)?, Instant::now());
        sleep(Duration::from_secs(options.idle_seconds)).await;
        let (cores, minutes) = (leader.cores()?, began.elapsed().as_secs_f64() / 60.0);
        let row = calls::idle(
            audit.until_now(&self.stage.admin, "default").await?,
            minutes,
        );
        println!(
            "  {:.1} calls a minute, {cores:.3} cores of the leader",
            row.ours
        );
        let name = format!("rollouts_{}", options.rollouts);
        self.bench.add(format!("{name}.idle_calls_per_minute"), row);
        let row = Row::of(cores, "cores", 1);
        self.bench.add(format!("{name}.idle_cpu_cores"), row);
        Ok(())
    }

    /// All scenes release at once, by the steps and holds that hold where nothing is said.
    async fn active(&mut self, options: &Options, scenes: &[Scene]) -> Result<()> {
        println!("{} releases at once", scenes.len());
        let mut audit = Audit::begin(&options.audit)?;
        let (leader, serving) = (Cpu::of(&self.roles.leader)?, Cpu::of(&self.roles.serving)?);
        stream::iter(scenes.iter().map(Ok))
            .try_for_each_concurrent(8, async |scene| scene.deploy("v2").await)
            .await?;
        let ended = self
            .statuses
            .until("promoted", scenes.len(), |_, standing| {
                standing.phase == "Idle" && standing.outcome == "Promoted"
            });
        ended.await?;
        let (leader, serving) = (leader.cores()?, serving.cores()?);
        let namespaces: Vec<String> = scenes.iter().map(|scene| scene.namespace.clone()).collect();
        let events = audit.until_now(&self.stage.admin, "default").await?;
        let row = calls::steps(events, &namespaces, WRITES);
        println!(
            "  {} writes a step; cores: leader {leader:.2}, serving {serving:.2}",
            row.ours
        );
        let name = format!("active_{}", scenes.len());
        self.bench.add(format!("{name}.writes_per_step"), row);
        let detail = json!({"proxies": 2 * scenes.len()});
        for (role, cores) in [("", leader), ("serving_", serving)] {
            let row = Row::of(cores, "cores", 1).with(detail.clone());
            self.bench.add(format!("{name}.{role}cpu_cores"), row);
        }
        Ok(())
    }

    async fn callers(&self, number: usize) -> Result<Vec<DynamicObject>> {
        println!("{number} pods are made");
        let began = Instant::now();
        let pods = callers::make(self.admin(), number).await?;
        println!("  all run after {:.0} s", began.elapsed().as_secs_f64());
        sleep(SETTLE).await;
        Ok(pods)
    }

    /// Every one of these pods has a proxy, and all of them call one service, which is tried.
    async fn relay(&mut self, options: &Options, pods: &[DynamicObject]) -> Result<()> {
        let (connected, told_of) = pods.split_at(options.connected.min(pods.len()));
        println!(
            "proxies of {} pods call one service, {} of them connected",
            pods.len(),
            connected.len()
        );
        let (admin, scene) = (self.admin().clone(), Scene::new(&self.stage, CALLED).await?);
        let mut tasks = JoinSet::new();
        let (pace, paced) = watch::channel(IDLE);
        let script = Script {
            service: format!("{CALLED}/{APP}"),
            split: replica::follow_split(&admin, CALLED, self.stage.tasks()),
            pace: paced,
        };
        let shares = told_of.chunks(told_of.len().div_ceil(REPLICAS.len()).max(1));
        for (name, share) in REPLICAS.iter().zip(shares) {
            let replica = Replica::new(name, share.iter().map(callers::identity), script.clone());
            tasks.spawn(replica.run(admin.clone(), self.relay.clone()));
            announce_serving(&admin, name).await?;
        }
        let (proxies, _running) = self.connect(&scene, connected).await?;
        let hold = json!({"analysis": {"hold": "1h"}, "strategy": {"steps": [{"weight": 10}, {"weight": 100}]}});
        let governing = within(CALLED, rollout(APP, hold));
        apply(&admin, &governing).await?;
        let is_called = |key: &str| key.starts_with(&format!("{CALLED}/"));
        self.statuses
            .until("Idle and Ready", 1, |key, s| {
                is_called(key) && s.phase == "Idle" && s.is_ready
            })
            .await?;
        let idle = self.cores(&mut tasks).await?;
        for proxy in &proxies {
            proxy.pace(TRYING);
            proxy.serve(Traffic {
                requests: 2,
                ..Traffic::default()
            });
        }
        pace.send_replace(TRYING);
        scene.deploy("v2").await?;
        self.statuses
            .until("Observing", 1, |key, s| {
                is_called(key) && s.phase == "Observing"
            })
            .await?;
        let trying = self.cores(&mut tasks).await?;
        let name = format!("relay_{}_proxies", pods.len());
        let driven = json!({
            "through mock replicas (real relay, real table)": told_of.len(),
            "through a real serving replica (mock proxies, real TLS, xDS and evidence)": connected.len(),
            "reports of each proxy a second": TRYING.as_secs_f64().recip(),
        });
        let row = Row::of(trying.0, "cores", 1).with(driven);
        self.bench.add(format!("{name}.cpu_cores"), row);
        self.bench.add(
            format!("{name}.idle_cpu_cores"),
            Row::of(idle.0, "cores", 1),
        );
        let name = format!("serving_{}_proxies.cpu_cores", connected.len());
        self.bench.add(name, Row::of(trying.1, "cores", 1));
        let row = Row::of(resident(&self.roles.leader)?, "MB", 1);
        self.bench
            .add(format!("relay_{}_proxies.rss_mb", pods.len()), row);
        Ok(())
    }

    /// Real connections of mock proxies to the serving replica.
    async fn connect(
        &self,
        scene: &Scene,
        pods: &[DynamicObject],
    ) -> Result<(Vec<Proxy>, JoinSet<()>)> {
        let mut running = JoinSet::new();
        let mut proxies = Vec::new();
        let tokens = stream::iter(pods).map(async |pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            self.stage.token_of_pod(namespace, pod).await
        });
        let tokens: Vec<String> = tokens.buffered(fleet::WRITERS).try_collect().await?;
        for token in tokens {
            let access = Access {
                port: self.stage.xds_port,
                root: self.stage.root.clone(),
                token,
                service: (CALLED.to_owned(), APP.to_owned(), scene.vip, 80),
            };
            let proxy = Proxy::start(access, &mut running);
            proxy.pace(IDLE);
            proxies.push(proxy);
        }
        Ok((proxies, running))
    }

    /// Cores of the leader and of the serving replica, once things go on evenly.
    async fn cores(&self, tasks: &mut JoinSet<Result<()>>) -> Result<(f64, f64)> {
        let measured = async {
            sleep(SETTLE).await;
            let (leader, serving) = (Cpu::of(&self.roles.leader)?, Cpu::of(&self.roles.serving)?);
            sleep(WINDOW).await;
            let cores = (leader.cores()?, serving.cores()?);
            println!("  cores: leader {:.2}, serving {:.2}", cores.0, cores.1);
            Ok(cores)
        };
        tokio::select! {
            measured = measured => measured,
            Some(ended) = tasks.join_next() => {
                ended??;
                bail!("a mock replica has ended")
            }
        }
    }
}

fn told(what: &str, memory: &Memory) {
    println!(
        "  {what}: leader {:.1} MB, serving {:.1} MB, ca {:.1} MB",
        memory.leader, memory.serving, memory.ca
    );
}
