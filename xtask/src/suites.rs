//! `cargo xtask test`: every test that must hold for a commit, the time of each suite printed.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::{
    cluster::{self, Cluster, Kind, With},
    demo, faults, paths, prerequisites, product, tools,
};

/// Name of the node that the real-cluster tests run on.
const NODE: &str = "test";
/// Name of the apiserver that the integration tests talk to.
const API: &str = "test-api";

/// All suites, in the order in which they run.
const SUITES: [&str; 5] = ["style", "unit", "api", "faults", "cluster"];

/// Every test that must hold for a commit.
#[derive(Args)]
pub(crate) struct Test {
    /// Only these suites, in this order: style, unit, api, faults, cluster
    #[arg(long, value_delimiter = ',', default_values = SUITES)]
    only: Vec<String>,
    /// Leave the clusters up afterwards
    #[arg(long)]
    keep: bool,
}

/// Runs the suites; the first that fails ends the run.
pub(crate) fn run(test: &Test) -> Result<()> {
    for name in &test.only {
        if !SUITES.contains(&name.as_str()) {
            bail!(
                "there is no suite `{name}`: take one of {}",
                SUITES.join(", ")
            );
        }
    }
    prerequisites::ensure_test_packages()?;
    // Go programs take the second core while cargo compiles.
    let programs = thread::spawn(|| tools::ensure(&tools::ALL));
    let mut times = Vec::new();
    let mut result = Ok(());
    let mut programs = Some(programs);
    let mut ahead = None;
    for name in &test.only {
        if matches!(name.as_str(), "api" | "faults" | "cluster")
            && let Some(programs) = programs.take()
        {
            programs
                .join()
                .map_err(|_| anyhow!("building the tools panicked"))??;
        }
        // They wait most of the time, and the node needs the product.
        let waits = matches!(name.as_str(), "api" | "faults");
        if waits && ahead.is_none() && test.only.iter().any(|suite| suite == "cluster") {
            ahead = Some(product::Ahead::start()?);
        }
        println!("\n=== {name}");
        let began = Instant::now();
        result = suite(name).with_context(|| format!("suite {name}"));
        times.push((name, began.elapsed()));
        if result.is_err() {
            break;
        }
    }
    drop(ahead);
    if !test.keep && result.is_ok() {
        cluster::down(API)?;
        faults::down()?;
        cluster::down(NODE)?;
    }
    print_times(&times);
    result
}

fn suite(name: &str) -> Result<()> {
    match name {
        "style" => style(),
        "unit" => tests(&["--quiet"], &[]),
        "api" => api(),
        "faults" => faults::test(),
        _ => node(),
    }
}

/// Tests of `e2e` that need an apiserver or other programs, and those that need whole clusters:
/// `cargo test` and `--all-targets` leave them out.
const WITH_API: [&str; 4] = ["crds", "house", "chart", "gitops"];
const WITH_CLUSTERS: [&str; 2] = ["faults", "cluster"];

fn style() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    let clippy = ["clippy", "--quiet", "--workspace"];
    let deny = ["--", "-D", "warnings"];
    cargo(&[&clippy[..], &["--all-targets"], &deny].concat(), &[])?;
    let by_name = [&WITH_API[..], &WITH_CLUSTERS].concat();
    cargo(&[&clippy[..], &named(&by_name), &deny].concat(), &[])
}

fn named<'a>(tests: &[&'a str]) -> Vec<&'a str> {
    tests.iter().flat_map(|test| ["--test", test]).collect()
}

/// What needs a real apiserver, other programs, or a look at the sources, and no pods.
fn api() -> Result<()> {
    let api = cluster::up(API, Kind::Api, With::default())?;
    let kubeconfig = api.kubeconfig().display().to_string();
    let helm = tools::HELM.path().display().to_string();
    let tools = tools::folder().display().to_string();
    tests(
        &named(&WITH_API),
        &[
            ("SLUICE_API_KUBECONFIG", &kubeconfig),
            ("SLUICE_HELM", &helm),
            ("SLUICE_TOOLS", &tools),
        ],
    )
}

