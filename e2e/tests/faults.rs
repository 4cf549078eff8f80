//! Faults between the operator and a real apiserver: what must hold in spite of them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "faults/answers.rs"]
mod answers;
#[path = "faults/autoscalers.rs"]
mod autoscalers;
#[path = "faults/certificates.rs"]
mod certificates;
#[path = "faults/ejects.rs"]
mod ejects;
#[path = "faults/ground.rs"]
mod ground;
#[path = "faults/leaders.rs"]
mod leaders;
#[path = "faults/leaks.rs"]
mod leaks;
#[path = "faults/plans.rs"]
mod plans;
#[path = "faults/report.rs"]
mod report;
#[path = "faults/rights.rs"]
mod rights;
#[path = "faults/stale.rs"]
mod stale;
#[path = "faults/versions.rs"]
mod versions;
#[path = "faults/witnesses.rs"]
mod witnesses;

use std::path::Path;

use sluice_e2e::files;

/// `docs/faults.md` names a test for each case, or says why there is none.
#[test]
fn every_test_that_the_table_of_faults_names_is_there() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = std::fs::read_to_string(workspace.join("docs/faults.md")).unwrap();
    let folders = ["e2e/tests", "operator", "evidence"].into_iter();
    let sources: String = folders
        .flat_map(|folder| files::below(&workspace.join(folder), "rs"))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let cases = table.lines().filter(|line| {
        let number = line.split('|').nth(1).map(str::trim);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    });
    let cases: Vec<&str> = cases.collect();
    assert_eq!(cases.len(), 28);
    let names = cases
        .iter()
        .flat_map(|case| case.split('`').skip(1).step_by(2));
    for name in names.filter(|name| name.contains('_')) {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "there is no test {name}"
        );
    }
}
