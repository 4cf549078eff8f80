//! Running other programs: every failure says which command failed and what it printed.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let finished = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    checked(command, finished)
}

/// Runs a command that reads `input`.
pub(crate) fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    let mut stdin = child.stdin.take().context("the pipe was asked for")?;
    // A command that does not want all of its input ends the pipe early; its exit status tells.
    let _ = stdin.write_all(input);
    drop(stdin);
    let finished = child.wait_with_output()?;
    checked(command, finished)
}

/// Whether the command can be run and ends well. For questions, not for actions.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The full path of a program on PATH, or in the folders that PATH often leaves out.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// The last lines of a file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn checked(command: &Command, finished: Output) -> Result<String> {
    if !finished.status.success() {
        bail!(
            "{} failed ({}):\n{}{}",
            describe(command),
            finished.status,
            String::from_utf8_lossy(&finished.stdout),
            String::from_utf8_lossy(&finished.stderr),
        );
    }
    Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}
