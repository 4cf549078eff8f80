//! Which MeshRollouts are to be looked at, and when. One look at one object at a time; wakes
//! that come during a look lead to exactly one more.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::facts::Key;

/// How long evidence is gathered before a look: a failure's report wakes within this, and a
/// thousand proxies' reports do not make a thousand looks.
const EVIDENCE_DELAY: Duration = Duration::from_millis(2);
/// The same for each proxy that a look has to ask about, whose reports come ever more often the
/// more there are: looks take a small share of the time, however many proxies report.
const EVIDENCE_DELAY_OF_A_PROXY: Duration = Duration::from_micros(10);
/// The longest that evidence waits for a look.
const LONGEST_EVIDENCE_DELAY: Duration = Duration::from_millis(100);

/// How long evidence is gathered before a look that asks about so many proxies.
fn evidence_delay(proxies: u32) -> Duration {
    (EVIDENCE_DELAY + EVIDENCE_DELAY_OF_A_PROXY * proxies).min(LONGEST_EVIDENCE_DELAY)
}

/// A keyed queue with timers; cheap to clone.
#[derive(Clone, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Woken while running: to be queued when the look ends.
    again: HashSet<Key>,
    /// The earliest time at which a key wants to be woken.
    timers: HashMap<Key, Instant>,
    /// The same, the earliest first.
    due: BTreeSet<(Instant, Key)>,
    /// How long evidence is gathered where that is longer than usual.
    patience: HashMap<Key, Duration>,
}

impl State {
    fn wake(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn wake_at(&mut self, key: Key, at: Instant) {
        let set = self.timers.get(&key).copied();
        if set.is_some_and(|set| set <= at) {
            return;
        }
        self.clear_timer(&key);
        self.timers.insert(key.clone(), at);
        self.due.insert((at, key));
    }

    fn clear_timer(&mut self, key: &Key) {
        if let Some(at) = self.timers.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    fn fire(&mut self, now: Instant) {
        while let Some((_, key)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.clear_timer(&key);
            self.wake(key);
        }
    }

    fn take(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        self.clear_timer(&key);
        Some(key)
    }
}

impl Queue {
    /// Looks at the object as soon as can be.
    pub fn wake(&self, key: Key) {
        self.0.state.lock().wake(key);
        self.0.changed.notify_one();
    }

    /// Looks at the object at `at`, unless it is looked at before: each look clears its timer.
    pub fn wake_at(&self, key: Key, at: Instant) {
        self.0.state.lock().wake_at(key, at);
        self.0.changed.notify_one();
    }

    /// Looks at the object soon: there is evidence, and more may be on its way.
    pub fn wake_for_evidence(&self, key: Key) {
        let mut state = self.0.state.lock();
        let patience = state.patience.get(&key).copied();
        let at = Instant::now() + patience.unwrap_or(EVIDENCE_DELAY);
        state.wake_at(key, at);
        drop(state);
        self.0.changed.notify_one();
    }

    /// A look at the object asks about so many proxies.
    pub fn asks_about(&self, key: &Key, proxies: u32) {
        let patience = &mut self.0.state.lock().patience;
        if proxies == 0 {
            patience.remove(key);
        } else {
            patience.insert(key.clone(), evidence_delay(proxies));
        }
    }

    /// The next object to be looked at; [`Queue::done`] must follow.
    pub async fn next(&self) -> Key {
        loop {
            let next_timer = {
                let mut state = self.0.state.lock();
                state.fire(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.due.first().map(|(at, _)| *at)
            };
            let changed = self.0.changed.notified();
            match next_timer {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// The look at this object has ended.
    pub fn done(&self, key: &Key) {
        let mut state = self.0.state.lock();
        state.running.remove(key);
        if state.again.remove(key) {
            state.wake(key.clone());
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "n".to_owned(),
            name: name.to_owned(),
        }
    }

    async fn nothing(queue: &Queue) {
        assert!(
            tokio::time::timeout(Duration::from_millis(1), queue.next())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_never_looked_at_twice_at_one_time() {
        let queue = Queue::default();
        queue.wake(key("a"));
        queue.wake(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.wake(key("a"));
        queue.wake(key("a"));
        nothing(&queue).await;
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"));
        nothing(&queue).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_timer_holds_and_a_look_clears_it() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.wake_at(key("a"), start + Duration::from_secs(5));
        queue.wake_at(key("a"), start + Duration::from_secs(3));
        queue.wake_at(key("a"), start + Duration::from_secs(9));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 3);
        queue.done(&key("a"));
        queue.wake_at(key("a"), start + Duration::from_secs(4));
        queue.wake(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"));
        let late = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(late.is_err(), "the timer was cleared by the look");
    }

    #[tokio::test(start_paused = true)]
    async fn evidence_of_many_proxies_is_gathered_for_longer_but_not_for_long() {
        let queue = Queue::default();
        for (proxies, wanted) in [(0, 2), (100, 3), (3000, 32), (1_000_000, 100)] {
            let start = Instant::now();
            queue.asks_about(&key("a"), proxies);
            for _ in 0..5 {
                queue.wake_for_evidence(key("a"));
            }
            assert_eq!(queue.next().await, key("a"));
            assert_eq!(start.elapsed().as_millis(), wanted, "{proxies} proxies");
            queue.done(&key("a"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_ends_during_a_look_leads_to_another() {
        let queue = Queue::default();
        queue.wake(key("a"));
        queue.next().await;
        queue.wake_at(key("a"), Instant::now() + Duration::from_secs(1));
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        queue.done(&key("a"));
        assert_eq!(waiter.await.ok(), Some(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn others_do_not_wait_for_a_slow_one() {
        let queue = Queue::default();
        queue.wake(key("slow"));
        queue.next().await;
        queue.wake(key("b"));
        assert_eq!(queue.next().await, key("b"));
    }
}
