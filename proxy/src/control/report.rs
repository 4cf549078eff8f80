//! The evidence stream: what was seen, which fences are in force, what was refused; and the
//! notes that renew the lease.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sluice_evidence::v1::{
    AppliedSplit, Inbound, ProxyReport, Record, Rejection, ServerNote,
    evidence_client::EvidenceClient,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{backoff::Backoff, channel::Token, left};
use crate::{evidence::Key, shared::Shared};

/// A failure is told at once, but not more often than this.
const FAILURE_GAP: Duration = Duration::from_millis(50);
/// A report goes out at least this often: it is the keep-alive.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);
/// Who came to the application is told at most this often.
const INBOUND: Duration = Duration::from_secs(1);
/// How often records are sent as long as the server has not said.
const INTERVAL: Duration = Duration::from_secs(1);
/// What the server may ask for.
const INTERVALS: std::ops::RangeInclusive<u32> = 50..=60_000;
/// Time that the last report gets to be received.
const GOODBYE: Duration = Duration::from_millis(500);

/// Reports over one stream after the other; returns when we leave and all is said.
pub async fn run(
    shared: Arc<Shared>,
    channel: Channel,
    token: Token,
    leaving: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::default();
    loop {
        let ended = stream(&shared, channel.clone(), &token, leaving.clone()).await;
        if *leaving.borrow() {
            return;
        }
        if let Err(status) = ended {
            tracing::warn!(%status, "the evidence stream broke");
        }
        sleep(backoff.next()).await;
    }
}

async fn stream(
    shared: &Arc<Shared>,
    channel: Channel,
    token: &Token,
    leaving: watch::Receiver<bool>,
) -> Result<(), Status> {
    let (reports, queue) = mpsc::channel(4);
    let (notes, received) = mpsc::channel(4);
    let reporter = Reporter::new(shared.clone()).run(reports, received, leaving);
    let talk = async {
        let request = token.request(ReceiverStream::new(queue));
        let mut stream = EvidenceClient::new(channel)
            .report(request)
            .await?
            .into_inner();
        while let Some(note) = stream.message().await? {
            let _ = notes.send(note).await;
        }
        Ok(())
    };
    tokio::select! {
        ended = talk => ended,
        () = reporter => Ok(()),
    }
}

/// Decides when to send what, on one stream.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    sent: BTreeMap<Key, Record>,
    applied: Vec<AppliedSplit>,
    refused: Vec<Rejection>,
    interval: Duration,
    inbound: Inbound,
    inbound_told: Option<Instant>,
}

impl Reporter {
    /// For a new stream: everything is to be sent.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            sent: BTreeMap::new(),
            applied: Vec::new(),
            refused: Vec::new(),
            interval: INTERVAL,
            inbound: Inbound::default(),
            inbound_told: None,
        }
    }

    /// Sends until the stream ends, or until we leave: then once more, and a moment for the
    /// other end to read it.
    pub async fn run(
        mut self,
        reports: mpsc::Sender<ProxyReport>,
        mut notes: mpsc::Receiver<ServerNote>,
        mut leaving: watch::Receiver<bool>,
    ) {
        let shared = self.shared.clone();
        let mut published = shared.published();
        if reports.send(self.report()).await.is_err() {
            return;
        }
        let (mut read, mut sent) = (Instant::now(), Instant::now());
        let mut alarm = false;
        loop {
            let due = (read + self.interval).min(sent + KEEP_ALIVE);
            let urgent = tokio::select! {
                note = notes.recv() => {
                    let Some(note) = note else { return };
                    self.noted(note);
                    continue;
                }
                () = shared.evidence.failure(), if !alarm => {
                    alarm = true;
                    continue;
                }
                () = sleep_until(read + FAILURE_GAP), if alarm => true,
                _ = published.changed() => {
                    if !self.state_changed() {
                        continue;
                    }
                    true
                }
                () = sleep_until(due) => false,
                () = left(&mut leaving) => {
                    self.inbound_told = None;
                    let _ = reports.send(self.report()).await;
                    drop(reports);
                    return sleep(GOODBYE).await;
                }
            };
            read = Instant::now();
            alarm = false;
            let report = self.report();
            let is_news = !report.records.is_empty() || report.inbound.is_some();
            if !urgent && !is_news && sent.elapsed() < KEEP_ALIVE {
                continue;
            }
            sent = read;
            shared.metrics.reports.inc();
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }

    fn noted(&mut self, note: ServerNote) {
        self.shared.lease.renew();
        let (least, most) = INTERVALS.into_inner();
        if note.interval_ms > 0 {
            let interval = note.interval_ms.clamp(least, most);
            self.interval = Duration::from_millis(interval.into());
        }
    }

    fn state(&self) -> (Vec<AppliedSplit>, Vec<Rejection>) {
        let snapshot = self.shared.snapshot.load();
        let applied = snapshot
            .applied
            .iter()
            .map(|(service, fence)| AppliedSplit {
                service: service.clone(),
                fence: *fence,
            });
        (applied.collect(), self.shared.status.load().refused.clone())
    }

    fn state_changed(&self) -> bool {
        let (applied, refused) = self.state();
        applied != self.applied || refused != self.refused
    }

    fn report(&mut self) -> ProxyReport {
        (self.applied, self.refused) = self.state();
        ProxyReport {
            process_start_ms: self.shared.started_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: self.applied.clone(),
            records: self.shared.evidence.changed(&mut self.sent),
            rejections: self.refused.clone(),
            inbound: self.inbound(),
        }
    }

    fn inbound(&mut self) -> Option<Inbound> {
        if self
            .inbound_told
            .is_some_and(|told| told.elapsed() < INBOUND)
        {
            return None;
        }
        let now = self.shared.sources.report();
        if now == self.inbound {
            return None;
        }
        self.inbound_told = Some(Instant::now());
        self.inbound.clone_from(&now);
        Some(now)
    }
}
