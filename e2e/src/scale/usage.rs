//! What a process takes of the machine.

use std::fs;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::{faults::operator::Process, world};

/// Ticks of a second in `/proc`: the same on every Linux that runs containers.
const TICKS: f64 = 100.0;

/// Resident memory in MB (10^6 bytes).
///
/// # Errors
/// It has ended.
pub fn resident(process: &Process) -> Result<f64> {
    let id = i32::try_from(id(process)?)?;
    let kib = world::resident(id).with_context(|| ended(process))?;
    Ok(kib as f64 * 1024.0 / 1e6)
}

/// CPU time of a process since a moment.
pub struct Cpu<'a> {
    process: &'a Process,
    seconds: f64,
    since: Instant,
}

impl<'a> Cpu<'a> {
    /// From now on.
    ///
    /// # Errors
    /// It has ended.
    pub fn of(process: &'a Process) -> Result<Self> {
        Ok(Self {
            process,
            seconds: seconds(process)?,
            since: Instant::now(),
        })
    }

    /// Cores in use since then, on the average.
    ///
    /// # Errors
    /// It has ended.
    pub fn cores(&self) -> Result<f64> {
        let used = seconds(self.process)? - self.seconds;
        Ok(used / self.since.elapsed().as_secs_f64())
    }
}

fn seconds(process: &Process) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id(process)?));
    let stat = stat.with_context(|| ended(process))?;
    ticks(&stat)
        .map(|ticks| ticks as f64 / TICKS)
        .with_context(|| ended(process))
}

/// Of user and system, from `/proc/ID/stat`. The name in brackets may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn id(process: &Process) -> Result<u32> {
    process.id().with_context(|| ended(process))
}

fn ended(process: &Process) -> String {
    let log = process.log();
    let last: Vec<&str> = log.lines().rev().take(5).collect();
    format!("{} has ended:\n{}", process.pod(), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 30 0 0 20 0 4 0 100 1 1";
        assert_eq!(ticks(stat), Some(280));
    }
}
