//! One request under watch, from the throw of its coin to the last byte of its answer.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Context,
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use sluice_xds::names::Arm;
use tokio::time::{Instant, Sleep, sleep};

use super::headers::grpc_status;
use crate::{
    config::{Cluster, Endpoint},
    evidence::{Counters, End, Failure},
    metrics::{Answer, Labels, Reporter},
    upstream::Upstream,
    worker::Worker,
};

/// The statuses that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
const GRPC_FAILURES: [u32; 6] = [2, 4, 12, 13, 14, 15];
const GRPC_UNKNOWN: u32 = 2;
/// UNAUTHENTICATED; what is above has no meaning and counts as UNKNOWN.
const GRPC_LAST: u32 = 16;

/// Where a request of the coin is booked.
#[derive(Debug, Clone)]
pub struct Booking {
    /// The counters of its split.
    pub counters: Arc<Counters>,
    /// The arm that the coin chose.
    pub arm: Arm,
}

/// Who is reported as having answered.
#[derive(Debug)]
pub struct Destination {
    /// The Service.
    pub cluster: Arc<Cluster>,
    /// The pod; none at the server's end.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Where its series are cached; none: nobody was reached.
    pub upstream: Option<Rc<Upstream>>,
}

/// What becomes of the counters when the request ends. Dropped before its end, it was cancelled
/// by the client: that counts in no arm.
#[derive(Debug)]
pub struct Tracker {
    worker: Rc<Worker>,
    reporter: Reporter,
    start: Instant,
    booking: Option<Booking>,
    hung: Option<Pin<Box<Sleep>>>,
    /// What the first failed attempt was; inside: whether it is an event of its own.
    failed: Option<(Failure, bool)>,
    /// Where the first attempt of a request of the coin went.
    first: Option<Arc<Endpoint>>,
    destination: Option<Destination>,
    is_grpc: bool,
    code: u16,
    grpc: Option<u32>,
    flags: &'static str,
    observed: bool,
}

impl Tracker {
    /// Starts the clock.
    pub fn new(
        worker: Rc<Worker>,
        reporter: Reporter,
        booking: Option<Booking>,
        hung_after: Option<Duration>,
    ) -> Self {
        let hung = booking.as_ref().and(hung_after);
        Self {
            worker,
            reporter,
            start: Instant::now(),
            booking,
            hung: hung.map(|after| Box::pin(sleep(after))),
            failed: None,
            first: None,
            destination: None,
            is_grpc: false,
            code: 0,
            grpc: None,
            flags: "-",
            observed: false,
        }
    }

    /// Runs a part of the request, with an eye on the hung line.
    pub async fn watch<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.poll_hung(cx);
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Counts the request as hung once it has crossed the line; its end counts no more.
    pub fn poll_hung(&mut self, cx: &mut Context<'_>) {
        let Some(hung) = &mut self.hung else { return };
        if hung.as_mut().poll(cx).is_pending() {
            return;
        }
        self.hung = None;
        self.fail(Failure::Hung, true);
        self.book(None);
    }

    /// A request of gRPC, whose own status counts.
    pub fn set_grpc(&mut self) {
        self.is_grpc = true;
    }

    /// Who answers.
    pub fn set_destination(&mut self, destination: Destination) {
        if self.first.is_none() && self.booking.is_some() {
            self.first.clone_from(&destination.endpoint);
        }
        self.destination = Some(destination);
    }

    /// Something went wrong for Envoy's response flags.
    pub fn set_flags(&mut self, flags: &'static str) {
        self.flags = flags;
    }

    /// The endpoint refused the connection, or its proxy could not hand the request over.
    pub fn connect_failed(&mut self, address: SocketAddr) {
        self.worker.shared.metrics.connect_failures.inc();
        if self.failed.is_none() && self.booking.is_some() {
            let event = self.worker.shared.evidence.is_new_connect_failure(address);
            self.fail(Failure::Connect, event);
        }
    }

    /// The connection or stream broke; `event`: not one that was already counted.
    pub fn broke(&mut self, event: bool) {
        self.fail(Failure::Reset, event);
    }

    fn fail(&mut self, failure: Failure, event: bool) {
        self.failed.get_or_insert((failure, event));
    }

    /// The head of the answer.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.code = status.as_u16();
        if self.is_grpc {
            self.grpc = grpc_status(headers).map(known);
        }
    }

    /// Its trailers.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if self.is_grpc {
            self.grpc = grpc_status(trailers).map(known).or(self.grpc);
        }
    }

    /// The answer has been given whole.
    pub fn complete(&mut self) {
        let grpc = if self.is_grpc && self.code == 200 {
            Some(*self.grpc.get_or_insert(GRPC_UNKNOWN))
        } else {
            None
        };
        if self.code >= 500 {
            self.fail(Failure::Server, true);
        } else if grpc.is_some_and(|status| GRPC_FAILURES.contains(&status)) {
            self.fail(Failure::Grpc, true);
        }
        self.book(Some(self.start.elapsed()));
        self.observe();
    }

    /// There is no whole answer, and it is not the client's doing. What was no failure is not
    /// counted in an arm.
    pub fn cut(&mut self) {
        if self.failed.is_some() {
            self.book(None);
        }
        self.observe();
    }

    fn book(&mut self, answered_in: Option<Duration>) {
        self.hung = None;
        let Some(Booking { counters, arm }) = self.booking.take() else {
            return;
        };
        counters.ended(
            arm,
            End {
                failure: self
                    .failed
                    .and_then(|(failure, event)| event.then_some(failure)),
                // After a failure the answer is another attempt's.
                client_error: self.failed.is_none() && (400..500).contains(&self.code),
                answered_in,
                unreached: matches!(self.failed, Some((Failure::Connect, _))),
                pod: self.first.as_ref().map(|endpoint| &*endpoint.facts.pod),
            },
        );
    }

    fn observe(&mut self) {
        if std::mem::replace(&mut self.observed, true) {
            return;
        }
        let Some(destination) = &self.destination else {
            return;
        };
        let answer = Answer {
            code: self.code,
            grpc: self.grpc,
            is_grpc: self.is_grpc,
            flags: self.flags,
            reporter: self.reporter,
        };
        let labels = Labels {
            service: &destination.cluster.service,
            destination: destination.endpoint.as_ref().map(|e| &e.facts),
        };
        let metrics = &self.worker.shared.metrics;
        let series = match &destination.upstream {
            Some(upstream) => upstream.series().get(metrics, labels, &answer),
            None => metrics.series(labels, &answer),
        };
        series.observe(self.start.elapsed());
    }
}

fn known(grpc: u32) -> u32 {
    if grpc > GRPC_LAST { GRPC_UNKNOWN } else { grpc }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if !self.observed {
            self.flags = "DC";
            self.observe();
        }
    }
}
