//! What runs of a cluster.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use super::{Format, process::Process, state::Cluster};

/// Prints the components of a cluster.
pub(super) fn print(name: &str, format: Format) -> Result<()> {
    let cluster = Cluster::open(name)?;
    let processes = cluster.processes();
    match format {
        Format::Json => print_json(&cluster, &processes),
        Format::Table => {
            print_table(&cluster, &processes);
            Ok(())
        }
    }
}

fn print_table(cluster: &Cluster, processes: &[Process]) {
    let row =
        |a: &str, b: &str, c: &str, d: &str, e: &str| println!("{a:<22}{b:>8}  {c:<10}{d:>8}  {e}");
    row("COMPONENT", "PID", "UP", "RSS", "LOG");
    for process in processes {
        let (up, resident) = match process.is_alive() {
            true => (elapsed(process), megabytes(process)),
            false => ("died".to_owned(), "-".to_owned()),
        };
        let log = process.log.display().to_string();
        row(
            &process.name,
            &process.pid.to_string(),
            &up,
            &resident,
            &log,
        );
    }
    println!("\nexport KUBECONFIG={}", cluster.kubeconfig().display());
}

fn print_json(cluster: &Cluster, processes: &[Process]) -> Result<()> {
    let components: Vec<_> = processes
        .iter()
        .map(|process| {
            json!({
                "name": process.name,
                "pid": process.pid,
                "alive": process.is_alive(),
                "started": process.started,
                "residentKiB": process.resident(),
                "log": process.log,
            })
        })
        .collect();
    let status = json!({
        "name": cluster.name,
        "kind": cluster.kind,
        "address": cluster.address,
        "kubeconfig": cluster.kubeconfig(),
        "components": components,
    });
    println!("{}", serde_json::to_string_pretty(&status)?);
    Ok(())
}

fn elapsed(process: &Process) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    readable(now.saturating_sub(process.started))
}

fn readable(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn megabytes(process: &Process) -> String {
    match process.resident() {
        Some(kib) => format!("{} MB", kib / 1024),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(readable(59), "59s");
        assert_eq!(readable(61), "1m1s");
        assert_eq!(readable(7260), "2h1m");
    }
}
