//! The rules of the house: who may know whom, and what every crate and file must look like.
//! `ARCHITECTURE.md` says why.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "house/supply.rs"]
mod supply;
#[path = "house/workspace.rs"]
mod workspace;

use std::{collections::BTreeSet, fs};

use workspace::{crates, read, rust_files, tree};

/// Crates whose answers depend on their arguments alone, and the folder of each.
const PURE: [(&str, &str); 5] = [
    ("sluice-rollout", "operator/rollout"),
    ("sluice-mesh", "operator/mesh"),
    ("sluice-inject", "operator/inject"),
    ("sluice-xds", "xds"),
    ("sluice-evidence", "evidence"),
];

/// What brings a clock, a socket, a coin or a cluster along.
const IMPURE: [&str; 18] = [
    "async-std",
    "axum",
    "fastrand",
    "futures-executor",
    "getrandom",
    "h2",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "mio",
    "rand",
    "reqwest",
    "smol",
    "socket2",
    "tokio",
    "tonic",
    "tower",
];

/// Pure crates that use envoy-types, which brings tonic along; only its messages are used.
const OF_ENVOYS_MESSAGES: [&str; 2] = ["sluice-mesh", "sluice-xds"];

/// Who may know whom. What stands higher knows nothing of what stands lower.
const EDGES: [(&str, &[&str]); 11] = [
    ("sluice-crds", &[]),
    ("sluice-xds", &[]),
    ("sluice-evidence", &[]),
    ("sluice-identity", &[]),
    ("sluice-inject", &[]),
    ("sluice-rollout", &["sluice-crds", "sluice-evidence"]),
    ("sluice-mesh", &["sluice-crds", "sluice-xds"]),
    (
        "sluice-operator",
        &[
            "sluice-crds",
            "sluice-evidence",
            "sluice-identity",
            "sluice-inject",
            "sluice-mesh",
            "sluice-rollout",
            "sluice-xds",
        ],
    ),
    ("sluice-proxy", &["sluice-evidence", "sluice-xds"]),
    (
        "sluice-e2e",
        &[
            "sluice-crds",
            "sluice-evidence",
            "sluice-rollout",
            "sluice-xds",
        ],
    ),
    ("xtask", &[]),
];

/// The crates that talk to an apiserver.
const OF_THE_CLUSTER: [&str; 2] = ["sluice-e2e", "sluice-operator"];

const MAX_LINES: usize = 600;

#[test]
fn every_crate_knows_only_those_above_it() {
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    for package in crates() {
        assert!(
            known.contains(&*package.name),
            "{} is new: give it a place in ARCHITECTURE.md and here",
            package.name
        );
        let (_, allowed) = EDGES
            .iter()
            .find(|(name, _)| *name == package.name)
            .unwrap();
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.is_normal() && known.contains(&*d.name))
        {
            assert!(
                allowed.contains(&&*dependency.name),
                "{} must not know {}: move what they share up, or hand it in as an argument",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn a_pure_crate_asks_for_no_clock_no_socket_and_no_coin() {
    for package in crates()
        .iter()
        .filter(|p| PURE.iter().any(|(name, _)| *name == p.name))
    {
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.is_normal() && !d.optional)
        {
            assert!(
                !IMPURE.contains(&&*dependency.name),
                "{} is pure and must not depend on {}",
                package.name,
                dependency.name
            );
        }
        let default = package.features.get("default").cloned().unwrap_or_default();
        assert!(
            default.is_empty(),
            "{} is pure without its features, so none is on by default",
            package.name
        );
    }
}

#[test]
fn what_a_pure_crate_depends_on_brings_none_either() {
    for (name, _) in PURE {
        let mut arguments = vec!["--package", name, "--edges", "normal"];
        if OF_ENVOYS_MESSAGES.contains(&name) {
            arguments.extend(["--prune", "envoy-types"]);
        }
        for package in tree(&arguments) {
            assert!(
                !IMPURE.contains(&&*package.name),
                "{name} is pure but reaches {}: see `cargo tree --package {name} --edges normal --invert {}`",
                package.name,
                package.name
            );
        }
    }
}

#[test]
fn only_the_operator_and_the_tests_talk_to_an_apiserver() {
    for package in crates() {
        let name = package.name.as_str();
        let reached = tree(&["--package", name, "--edges", "normal"]);
        let talks = reached.iter().any(|package| package.name == "kube-client");
        assert_eq!(
            talks,
            OF_THE_CLUSTER.contains(&name),
            "{name} and kube-client"
        );
    }
}

#[test]
fn every_pure_crate_has_the_same_list_of_what_is_disallowed() {
    let first = read(&format!("{}/clippy.toml", PURE[0].1));
    for clock in [
        "std::time::SystemTime::now",
        "std::time::Instant::now",
        "std::hash::RandomState::new",
    ] {
        assert!(first.contains(clock), "{clock} is not disallowed");
    }
    for (name, folder) in PURE {
        assert!(
            read(&format!("{folder}/clippy.toml")) == first,
            "{folder}/clippy.toml of {name} differs from {}'s",
            PURE[0].1
        );
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace_which_forbid_unsafe_code() {
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for package in crates() {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} lacks `[lints] workspace = true`",
            package.name
        );
    }
}

#[test]
fn every_library_opens_with_its_relations_and_its_invariants() {
    for package in crates() {
        let path = package.folder().join("src/lib.rs");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let header: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let says = |what: &str| header.iter().any(|line| line.contains(what));
        assert!(
            says("```text"),
            "{} opens without a relation diagram",
            path.display()
        );
        assert!(
            says("**Invariants**"),
            "{} opens without its invariants",
            path.display()
        );
    }
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    for path in rust_files() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(
            lines <= MAX_LINES,
            "{} has {lines} lines: split it",
            path.display()
        );
    }
}

#[test]
fn the_map_shows_every_crate() {
    let map = read("ARCHITECTURE.md");
    for package in crates() {
        let folder = format!("`{}/`", package.relative_folder());
        assert!(
            map.contains(&folder),
            "ARCHITECTURE.md does not say what {folder} is"
        );
    }
}
