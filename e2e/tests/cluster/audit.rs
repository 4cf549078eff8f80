//! Who wrote what, as the apiserver's audit log tells it: writes alone, without their content.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use serde_json::{Value, json};

use crate::{
    node::{self, wait_until},
    place::Place,
};

/// The log from some moment on.
pub struct Audit {
    from: u64,
}

/// A write that the apiserver took.
#[derive(Debug)]
pub struct Write {
    /// Account or user.
    pub who: String,
    /// `deployments`, `deployments/status`, ...
    pub what: String,
    pub name: String,
}

impl Write {
    /// Whether one of Sluice's accounts wrote.
    pub fn is_ours(&self) -> bool {
        self.who.starts_with("system:serviceaccount:sluice-system:")
    }
}

impl Audit {
    /// What is written from now on.
    pub fn begin() -> Self {
        let from = node::audit_log().metadata().unwrap().len();
        Self { from }
    }

    /// The writes to objects of a place until now.
    pub async fn writes(&self, place: &Place) -> Vec<Write> {
        // An answer may come a moment before its line: when ours is there, the earlier ones are.
        let name = format!("mark-{}", jiff::Timestamp::now().as_nanosecond());
        let mark = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        place.apply(&mark).await;
        let mut writes = Vec::new();
        wait_until("the audit log to show a write", async || {
            writes = self.read(&place.namespace)?;
            Ok(writes.iter().any(|write| write.name == name))
        })
        .await;
        writes
    }

    fn read(&self, namespace: &str) -> anyhow::Result<Vec<Write>> {
        let mut file = File::open(node::audit_log())?;
        // A log that was begun anew is shorter.
        let is_the_same = file.metadata()?.len() >= self.from;
        file.seek(SeekFrom::Start(if is_the_same { self.from } else { 0 }))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let lines = text.lines().filter_map(|line| {
            // The last line may not be whole yet.
            let event: Value = serde_json::from_str(line).ok()?;
            write(&event, namespace)
        });
        Ok(lines.collect())
    }
}

fn write(event: &Value, namespace: &str) -> Option<Write> {
    let object = &event["objectRef"];
    let is_dry_run = event["requestURI"].as_str()?.contains("dryRun=");
    let was_taken = event["responseStatus"]["code"].as_u64()? < 300;
    if object["namespace"] != namespace || is_dry_run || !was_taken {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let subresource = object["subresource"].as_str();
    let resource = text(&object["resource"]);
    Some(Write {
        who: text(&event["user"]["username"]),
        what: subresource.map_or(resource.clone(), |sub| format!("{resource}/{sub}")),
        name: text(&object["name"]),
    })
}
