//! Who asked the apiserver for what, as its audit log tells it: without content, and reads only
//! of Sluice's own accounts.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    faults::stage::create,
    world::{SYSTEM, wait_until},
};

/// The longest that a line may come after its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The log from some moment on. A log that is begun anew meanwhile is followed, once.
pub struct Audit {
    log: PathBuf,
    file: File,
    /// Of `file`: all before was read, or was there before.
    read: u64,
    events: Vec<Event>,
}

/// A request that was answered, or a watch that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Account or user.
    pub who: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// `deployments`, `deployments/status`, ...; the path where it is none of the API's.
    pub what: String,
    /// Namespace; empty for the whole cluster.
    pub namespace: String,
    /// Name; empty for lists.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// Nothing is kept of it.
    pub is_dry_run: bool,
    /// HTTP status.
    pub code: u64,
}

impl Audit {
    /// What is asked from now on.
    ///
    /// # Errors
    /// There is no such log.
    pub fn begin(log: &Path) -> Result<Self> {
        let file = open(log)?;
        Ok(Self {
            log: log.to_owned(),
            read: file.metadata()?.len(),
            file,
            events: Vec::new(),
        })
    }

    /// All until now, in the order of the log. A ConfigMap in `namespace` marks the moment: an
    /// answer may come before its line, but not before the lines of those before it.
    ///
    /// # Errors
    /// The log is not written any more.
    pub async fn until_now(&mut self, client: &Client, namespace: &str) -> Result<&[Event]> {
        let name = format!("mark-{}", Timestamp::now().as_nanosecond());
        let mark = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
        });
        create(client, &mark).await?;
        wait_until(PATIENCE, "the audit log to show a write", async || {
            let known = self.events.len();
            self.read()?;
            Ok(self.events[known..].iter().any(|event| event.name == name))
        })
        .await?;
        Ok(&self.events)
    }

    fn read(&mut self) -> Result<()> {
        self.read_file()?;
        let newest = open(&self.log)?;
        if newest.metadata()?.ino() != self.file.metadata()?.ino() {
            (self.file, self.read) = (newest, 0);
            self.read_file()?;
        }
        Ok(())
    }

    fn read_file(&mut self) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        self.file.read_to_string(&mut text)?;
        // The last line may not be whole yet.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let lines = text[..whole].lines();
        self.events.extend(lines.filter_map(Event::parse));
        Ok(())
    }
}

fn open(log: &Path) -> Result<File> {
    File::open(log).with_context(|| format!("there is no audit log at {}", log.display()))
}

impl Event {
    /// Reads a line of the log; none of what is said twice.
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, uri) = (text(&event["verb"]), text(&event["requestURI"]));
        // A watch is told when it begins and when it ends.
        let stage = if verb == "watch" {
            "ResponseStarted"
        } else {
            "ResponseComplete"
        };
        if event["stage"] != stage {
            return None;
        }
        let object = &event["objectRef"];
        let resource = object["resource"].as_str();
        let what = match (resource, object["subresource"].as_str()) {
            (Some(resource), Some(subresource)) => format!("{resource}/{subresource}"),
            (Some(resource), None) => resource.to_owned(),
            (None, _) => uri.split('?').next().unwrap_or_default().to_owned(),
        };
        Some(Self {
            who: text(&event["user"]["username"]),
            verb,
            what,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            at: event["stageTimestamp"].as_str()?.parse().ok()?,
            is_dry_run: uri.contains("dryRun="),
            code: event["responseStatus"]["code"].as_u64()?,
        })
    }

    /// Whether one of Sluice's accounts asked.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let account = self.who.strip_prefix("system:serviceaccount:");
        account.is_some_and(|account| account.split(':').next() == Some(SYSTEM))
    }

    /// Whether something was changed by it.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let reads = matches!(self.verb.as_str(), "get" | "list" | "watch");
        !reads && !self.is_dry_run && self.code < 300
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn line(verb: &str, stage: &str, uri: &str) -> String {
        json!({
            "verb": verb, "stage": stage, "requestURI": uri,
            "user": {"username": "system:serviceaccount:sluice-system:sluice-controller"},
            "objectRef": {"resource": "meshrollouts", "subresource": "status", "namespace": "shop", "name": "web"},
            "responseStatus": {"code": 200},
            "stageTimestamp": "2026-01-02T03:04:05.678901Z",
        })
        .to_string()
    }

    #[test]
    fn a_write_tells_who_wrote_what() {
        let event = Event::parse(&line("update", "ResponseComplete", "/apis/x")).unwrap();
        assert!(event.is_ours() && event.is_write());
        assert_eq!(event.what, "meshrollouts/status");
        assert_eq!((&*event.namespace, &*event.name), ("shop", "web"));
    }

    #[test]
    fn a_watch_counts_once_and_neither_reads_nor_dry_runs_are_writes() {
        assert!(Event::parse(&line("watch", "ResponseComplete", "/x")).is_none());
        let watch = Event::parse(&line("watch", "ResponseStarted", "/x")).unwrap();
        assert!(!watch.is_write());
        let read = Event::parse(&line("get", "ResponseComplete", "/x")).unwrap();
        assert!(!read.is_write());
        let dry = Event::parse(&line("create", "ResponseComplete", "/x?dryRun=All")).unwrap();
        assert!(!dry.is_write());
    }

    #[test]
    fn a_log_is_read_on_where_it_was_begun_anew() {
        let folder = std::env::temp_dir().join(format!("audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("audit.log");
        let write = |lines: &[String]| std::fs::write(&log, lines.join("")).unwrap();
        let one = format!("{}\n", line("update", "ResponseComplete", "/x"));
        write(std::slice::from_ref(&one));
        let mut audit = Audit::begin(&log).unwrap();
        audit.read().unwrap();
        assert!(audit.events.is_empty(), "what was there before");
        // The last line is only half there.
        write(&[one.clone(), one.clone(), one[..20].to_owned()]);
        audit.read().unwrap();
        assert_eq!(audit.events.len(), 1);
        std::fs::rename(&log, folder.join("audit-old.log")).unwrap();
        write(&[one.clone(), one]);
        audit.read().unwrap();
        assert_eq!(audit.events.len(), 3);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
