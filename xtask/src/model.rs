//! The model check of the rollout machine in its long form, and its table in `docs/model.md`.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{document, simulation};

/// What a scope came to, as its test prints it: `model NAME: 12 worlds, 34 steps, depth 5, …`.
#[derive(Debug, PartialEq)]
struct Scope {
    name: String,
    worlds: u64,
    steps: u64,
    depth: u64,
    took: Duration,
}

/// Searches every scope, one after the other, and writes what came of them into the document.
pub(crate) fn prove(path: &Path) -> Result<()> {
    let mut scopes = Vec::new();
    let mut began = Instant::now();
    let has_passed = simulation::run("model", &[], ("SLUICE_MODEL_LONG", "1"), |line| {
        scopes.extend(read(line, began.elapsed()));
        began = Instant::now();
    })?;
    if !has_passed {
        bail!("the model check found a fault: the shortest way to it is above");
    }
    println!(
        "{} worlds in {} scopes",
        scopes.iter().map(|scope| scope.worlds).sum::<u64>(),
        scopes.len()
    );
    document::write(path, &[("scopes", table(&scopes))])
}

/// None for a line that tells of no scope.
fn read(line: &str, took: Duration) -> Option<Scope> {
    // The test's own name may stand before it.
    let (_, told) = line.split_once("model ")?;
    let (name, figures) = told.split_once(": ")?;
    let mut figures = figures.split(", ");
    let mut figure = |what: &str| -> Option<u64> {
        let text = figures.next()?;
        text.replace(what, "").trim().parse().ok()
    };
    Some(Scope {
        name: name.to_owned(),
        worlds: figure("worlds")?,
        steps: figure("steps")?,
        depth: figure("depth")?,
        took,
    })
}

fn table(scopes: &[Scope]) -> String {
    let mut text =
        String::from("| scope | worlds | steps | depth | seconds |\n|---|---|---|---|---|\n");
    for Scope {
        name,
        worlds,
        steps,
        depth,
        took,
    } in scopes
    {
        let seconds = took.as_secs();
        let _ = writeln!(
            text,
            "| {name} | {worlds} | {steps} | {depth} | {seconds} |"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_scope_prints_becomes_its_row() {
        let line = "test x ... model watches and edits: 12 worlds, 34 steps, depth 5, 6 questions to decide, longest fair run 7";
        let scope = read(line, Duration::from_secs(9)).unwrap();
        assert_eq!((scope.worlds, scope.steps, scope.depth), (12, 34, 5));
        assert!(table(&[scope]).ends_with("| watches and edits | 12 | 34 | 5 | 9 |\n"));
        assert_eq!(read("running 15 tests", Duration::ZERO), None);
    }
}
