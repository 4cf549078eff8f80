//! Long forms of the rollout machine's own tests, whose output is read as it comes.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::paths;

/// Runs tests of one test target with a variable set, prints every line and hands it on. Gives
/// whether all of them have passed.
pub(crate) fn run(
    target: &str,
    filter: &[&str],
    (variable, value): (&str, &str),
    mut take: impl FnMut(&str),
) -> Result<bool> {
    let mut child = Command::new("cargo")
        .args(["test", "--quiet", "--release"])
        .args(["--package", "sluice-rollout", "--test", target, "--"])
        .args(filter)
        .args(["--nocapture", "--test-threads=1"])
        .env(variable, value)
        .current_dir(paths::workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let printed = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(printed).lines() {
        let line = line.context("cannot read what cargo prints")?;
        println!("{line}");
        take(&line);
    }
    Ok(child.wait()?.success())
}
