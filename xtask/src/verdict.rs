//! The verdict's error rates and speeds in their long form, and their tables in `docs/verdict.md`.

use std::{collections::BTreeMap, env, path::Path};

use anyhow::{Context, Result, bail};

use crate::{document, simulation};

/// Asks for so many rollouts of each row: hours, where nothing else is said.
const VARIABLE: &str = "SLUICE_VERDICT_ROLLOUTS";
const ROLLOUTS: &str = "100000";
/// The document's tables, each with its head.
const TABLES: [(&str, &str); 4] = [
    (
        "spared",
        "| good releases, while | rollouts | condemned | at most, 99 % sure |\n|---|---|---|---|\n",
    ),
    (
        "found",
        "| stable -> candidate | tolerance | weight | median | p90 | p99 | failures |\n|---|---|---|---|---|---|---|\n",
    ),
    (
        "passed",
        "| both arms fail | requests/s | rollouts | passed | median s | p90 s |\n|---|---|---|---|---|---|\n",
    ),
    (
        "worse",
        "| stable -> candidate | rollouts | passed | at most, 99 % sure |\n|---|---|---|---|\n",
    ),
];

/// Simulates every row, and writes what came of them into the document.
pub(crate) fn prove(path: &Path) -> Result<()> {
    let asked = env::var(VARIABLE).unwrap_or_else(|_| ROLLOUTS.to_owned());
    let mut rows = BTreeMap::<String, String>::new();
    let has_passed = simulation::run("verdict", &["rates::"], (VARIABLE, &asked), |line| {
        if let Some((table, row)) = read(line) {
            let rows = rows.entry(table.to_owned()).or_default();
            rows.push_str(row);
            rows.push('\n');
        }
    })?;
    if !has_passed {
        bail!("an error rate or a speed is not what is promised: which is above");
    }
    let tables = TABLES.map(|(name, head)| {
        let rows = rows.get(name);
        let rows = rows.with_context(|| format!("no row of `{name}` was printed"))?;
        Ok((name, format!("{head}{rows}")))
    });
    document::write(path, &tables.into_iter().collect::<Result<Vec<_>>>()?)
}

/// The table and the row that a line tells of.
fn read(line: &str) -> Option<(&str, &str)> {
    // The test's own name may stand before it.
    let (_, told) = line.split_once("row of ")?;
    told.split_once(": ")
        .filter(|(_, row)| row.starts_with('|'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_prints_goes_into_its_table() {
        let line = "test rates::x ... row of found: | 1 % -> 5 % | 7 |";
        assert_eq!(read(line), Some(("found", "| 1 % -> 5 % | 7 |")));
        assert_eq!(read("test rates::x ... ok"), None);
    }
}