/// Cluster tests that keep to namespaces of their own and leave Sluice and the node alone.
const SIDE_BY_SIDE: [&str; 12] = [
    "adoption::",
    "apply_loop::",
    "bad_input::",
    "by_hand::",
    "bypassed::",
    "candidate_trouble::",
    "commands::",
    "dry_run::",
    "cut_off::a_proxy_that_stands_still",
    "ends_of_life::",
    "mode_b::",
    "stable_trouble::",
];

/// Those that wait for minutes: for `prove`.
const SLOW: [&str; 6] = [
    "autoscaler::",
    "churn::",
    "cut_off::a_gateway_cut_off",
    "eject::",
    "last_good::",
    "uninstall::",
];

/// What looks at all that the others have left behind.
const LAST: [&str; 2] = ["leaks::", "refused::"];

/// Of the others the one that has a long form, which `prove` asks for.
const LONG: [&str; 1] = ["apply_loop::"];

/// What needs pods: the demo's story with its promises asserted, then the cluster tests.
fn node() -> Result<()> {
    let node = node_with_story()?;
    node.load_image(&product::nginx()?)?;
    cluster_tests(&node, "6", &SIDE_BY_SIDE, &[])?;
    let elsewhere = [&SIDE_BY_SIDE[..], &SLOW, &LAST].concat();
    let others: Vec<&str> = elsewhere.iter().flat_map(|it| ["--skip", it]).collect();
    cluster_tests(&node, "1", &others, &[])?;
    cluster_tests(&node, "1", &LAST, &[])
}

/// The cluster tests that take minutes, and the long form of the one that has it.
pub(crate) fn prove_cluster() -> Result<()> {
    let node = node_with_story()?;
    let which = [&LONG[..], &SLOW].concat();
    cluster_tests(&node, "1", &which, &[("SLUICE_LONG", "1")])?;
    cluster::down(NODE)
}

fn node_with_story() -> Result<Cluster> {
    let node = demo::prepare(NODE)?;
    demo::story(
        &node,
        &demo::Story {
            play: vec!["story".to_owned(), "--strict".to_owned()],
            ..demo::Story::default()
        },
    )?;
    Ok(node)
}

fn cluster_tests(
    node: &Cluster,
    threads: &str,
    which: &[&str],
    environment: &[(&str, &str)],
) -> Result<()> {
    let kubeconfig = node.kubeconfig().display().to_string();
    let address = node.address.to_string();
    let clone = node.file("clone").display().to_string();
    let audit = node.file("logs/audit.log").display().to_string();
    let xtask = std::env::current_exe()?.display().to_string();
    let cluster = ["--test", "cluster", "--", "--test-threads", threads];
    tests(
        &[&cluster[..], which].concat(),
        &[
            environment,
            &[
                ("SLUICE_KUBECONFIG", &kubeconfig),
                ("SLUICE_NODE_ADDRESS", &address),
                ("SLUICE_CLONE", &clone),
                ("SLUICE_AUDIT", &audit),
                ("SLUICE_XTASK", &xtask),
                ("SLUICE_CLUSTER", NODE),
            ],
        ]
        .concat(),
    )
}

/// Runs tests. Always of the whole workspace: cargo unifies features over the packages that are
/// asked for, and would compile most dependencies anew for a part of them.
pub(crate) fn tests(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    cargo(&[&["test", "--workspace"], arguments].concat(), environment)
}

/// Runs cargo in the workspace, to its end.
fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(paths::workspace())
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!(
            "`cargo {}` failed; what it printed is above",
            arguments.join(" ")
        );
    }
    Ok(())
}

fn print_times(times: &[(&String, Duration)]) {
    println!("\n{:<10} {:>8}", "suite", "seconds");
    for (name, time) in times {
        println!("{name:<10} {:>8.0}", time.as_secs_f64());
    }
}
