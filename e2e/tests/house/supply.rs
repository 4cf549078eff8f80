//! What others wrote: which versions, under which licences. The lists are in `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::{Built, read, tree};

fn everything() -> Vec<Built> {
    tree(&["--workspace", "--edges", "normal,build,dev"])
}

#[test]
fn what_is_banned_is_not_built() {
    let banned = section("deny = [");
    assert!(banned.len() >= 4);
    for package in everything() {
        let ban = banned.iter().find(|entry| entry.name == package.name);
        assert!(
            ban.is_none(),
            "{} is banned: {}",
            package.name,
            ban.unwrap().reason
        );
    }
}

#[test]
fn a_package_is_there_in_one_version_or_deny_toml_says_why_not() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in everything() {
        versions
            .entry(package.name)
            .or_default()
            .insert(package.version);
    }
    let mut skips = section("skip = [");
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let before = skips.len();
        skips.retain(|skip| {
            !(skip.name == *name && versions.iter().any(|v| is_of(v, &skip.version)))
        });
        let skipped = before - skips.len();
        assert_eq!(
            skipped,
            versions.len() - 1,
            "{name} is there as {versions:?}: all but the newest need a line under `skip` in deny.toml, with a reason"
        );
    }
    let stale: Vec<&str> = skips.iter().map(|skip| &*skip.name).collect();
    assert!(
        stale.is_empty(),
        "deny.toml skips what is there once, or not at all: {stale:?}"
    );
}

#[test]
fn every_licence_is_on_the_list() {
    let deny = read("deny.toml");
    let allowed: BTreeSet<&str> = block(&deny, "allow = [")
        .map(|line| line.trim().trim_matches(['"', ',']))
        .collect();
    for package in everything() {
        // All clauses must hold; of a clause one licence must be on the list.
        let fits = package.license.split(" AND ").all(|clause| {
            let clause = clause
                .trim_matches(['(', ')'])
                .replace(" / ", " OR ")
                .replace('/', " OR ");
            clause
                .split(" OR ")
                .any(|license| allowed.contains(license))
        });
        assert!(
            fits,
            "{} {} is under `{}`",
            package.name, package.version, package.license
        );
    }
}

/// `0.22.1` is of `0.22`.
fn is_of(version: &str, of: &str) -> bool {
    version == of
        || version
            .strip_prefix(of)
            .is_some_and(|rest| rest.starts_with('.'))
}

struct Entry {
    name: String,
    version: String,
    reason: String,
}

/// The entries of a list in `deny.toml`: one a line, `{ crate = "name@1.2", reason = "why" },`.
fn section(opening: &str) -> Vec<Entry> {
    block(&read("deny.toml"), opening)
        .map(|line| {
            let quoted: Vec<&str> = line.split('"').collect();
            let [_, package, _, reason, _] = quoted[..] else {
                panic!("{line}")
            };
            assert!(!reason.is_empty(), "{line}");
            let (name, version) = package.split_once('@').unwrap_or((package, ""));
            Entry {
                name: name.to_owned(),
                version: version.to_owned(),
                reason: reason.to_owned(),
            }
        })
        .collect()
}

fn block<'a>(text: &'a str, opening: &str) -> impl Iterator<Item = &'a str> {
    let start = text.find(opening).unwrap() + opening.len();
    text[start..]
        .lines()
        .skip(1)
        .take_while(|line| *line != "]")
}
