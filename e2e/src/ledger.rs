//! The ledger: every request has an id, and every id ends as ok, failed or lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, and every tier behind it answered.
    Ok,
    /// Answered with an error: the status, and what failed.
    Failed {
        /// HTTP status of the answer.
        status: u16,
        /// What failed, for people.
        what: String,
    },
    /// Never answered in full: connection refused, cut, or no answer in time.
    Lost {
        /// Why.
        why: String,
    },
}

/// One ended request.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it was sent, since the ledger began.
    pub sent: Duration,
    /// When it ended, since the ledger began.
    pub ended: Duration,
    /// The pod that answered, as far as the answer tells.
    pub pod: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// All requests of a run. Ids are handed out by [`Ledger::open`] and must come back by
/// [`Ledger::close`]; what never comes back is lost.
pub struct Ledger {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Duration>,
    ended: Vec<Entry>,
}

/// Totals of a span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests sent.
    pub sent: u64,
    /// Answered well.
    pub ok: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Not answered, those still open at the time of counting not included.
    pub lost: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            inner: Mutex::default(),
        }
    }
}

impl Ledger {
    /// Time since the ledger began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Opens an entry and returns its id.
    pub fn open(&self) -> u64 {
        let now = self.now();
        let mut inner = self.inner.lock();
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id, now);
        id
    }

    /// Closes an entry.
    ///
    /// # Panics
    /// When the id was not open: the books would not balance.
    pub fn close(&self, id: u64, pod: Option<String>, outcome: Outcome) {
        let ended = self.now();
        let mut inner = self.inner.lock();
        let sent = inner
            .open
            .remove(&id)
            .expect("an id is closed once, after it was opened");
        inner.ended.push(Entry {
            sent,
            ended,
            pod,
            outcome,
        });
    }

    /// Requests that have been sent and have not ended.
    pub fn in_flight(&self) -> usize {
        self.inner.lock().open.len()
    }

    /// How many requests were sent in the span, ended or not.
    pub fn opened(&self, from: Duration, to: Duration) -> usize {
        let inner = self.inner.lock();
        let inside = |sent: Duration| sent >= from && sent < to;
        inner.open.values().filter(|sent| inside(**sent)).count()
            + inner.ended.iter().filter(|e| inside(e.sent)).count()
    }

    /// Entries that were sent in the span and match.
    pub fn entries(
        &self,
        from: Duration,
        to: Duration,
        keep: impl Fn(&Entry) -> bool,
    ) -> Vec<Entry> {
        let inner = self.inner.lock();
        inner
            .ended
            .iter()
            .filter(|e| e.sent >= from && e.sent < to && keep(e))
            .cloned()
            .collect()
    }

    /// Totals of the requests sent in the span.
    pub fn totals(&self, from: Duration, to: Duration) -> Totals {
        let inner = self.inner.lock();
        let mut totals = Totals::default();
        for entry in inner.ended.iter().filter(|e| e.sent >= from && e.sent < to) {
            totals.sent += 1;
            match entry.outcome {
                Outcome::Ok => totals.ok += 1,
                Outcome::Failed { .. } => totals.failed += 1,
                Outcome::Lost { .. } => totals.lost += 1,
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_ends_once_and_the_books_balance() {
        let ledger = Ledger::default();
        let ids: Vec<u64> = (0..3).map(|_| ledger.open()).collect();
        ledger.close(ids[0], Some("frontend-1".to_owned()), Outcome::Ok);
        ledger.close(
            ids[1],
            None,
            Outcome::Lost {
                why: "cut".to_owned(),
            },
        );
        assert_eq!(ledger.in_flight(), 1);
        ledger.close(
            ids[2],
            None,
            Outcome::Failed {
                status: 500,
                what: "GET /".to_owned(),
            },
        );
        let totals = ledger.totals(Duration::ZERO, Duration::MAX);
        assert_eq!(
            totals,
            Totals {
                sent: 3,
                ok: 1,
                failed: 1,
                lost: 1
            }
        );
        assert_eq!(ledger.in_flight(), 0);
    }

    #[test]
    #[should_panic(expected = "closed once")]
    fn closing_an_id_twice_is_an_error_of_the_generator() {
        let ledger = Ledger::default();
        let id = ledger.open();
        ledger.close(id, None, Outcome::Ok);
        ledger.close(id, None, Outcome::Ok);
    }
}
