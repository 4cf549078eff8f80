#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// An apiserver in memory that can be cut off.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<MemoryState>>);

#[derive(Default)]
struct MemoryState {
    lease: Option<Lease>,
    version: u64,
    away: Vec<&'static str>,
}

struct Client {
    memory: Memory,
    name: &'static str,
}

impl Client {
    async fn reach(&self) {
        if self.memory.0.lock().away.contains(&self.name) {
            std::future::pending::<()>().await;
        }
    }
}

impl Store for Client {
    async fn get(&mut self) -> Result<Option<Lease>, Refusal> {
        self.reach().await;
        Ok(self.memory.0.lock().lease.clone())
    }

    async fn put(&mut self, mut lease: Lease) -> Result<Lease, Refusal> {
        self.reach().await;
        let mut state = self.memory.0.lock();
        let held = state
            .lease
            .as_ref()
            .and_then(|l| l.metadata.resource_version.clone());
        if held != lease.metadata.resource_version {
            return Err(Refusal::Conflict);
        }
        state.version += 1;
        lease.metadata.resource_version = Some(state.version.to_string());
        state.lease = Some(lease.clone());
        Ok(lease)
    }
}

impl Memory {
    fn holder(&self) -> String {
        self.0
            .lock()
            .lease
            .as_ref()
            .map(|l| holder(l).to_owned())
            .unwrap_or_default()
    }

    fn start(&self, name: &'static str) -> (Leadership, CancellationToken) {
        let (publish, receiver) = watch::channel(None);
        let release = CancellationToken::new();
        let mut store = Client {
            memory: self.clone(),
            name,
        };
        let candidate = Candidate {
            identity: name.to_owned(),
            relay: format!("{name}:15013"),
        };
        let token = release.clone();
        tokio::spawn(async move { campaign(&mut store, &candidate, &publish, token).await });
        (Leadership(receiver), release)
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_and_keeps_leading() {
    let memory = Memory::default();
    let (a, _stop_a) = memory.start("a");
    pass(10).await;
    let (b, _stop_b) = memory.start("b");
    for _ in 0..100 {
        pass(300).await;
        assert!(a.leads());
        assert!(!b.leads());
    }
    let lease = memory.0.lock().lease.clone().unwrap();
    assert_eq!(
        lease.metadata.annotations.unwrap()[RELAY_ADDRESS],
        "a:15013"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_graceful_stop_the_other_leads_within_a_second() {
    let memory = Memory::default();
    let (a, stop_a) = memory.start("a");
    pass(10).await;
    let (b, _stop_b) = memory.start("b");
    pass(3000).await;
    stop_a.cancel();
    pass(1000).await;
    assert!(!a.leads());
    assert!(b.leads());
    assert_eq!(memory.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_begins() {
    let memory = Memory::default();
    let (a, _stop_a) = memory.start("a");
    pass(10).await;
    let (b, _stop_b) = memory.start("b");
    pass(5000).await;
    assert!(a.leads());
    memory.0.lock().away.push("a");
    let mut a_stopped = None;
    let mut b_began = None;
    for tick in 0..1000 {
        pass(10).await;
        assert!(!(a.leads() && b.leads()), "two lead at tick {tick}");
        if a_stopped.is_none() && !a.leads() {
            a_stopped = Some(tick);
        }
        if b_began.is_none() && b.leads() {
            b_began = Some(tick);
        }
    }
    assert!(a_stopped.unwrap() < b_began.unwrap());
    assert!(
        b_began.unwrap() <= 800,
        "another leads within 8 s: {b_began:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_lost_renewal_costs_nothing() {
    let memory = Memory::default();
    let (a, _stop_a) = memory.start("a");
    pass(10).await;
    memory.0.lock().away.push("a");
    pass(3000).await;
    memory.0.lock().away.clear();
    for _ in 0..50 {
        pass(100).await;
        assert!(a.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_term_is_told_when_it_happens() {
    let memory = Memory::default();
    let (mut a, _stop_a) = memory.start("a");
    while !a.leads() {
        a.changed().await;
    }
    memory.0.lock().away.push("a");
    let began = Instant::now();
    while a.leads() {
        a.changed().await;
    }
    assert!(began.elapsed() <= DURATION - MARGIN + Duration::from_millis(10));
    assert!(a.lapsed().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_leader_leads_on_when_the_apiserver_is_back_and_nobody_took_over() {
    let memory = Memory::default();
    let (a, _stop_a) = memory.start("a");
    pass(10).await;
    let term = a.term();
    assert_eq!(a.lapsed(), None);
    memory.0.lock().away.push("a");
    pass(60_000).await;
    assert_eq!((a.term(), a.lapsed()), (None, term));
    memory.0.lock().away.clear();
    pass(2500).await;
    assert_eq!((a.term(), a.lapsed()), (term, None));
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_leader_that_sees_another_holder_is_none_any_more() {
    let memory = Memory::default();
    let (a, _stop_a) = memory.start("a");
    pass(10).await;
    let (b, _stop_b) = memory.start("b");
    memory.0.lock().away.push("a");
    pass(10_000).await;
    assert!(a.lapsed().is_some() && b.leads());
    memory.0.lock().away.clear();
    pass(2500).await;
    assert!(a.lapsed().is_none() && !a.leads() && b.leads());
}

#[test]
fn a_claim_keeps_what_others_wrote_and_counts_changes_of_the_holder() {
    let candidate = Candidate {
        identity: "b".to_owned(),
        relay: "1.2.3.4:15013".to_owned(),
    };
    let other = Candidate {
        identity: "a".to_owned(),
        relay: "1.2.3.3:15013".to_owned(),
    };
    let mut lease = other.claim(None, Timestamp::UNIX_EPOCH);
    lease
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert("note".to_owned(), "x".to_owned());
    let claimed = candidate.claim(Some(lease), Timestamp::UNIX_EPOCH);
    assert_eq!(transitions(&claimed), 2);
    assert_eq!(claimed.metadata.annotations.as_ref().unwrap()["note"], "x");
    let renewed = candidate.claim(Some(claimed), Timestamp::UNIX_EPOCH);
    assert_eq!(transitions(&renewed), 2);
}
