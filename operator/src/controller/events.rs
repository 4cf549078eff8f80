//! Events for people (`kubectl describe`), written beside the work: they never delay it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{act::is_of_a_going_namespace, facts::MANAGER};

/// How many events may wait; further ones are only logged.
const WAITING: usize = 256;
/// The longest that one write may take: others wait behind it.
const WRITE: Duration = Duration::from_secs(3);
/// The most that the API takes in a note, bytes.
const MAX_NOTE: usize = 1024;

/// Sends events; cheap to clone.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<Event>,
    instance: String,
}

impl Events {
    /// Sender and writer. The writer ends when all senders are gone.
    pub fn new(client: Client, instance: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, mut events) = mpsc::channel::<Event>(WAITING);
        let writer = async move {
            while let Some(event) = events.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api = Api::<Event>::namespaced(client.clone(), &namespace);
                let params = PostParams::default();
                match tokio::time::timeout(WRITE, api.create(&params, &event)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(kube::Error::Api(status))) if is_of_a_going_namespace(&status) => {
                        debug!(namespace, "event not written: its namespace goes");
                    }
                    Ok(Err(error)) => {
                        warn!(%error, "event not written; the account needs create on events.k8s.io");
                    }
                    Err(_) => warn!("event not written: the apiserver did not answer"),
                }
            }
        };
        (
            Self {
                sender,
                instance: instance.to_owned(),
            },
            writer,
        )
    }

    /// Tells of `regarding`. Every event is one of its own: sentences with other numbers are
    /// not a repetition.
    pub fn tell(&self, regarding: ObjectReference, is_warning: bool, reason: &str, note: &str) {
        debug!(reason, note, object = regarding.name, "event");
        let event = event(
            regarding,
            is_warning,
            reason,
            note,
            &self.instance,
            Timestamp::now(),
        );
        if self.sender.try_send(event).is_err() {
            warn!(
                reason,
                note, "too many events wait: this one is only logged"
            );
        }
    }
}

fn event(
    regarding: ObjectReference,
    is_warning: bool,
    reason: &str,
    note: &str,
    instance: &str,
    now: Timestamp,
) -> Event {
    let object = regarding.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            namespace: regarding.namespace.clone(),
            name: Some(format!("{object}.{:x}", now.as_nanosecond())),
            ..ObjectMeta::default()
        },
        action: Some(reason.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(note[..note.floor_char_boundary(MAX_NOTE)].to_owned()),
        type_: Some(if is_warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(regarding),
        reporting_controller: Some(format!("sluice.dev/{MANAGER}")),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_is_cut_at_a_character() {
        let regarding = ObjectReference {
            name: Some("web".to_owned()),
            ..Default::default()
        };
        let event = event(
            regarding,
            true,
            "RolledBack",
            &"é".repeat(1000),
            "pod",
            Timestamp::UNIX_EPOCH,
        );
        assert!(event.note.is_some_and(|note| note.len() <= MAX_NOTE));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
