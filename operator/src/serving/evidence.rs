//! The evidence service: takes reports in, and tells proxies that somebody listens.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::Stream;
use sluice_evidence::{
    Identity,
    v1::{ProxyReport, Record, ServerNote, evidence_server::Evidence},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    auth::{Authenticator, prove},
    hub::{Hub, View},
};

/// How often a proxy hears of us; after 60 s of silence it takes unpromoted arms off.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Records wanted while a service of the proxy's view has a candidate, and otherwise.
const INTERVAL_TRYING_MS: u32 = 250;
const INTERVAL_IDLE_MS: u32 = 5000;
/// Proxies send at least every 3 s; who is silent for longer has gone without a word.
const SILENCE: Duration = Duration::from_secs(15);
/// Subscriptions come into view in a fraction of this.
const LATE: Duration = Duration::from_secs(15);
/// Most records of one stream that wait for their service to come into view.
const MAX_WITHHELD: usize = 256;

/// The evidence service.
pub(super) struct EvidenceService {
    pub(super) hub: Arc<Hub>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Evidence for EvidenceService {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ServerNote, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<ProxyReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let proved = prove(&*self.authenticator, request.metadata()).await;
        let identity = proved.inspect_err(|_| {
            self.hub.metrics.unauthenticated.inc();
        })?;
        let (notes, receiver) = mpsc::channel(2);
        let witness = Witness {
            hub: self.hub.clone(),
            identity,
            process_start_ms: None,
            last: ProxyReport::default(),
            withheld: Withheld::default(),
            named: false,
        };
        tokio::spawn(witness.run(request.into_inner(), notes, self.shutdown.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One proxy's stream.
struct Witness {
    hub: Arc<Hub>,
    identity: Identity,
    /// From the first report: one stream is one process.
    process_start_ms: Option<u64>,
    /// The last report without its records.
    last: ProxyReport,
    withheld: Withheld,
    /// Whether the log has said that it reports on what is outside of its view.
    named: bool,
}

/// Records of services that are not in the proxy's view yet: a proxy that connects sends its
/// subscriptions and its records at the same time.
#[derive(Default)]
struct Withheld(BTreeMap<(String, String, i64), Waiting>);

/// A record that waits.
struct Waiting {
    record: Record,
    since: Instant,
    /// Whether it was counted as out of view.
    counted: bool,
}

impl Witness {
    async fn run(
        mut self,
        reports: Streaming<ProxyReport>,
        notes: mpsc::Sender<Result<ServerNote, Status>>,
        shutdown: CancellationToken,
    ) {
        let ended = tokio::select! {
            ended = self.listen(reports, &notes) => ended,
            () = shutdown.cancelled() => {
                Err(Status::unavailable("this replica is stopping: connect again"))
            }
        };
        let Identity { namespace, pod, .. } = &self.identity;
        match ended {
            Ok(()) => debug!(namespace, pod, "evidence stream closed by the proxy"),
            Err(status) => {
                info!(
                    namespace,
                    pod,
                    reason = status.message(),
                    "evidence stream ended"
                );
                let _ = notes.try_send(Err(status));
            }
        }
    }

    async fn listen(
        &mut self,
        mut reports: Streaming<ProxyReport>,
        notes: &mpsc::Sender<Result<ServerNote, Status>>,
    ) -> Result<(), Status> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                report = reports.message() => {
                    let Some(report) = report? else { return Ok(()) };
                    heard = Instant::now();
                    self.take_in(report)?;
                }
                _ = heartbeat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(Status::deadline_exceeded("no report for 15 s"));
                    }
                    self.retry_withheld()?;
                    // A proxy that does not read has notes enough in its queue.
                    let _ = notes.try_send(Ok(self.note()));
                }
            }
        }
    }

    fn take_in(&mut self, mut report: ProxyReport) -> Result<(), Status> {
        let start = *self.process_start_ms.get_or_insert(report.process_start_ms);
        if report.process_start_ms != start {
            return Err(Status::invalid_argument(
                "process_start_ms changed within a stream: open a new one",
            ));
        }
        self.hub.metrics.reports.inc();
        if let Some((parts, service)) = self.hub.strip(&self.identity, &mut report) {
            self.out_of_view(parts, &service);
        }
        let view = self.hub.view_of(&self.identity);
        let records = std::mem::take(&mut report.records);
        self.last = report;
        self.withheld.add(records);
        self.tell(&view)
    }

    fn retry_withheld(&mut self) -> Result<(), Status> {
        if self.withheld.0.is_empty() {
            return Ok(());
        }
        let view = self.hub.view_of(&self.identity);
        if self.withheld.any(&view) {
            self.tell(&view)?;
        }
        if let Some((records, service)) = self.withheld.overdue() {
            self.out_of_view(records, &service);
        }
        Ok(())
    }

    /// Counts what is not taken of the proxy's word, and names it once.
    fn out_of_view(&mut self, parts: u64, service: &str) {
        self.hub.metrics.out_of_view.inc_by(parts);
        if std::mem::replace(&mut self.named, true) {
            return;
        }
        warn!(
            namespace = self.identity.namespace,
            pod = self.identity.pod,
            service,
            "a proxy reports on a Service outside of its view: what it says of it is not taken"
        );
    }

    /// The last report with the records that may be taken now.
    fn tell(&mut self, view: &View) -> Result<(), Status> {
        let report = ProxyReport {
            records: self.withheld.take(view),
            ..self.last.clone()
        };
        self.hub
            .report(&self.identity, &report, view)
            .map_err(|refused| Status::resource_exhausted(refused.to_string()))
    }

    fn note(&self) -> ServerNote {
        let view = self.hub.view_of(&self.identity);
        let trying = self.hub.is_tried(&view);
        ServerNote {
            interval_ms: if trying {
                INTERVAL_TRYING_MS
            } else {
                INTERVAL_IDLE_MS
            },
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(start) = self.process_start_ms {
            self.hub.disconnected(&self.identity.pod_uid, start);
        }
    }
}

impl Withheld {
    /// Counters are cumulative: a newer record of a key replaces the older.
    fn add(&mut self, records: Vec<Record>) {
        for record in records {
            let key = (
                record.service.clone(),
                record.revision.clone(),
                record.fence,
            );
            match self.0.entry(key) {
                Entry::Occupied(mut held) => held.get_mut().record = record,
                Entry::Vacant(place) => {
                    place.insert(Waiting {
                        record,
                        since: Instant::now(),
                        counted: false,
                    });
                }
            }
        }
    }

    /// How many have waited for too long to be a matter of order, and the first one's Service;
    /// each is counted once.
    fn overdue(&mut self) -> Option<(u64, String)> {
        let (mut records, mut first) = (0, None);
        for ((service, ..), waiting) in &mut self.0 {
            if waiting.counted || waiting.since.elapsed() < LATE {
                continue;
            }
            waiting.counted = true;
            records += 1;
            first.get_or_insert_with(|| service.clone());
        }
        first.map(|service| (records, service))
    }

    fn any(&self, view: &View) -> bool {
        self.0.keys().any(|(service, ..)| view.contains(service))
    }

    /// Takes those of services in view; of the rest at most [`MAX_WITHHELD`] stay.
    fn take(&mut self, view: &View) -> Vec<Record> {
        let (taken, mut kept): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|((service, ..), _)| view.contains(service));
        while kept.len() > MAX_WITHHELD {
            kept.pop_first();
        }
        self.0 = kept;
        taken.into_values().map(|waiting| waiting.record).collect()
    }
}
