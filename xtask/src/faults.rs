//! The fault tests: several apiservers with a controller-manager, on which releases are cut short side by side.

use std::{env, path::Path};

use anyhow::Result;

use crate::{
    cluster::{self, Kind, With},
    suites, tools,
};

/// Their clusters: each plays one release at a time, which most of the time waits.
const CLUSTERS: [&str; 3] = ["test-faults-1", "test-faults-2", "test-faults-3"];
/// One test a cluster, so that none waits for long with its time running.
const THREADS: &str = "--test-threads=3";

/// What looks at all that the others have left behind.
const LAST: [&str; 2] = ["rights::", "leaks::"];

/// Runs every fault test, with a seeded tenth of the crash plans.
pub(crate) fn test() -> Result<()> {
    let others = LAST.map(|it| ["--skip", it]).concat();
    run(&[&["--nocapture", THREADS], &others[..]].concat(), &[])?;
    run(&[&["--nocapture", THREADS], &LAST[..]].concat(), &[])
}

/// Runs all crash plans, and writes what came of them into the document.
pub(crate) fn prove(document: &Path) -> Result<()> {
    let results = document.display().to_string();
    run(
        &["--nocapture", "plans::"],
        &[("SLUICE_PLANS", "all"), ("SLUICE_RESULTS", &results)],
    )
}

/// Removes the clusters.
pub(crate) fn down() -> Result<()> {
    CLUSTERS.iter().try_for_each(|name| cluster::down(name))
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    tools::ensure(&[&tools::KUBERNETES, &tools::HELM])?;
    // With its own tests cargo also makes the program, which these tests run as processes.
    suites::tests(&["--quiet", "--no-run"], &[])?;
    let with = With {
        controllers: true,
        ..With::default()
    };
    let mut kubeconfigs = Vec::new();
    for name in CLUSTERS {
        kubeconfigs.push(cluster::up(name, Kind::Api, with)?.kubeconfig());
    }
    let kubeconfigs = env::join_paths(kubeconfigs)?.to_string_lossy().into_owned();
    let helm = tools::HELM.path().display().to_string();
    let mut all = vec!["--quiet", "--test", "faults", "--"];
    all.extend(arguments);
    let mut variables = vec![
        ("SLUICE_FAULTS_KUBECONFIGS", kubeconfigs.as_str()),
        ("SLUICE_HELM", &helm),
    ];
    variables.extend(environment);
    suites::tests(&all, &variables)
}
