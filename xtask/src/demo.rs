//! `cargo xtask demo`: everything that the story needs, then the story.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::{
    cluster::{self, Cluster, Kind, With},
    command, paths, product, tools,
};

/// NodePort of the demo's gateway, as in `examples/gitops`.
const GATEWAY_PORT: u16 = 30080;
/// Name of the repository, the GitRepository and the Kustomization.
const REPOSITORY: &str = "demo";

/// A real cluster, real Flux, real commits: releases promoted and taken back, live.
#[derive(Args)]
pub(crate) struct Demo {
    /// Write the report as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Requests a second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Remove the cluster of an earlier run, and nothing else
    #[arg(long)]
    down: bool,
    /// Name of the cluster
    #[arg(long, default_value = "demo")]
    name: String,
    /// On a cluster that kind makes in Docker, instead of a node of our own: docs/kind.md
    #[arg(long)]
    kind: bool,
}

/// Plays the demo, or removes what it left.
pub(crate) fn run(demo: &Demo) -> Result<()> {
    if demo.down {
        return cluster::down(&demo.name);
    }
    let cluster = if demo.kind {
        // Said now, not after minutes of building.
        cluster::ensure_kind_and_docker()?;
        prepare_as(Kind::Docker, &demo.name)?
    } else {
        prepare(&demo.name)?
    };
    let told = Story {
        rate: demo.rate,
        report: demo.report.clone(),
        ..Story::default()
    };
    story(&cluster, &told)?;
    look_around(&cluster);
    Ok(())
}

/// How the story is to be told.
pub(crate) struct Story {
    /// Requests a second.
    pub(crate) rate: u32,
    /// Where the report goes.
    pub(crate) report: Option<PathBuf>,
    /// What the driver is told to play: its subcommand and the flags of that.
    pub(crate) play: Vec<String>,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            rate: 500,
            report: None,
            play: vec!["story".to_owned()],
        }
    }
}

/// Plays the story from its beginning on a cluster that [`prepare`] has made.
pub(crate) fn story(cluster: &Cluster, told: &Story) -> Result<()> {
    reset(cluster)?;
    play(cluster, told)
}

/// A cluster with Flux and Sluice, all images on its node.
pub(crate) fn prepare(name: &str) -> Result<Cluster> {
    prepare_as(Kind::Node, name)
}

fn prepare_as(kind: Kind, name: &str) -> Result<Cluster> {
    let began = Instant::now();
    let cluster = side_by_side(
        || {
            tools::ensure(&tools::ALL)?;
            cluster::up(
                name,
                kind,
                With {
                    flux: true,
                    ..With::default()
                },
            )
        },
        product::build,
    )?;
    println!(
        "cluster and programs ready ({:.0} s)",
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    product::load(&cluster)?;
    product::install(&cluster)?;
    println!("Sluice installed ({:.0} s)", began.elapsed().as_secs_f64());
    Ok(cluster)
}

fn side_by_side(
    cluster: impl FnOnce() -> Result<Cluster> + Send,
    programs: impl FnOnce() -> Result<()> + Send,
) -> Result<Cluster> {
    thread::scope(|scope| {
        let cluster = scope.spawn(cluster);
        let programs = scope.spawn(programs);
        let built = programs
            .join()
            .map_err(|_| anyhow!("the build thread panicked"))?;
        let cluster = cluster
            .join()
            .map_err(|_| anyhow!("the cluster thread panicked"))??;
        built?;
        Ok(cluster)
    })
}

/// Removes the application of an earlier run, so that the story begins at its beginning.
fn reset(cluster: &Cluster) -> Result<()> {
    let gone = ["--ignore-not-found", "--wait", "--timeout=120s"];
    command::output(
        cluster
            .kubectl()
            .args([
                "delete",
                "kustomizations.kustomize.toolkit.fluxcd.io",
                REPOSITORY,
            ])
            .args(gone),
    )?;
    command::output(
        cluster
            .kubectl()
            .args(["delete", "namespace", "demo"])
            .args(gone),
    )?;
    Ok(())
}

fn play(cluster: &Cluster, told: &Story) -> Result<()> {
    let examples = paths::workspace().join("examples/gitops");
    let bare = cluster.create_repository(REPOSITORY)?;
    let flux = std::fs::read_to_string(examples.join("flux/sync.yaml"))?.replace(
        "https://git.example.com/team/demo.git",
        &cluster.git_url(REPOSITORY),
    );
    let mut story = Command::new(product::release("sluice-e2e"));
    story
        .args(&told.play)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .arg("--gateway")
        .arg(format!("{}:{GATEWAY_PORT}", cluster.address))
        .arg("--bare")
        .arg(&bare)
        .arg("--layout")
        .arg(&examples)
        .arg("--clone")
        .arg(cluster.file("clone"))
        .args(["--rate", &told.rate.to_string()]);
    if let Some(report) = &told.report {
        story.arg("--report").arg(report);
    }
    command::output_with_input(
        cluster.kubectl().args(["apply", "-f", "-"]),
        flux.as_bytes(),
    )?;
    let status = story
        .stdin(Stdio::null())
        .status()
        .context("cannot start the story")?;
    if !status.success() {
        bail!("the story did not go as it should; the cluster is still up to look around");
    }
    Ok(())
}

fn look_around(cluster: &Cluster) {
    println!(
        "\nThe cluster is up. To look around:\n  \
         export KUBECONFIG={}\n  \
         kubectl get meshrollouts,trafficsplits,deployments,replicasets,pods -n demo\n  \
         kubectl describe meshrollout frontend -n demo\n  \
         kubectl get kustomizations -n flux-system\n  \
         cargo xtask cluster status\n\
         To remove all of it: cargo xtask demo --down",
        cluster.kubeconfig().display()
    );
}
