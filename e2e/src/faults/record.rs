//! The writes that reached the layer.

use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use super::{call::Call, rule::Asked};

/// A write that reached the layer.
#[derive(Debug, Clone)]
pub struct Write {
    /// What was asked.
    pub call: Call,
    /// With what.
    pub body: Value,
    /// When.
    pub at: Instant,
    /// What the apiserver answered; none when it was not asked.
    pub code: Option<u16>,
}

impl Write {
    /// Whether the apiserver has carried it out, whoever was told.
    #[must_use]
    pub fn applied(&self) -> bool {
        self.code.is_some_and(|code| (200..300).contains(&code))
    }
}

/// The writes since it was begun.
#[derive(Default)]
pub(super) struct Record {
    writes: Vec<Write>,
    /// How many there were before.
    forgotten: usize,
}

impl Record {
    /// Remembers a write about a rollout; its number.
    pub(super) fn note(&mut self, asked: &Asked) -> Option<usize> {
        if !asked.call.is_write() || !asked.call.is_of_a_rollout() {
            return None;
        }
        self.writes.push(Write {
            call: asked.call.clone(),
            body: asked.body.clone(),
            at: Instant::now(),
            code: None,
        });
        Some(self.forgotten + self.writes.len() - 1)
    }

    /// What the apiserver said to the write of this number, unless that is forgotten by now.
    pub(super) fn note_answer(&mut self, number: Option<usize>, status: StatusCode) {
        let index = number.and_then(|number| number.checked_sub(self.forgotten));
        if let Some(write) = index.and_then(|index| self.writes.get_mut(index)) {
            write.code = Some(status.as_u16());
        }
    }

    pub(super) fn all(&self) -> Vec<Write> {
        self.writes.clone()
    }

    pub(super) fn last_about(&self, namespace: &str) -> Option<Write> {
        let is_about = |write: &&Write| write.call.namespace == namespace;
        self.writes.iter().rev().find(is_about).cloned()
    }

    pub(super) fn forget(&mut self) {
        self.forgotten += self.writes.len();
        self.writes.clear();
    }
}
