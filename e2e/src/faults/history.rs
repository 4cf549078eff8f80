//! What a write does, in words that are the same in each run: times, uids, versions and the
//! fence's beginning left out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    call::{Call, Verb},
    layer::Write,
};

/// One write as it would be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// What it is done to.
    pub object: String,
    /// What is done.
    pub what: String,
    /// Whether it tells only how others stand, so that its number depends on time.
    pub is_figures: bool,
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// Reads the writes about one namespace, in their order.
#[derive(Debug, Clone)]
pub struct Reader {
    namespace: String,
    /// The fence of the MeshRollout before its first candidate.
    first_fence: i64,
}

impl Reader {
    /// Of the writes about this namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            first_fence: 0,
        }
    }

    /// What a write does; none when it is not about this namespace.
    pub fn read(&mut self, call: &Call, body: &Value) -> Option<Deed> {
        if call.resource == "mutatingwebhookconfigurations" {
            return self.list(call, body);
        }
        if call.namespace != self.namespace || !call.is_write() || !call.is_of_a_rollout() {
            return None;
        }
        let what = match (call.resource.as_str(), call.subresource.as_str()) {
            ("meshrollouts", "status") => self.state(&body["status"]),
            ("trafficsplits", "status") => {
                let status = &body["status"];
                let whole = status["applied"] == status["expected"];
                let whole = if whole { "all follow" } else { "some follow" };
                format!("status of {}, {whole}", self.fence(&status["fence"]))
            }
            ("trafficsplits", _) if call.verb != Verb::Delete => self.split(&body["spec"]),
            ("replicasets", _) => set(call, body),
            ("pods", "status") => format!("gate {}", body["status"]["conditions"][0]["status"]),
            ("deployments", _) => format!("paused {}", body["spec"]["paused"]),
            _ => format!("{:?} {}", call.verb, call.subresource),
        };
        let object = match (call.resource.as_str(), call.subresource.as_str()) {
            // Pods' names are random.
            ("pods", _) => "pod".to_owned(),
            ("trafficsplits", "status") => "trafficsplit's status".to_owned(),
            (resource, _) => resource.trim_end_matches('s').to_owned(),
        };
        Some(Deed {
            object,
            what,
            is_figures: call.resource == "trafficsplits" && call.subresource == "status",
        })
    }

    fn fence(&self, fence: &Value) -> String {
        format!(
            "fence +{}",
            fence.as_i64().unwrap_or_default() - self.first_fence
        )
    }

    fn state(&mut self, status: &Value) -> String {
        let state = &status["state"];
        let is_first = state["phase"]["name"] == "Idle"
            && state["history"].as_array().is_none_or(Vec::is_empty)
            && state["candidate"].is_null();
        if is_first {
            self.first_fence = state["fence"].as_i64().unwrap_or_default();
        }
        let mut phase = state["phase"].clone();
        if let Some(phase) = phase.as_object_mut() {
            phase.remove("since");
        }
        let words: Vec<String> = phase
            .as_object()
            .into_iter()
            .flat_map(|phase| phase.values())
            .map(|word| word.as_str().map_or(word.to_string(), str::to_owned))
            .collect();
        format!(
            "{} at {} %, {}",
            words.join(" "),
            state["weight"],
            self.fence(&state["fence"])
        )
    }

    fn split(&self, spec: &Value) -> String {
        let arms = spec["arms"].as_array().into_iter().flatten();
        let weights: Vec<String> = arms
            .map(|arm| format!("{} {}", arm["name"], arm["weight"]))
            .collect();
        format!(
            "{}, {}",
            weights.join(" ").replace('"', ""),
            self.fence(&spec["fence"])
        )
    }

    /// Whether the webhooks' lists name this namespace.
    fn list(&self, call: &Call, body: &Value) -> Option<Deed> {
        let expression = body["webhooks"][0]["matchConditions"][0]["expression"].as_str()?;
        let (hold, gate) = (
            format!("'{}'", self.namespace),
            format!("'{}/", self.namespace),
        );
        let is_named = expression.contains(&hold) || expression.contains(&gate);
        Some(Deed {
            object: format!("list of {}", call.name),
            what: if is_named { "listed" } else { "not listed" }.to_owned(),
            is_figures: false,
        })
    }
}

fn set(call: &Call, body: &Value) -> String {
    match call.verb {
        Verb::Create => format!("made with {} pods", body["spec"]["replicas"]),
        Verb::Delete => "deleted".to_owned(),
        _ if body["spec"]["replicas"].is_null() => "given away".to_owned(),
        _ => format!("scaled to {}", body["spec"]["replicas"]),
    }
}

/// Every write that was carried out about this namespace, in order.
#[must_use]
pub fn deeds(namespace: &str, writes: &[Write]) -> Vec<Deed> {
    let mut reader = Reader::new(namespace);
    let mut lists = BTreeMap::<String, String>::new();
    let mut deeds = Vec::new();
    for write in writes.iter().filter(|write| write.applied()) {
        let Some(deed) = reader.read(&write.call, &write.body) else {
            continue;
        };
        // The lists are written for others too: only what they say of this namespace counts.
        if deed.object.starts_with("list of") {
            let before = lists.insert(deed.object.clone(), deed.what.clone());
            if before.as_deref().unwrap_or("not listed") == deed.what {
                continue;
            }
        }
        deeds.push(deed);
    }
    deeds
}

/// What was done to each object, in order, retries counted once. Pods, which are alike, by the
/// number of such deeds.
#[must_use]
pub fn by_object(namespace: &str, writes: &[Write]) -> BTreeMap<String, Vec<String>> {
    let mut by_object = BTreeMap::<String, Vec<String>>::new();
    for deed in deeds(namespace, writes) {
        if deed.is_figures {
            continue;
        }
        let told = by_object.entry(deed.object.clone()).or_default();
        if told.last() != Some(&deed.what)
            || deed.object == "replicaset" && deed.what.starts_with("made")
        {
            told.push(deed.what);
        }
    }
    let mut gates: Vec<(String, String)> = writes
        .iter()
        .filter(|write| {
            write.applied() && write.call.resource == "pods" && write.call.namespace == namespace
        })
        .map(|write| {
            (
                write.call.name.clone(),
                write.body["status"]["conditions"][0]["status"].to_string(),
            )
        })
        .collect();
    gates.sort();
    gates.dedup();
    let gates = gates.into_iter().map(|(_, status)| status).collect();
    by_object.insert("pod".to_owned(), gates);
    by_object
}
