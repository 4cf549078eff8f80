//! What is to happen to which request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use super::call::Call;

/// A request as a rule sees it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is asked of the apiserver.
    pub call: Call,
    /// The body; null where there is none.
    pub body: Value,
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// It never reaches the apiserver; the connection ends.
    Drop,
    /// It is carried out, and the connection ends without an answer.
    CutReply,
    /// The operator is killed, and the request never reaches the apiserver.
    KillBefore,
    /// It is carried out, then the operator is killed, and does not get the answer.
    KillAfter,
    /// The operator is stopped (SIGSTOP), and the request waits until it is released.
    Stop,
    /// It waits this long before it goes on.
    Delay(Duration),
    /// It is carried out, and the answer waits this long.
    DelayReply(Duration),
    /// The apiserver is not asked: this code, reason and sentence.
    Answer(u16, &'static str, &'static str),
    /// The apiserver is not asked: an answer that it once gave.
    Replay(Bytes),
    /// A watch: an event ERROR with 410 Gone, then its end.
    Expired,
    /// A watch: cut in the middle of its first event.
    Truncate,
}

type Matches = Arc<dyn Fn(&Asked) -> bool + Send + Sync>;

/// The requests that it is about, and what happens to them.
#[derive(Clone)]
pub struct Rule {
    matches: Matches,
    skip: u32,
    times: u32,
    action: Action,
}

impl Rule {
    /// The first request that matches.
    pub fn once(action: Action, matches: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Self {
        Self {
            matches: Arc::new(matches),
            skip: 0,
            times: 1,
            action,
        }
    }

    /// Every request that matches.
    pub fn always(
        action: Action,
        matches: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            times: u32::MAX,
            ..Self::once(action, matches)
        }
    }

    /// So many that match, not one alone.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Leaves so many that match alone first.
    #[must_use]
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }
}

/// The rules in force.
#[derive(Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    fired: u32,
}

/// A rule that is about a request.
pub(super) struct Ruling {
    pub(super) action: Action,
    number: usize,
}

impl Rules {
    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many requests something has happened to.
    pub(super) fn fired(&self) -> u32 {
        self.fired
    }

    /// What happens to this request, by the first rule that is about it.
    pub(super) fn judge(&mut self, asked: &Asked) -> Option<Ruling> {
        for (number, rule) in self.rules.iter_mut().enumerate() {
            if rule.times == 0 || !(rule.matches)(asked) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            self.fired += 1;
            let action = rule.action.clone();
            return Some(Ruling { action, number });
        }
        None
    }

    /// The apiserver has refused the request: it is the next one that counts.
    pub(super) fn take_back(&mut self, ruling: &Ruling) {
        if let Some(rule) = self.rules.get_mut(ruling.number) {
            rule.times += 1;
            self.fired -= 1;
        }
    }
}
