//! Components as processes that outlive this command: started detached, remembered by id and start time.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::{
    cgroup,
    state::{Cluster, Kind},
};
use crate::command;

/// A program that a cluster needs running.
pub(super) struct Component {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Component {
    pub(super) fn new(name: &'static str, program: PathBuf, arguments: Vec<String>) -> Component {
        Component {
            name,
            program,
            arguments,
            environment: Vec::new(),
        }
    }
}

/// A component that was started.
#[derive(Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: i32,
    /// In clock ticks since boot: another process with the same id has another one.
    start_ticks: u64,
    /// Unix time.
    pub(super) started: u64,
    pub(super) log: PathBuf,
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Resident memory in KiB.
    pub(super) fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Ends the process at once. What it leaves half done is removed with the cluster.
    pub(super) fn kill(&self) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) else {
            return Ok(());
        };
        // One that has ended meanwhile is what we want.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_alive() {
            if Instant::now() > deadline {
                bail!("{} (process {}) does not end", self.name, self.pid);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// An error about the component, with the end of its log.
    pub(super) fn failure(&self, what: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "{} {what}; the end of {}:\n{}",
            self.name,
            self.log.display(),
            command::tail(&self.log, 15)
        )
    }
}

impl Cluster {
    /// Starts a component unless it runs. Returns whether it had to.
    pub(super) fn start(&self, component: &Component) -> Result<bool> {
        if self
            .process(component.name)
            .is_some_and(|process| process.is_alive())
        {
            return Ok(false);
        }
        let log = self.file(&format!("logs/{}.log", component.name));
        let mut output = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut inside = self.in_network(&component.program);
        inside.args(&component.arguments);
        writeln!(output, "=== {inside:?}")?;
        let mut detached = Command::new("setsid");
        if self.kind == Kind::Node {
            // The shell joins the cgroup and then becomes the component, so all keep one process id.
            detached
                .args(["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""])
                .arg(cgroup::create(&self.name)?);
        }
        detached.arg(inside.get_program()).args(inside.get_args());
        for (name, value) in &component.environment {
            detached.env(name, value);
        }
        let child = detached
            .current_dir(self.file(""))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", component.name))?;
        let pid = i32::try_from(child.id())?;
        let process = Process {
            name: component.name.to_owned(),
            pid,
            start_ticks: start_ticks(pid)
                .with_context(|| format!("{} is gone already", component.name))?,
            started: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            log,
        };
        self.write_json(&record(component.name), &process)?;
        Ok(true)
    }

    /// Ends a component and forgets it.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        let process = self.process(name).with_context(|| {
            format!("`{name}` was not started; see `cargo xtask cluster status`")
        })?;
        process.kill()?;
        fs::remove_file(self.file(&record(name)))?;
        Ok(())
    }

    /// A component that was started, alive or not.
    pub(super) fn process(&self, name: &str) -> Option<Process> {
        read(&self.file(&record(name)))
    }

    /// All components that were started, the oldest first.
    pub(super) fn processes(&self) -> Vec<Process> {
        let entries = fs::read_dir(self.file("processes"))
            .into_iter()
            .flatten()
            .flatten();
        let mut all: Vec<Process> = entries.filter_map(|entry| read(&entry.path())).collect();
        all.sort_by_key(|process| (process.start_ticks, process.pid));
        all
    }

    /// Waits until `ready`; fails early when the component dies.
    pub(super) fn wait_for(
        &self,
        name: &str,
        limit: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            let process = self
                .process(name)
                .with_context(|| format!("{name} was not started"))?;
            if !process.is_alive() {
                return Err(process.failure("has died"));
            }
            if Instant::now() > deadline {
                return Err(process.failure(&format!("is not ready after {} s", limit.as_secs())));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn record(name: &str) -> String {
    format!("processes/{name}.json")
}

fn read(path: &Path) -> Option<Process> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// When a process started; none when it does not run (any more).
fn start_ticks(pid: i32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything; what follows it is regular.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name_and_not_of_zombies() {
        let rest = "1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 5";
        assert_eq!(parse_start_ticks(&format!("7 (a) b) S {rest}")), Some(4711));
        assert_eq!(parse_start_ticks(&format!("7 (ab) Z {rest}")), None);
        assert!(start_ticks(std::process::id() as i32).is_some());
    }
}
