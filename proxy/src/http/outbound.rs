//! Requests of clients to Services: the coin, the endpoint, and what may be tried again.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    body::Source,
    headers::{REFUSED, is_grpc, strip_hop, upgrade},
    local::{Reason, bad_request, unavailable},
    observe::{Booking, Destination, Tracker},
    response::ResponseBody,
    template::Template,
    upgrade::switch,
};
use crate::{
    balance::{Choice, choose, fallback, pick},
    config::{Cluster, Endpoint, Lookup, Route},
    metrics::Reporter,
    upstream::{Fault, Protocol, Ticket},
    worker::Worker,
};

/// Endpoints of one arm that are tried.
const TRIES: usize = 3;
/// Reused connections that may have died under one request.
const STALE: usize = 3;

/// Answers a request to the destination of this listener.
pub async fn outbound(
    worker: Rc<Worker>,
    listener: &str,
    forwarded_for: Option<SocketAddr>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let grpc = is_grpc(request.headers());
    let Some(route) = http_route(&worker, listener) else {
        return unavailable(Reason::NoRoute, grpc);
    };
    let version = request.version();
    let client = changes_protocol(&request).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut template = match Template::new(parts, &worker.coin) {
        Ok(template) => template,
        Err(why) => return bad_request(why),
    };
    if let Some(peer) = forwarded_for {
        super::headers::append_forwarded(template.headers_mut(), peer.ip());
    }
    let Some(choice) = choose(&route, &worker.coin, worker.shared.lease.lapsed()) else {
        return nowhere(&worker, &route, grpc);
    };
    let mut exchange = Exchange {
        tracker: tracker(&worker, &route, choice),
        worker,
        template,
        body: Source::new(body),
        http2: version == Version::HTTP_2,
        tried: Vec::new(),
        stale: 0,
        answering: None,
    };
    if grpc {
        exchange.tracker.set_grpc();
    }
    match exchange.run(&route, choice.branch).await {
        Ok((response, ticket)) => exchange.respond(response, ticket, client),
        Err(reason) => exchange.give_up(reason, grpc),
    }
}

fn http_route(worker: &Worker, listener: &str) -> Option<Arc<Route>> {
    match worker.shared.snapshot.load().lookup(listener) {
        Lookup::Found(listener) => listener.http().cloned(),
        Lookup::Absent | Lookup::Unknown => None,
    }
}

fn changes_protocol(request: &Request<Incoming>) -> bool {
    request.method() == Method::CONNECT || upgrade(request.headers()).is_some()
}

/// Watches the request; one of the coin is booked to its arm, any other counted beside.
fn tracker(worker: &Rc<Worker>, route: &Route, choice: Choice) -> Tracker {
    let split = route.split.as_ref();
    let arm = route.branches[choice.branch].arm;
    let booking = split.zip(arm).map(|(split, arm)| Booking {
        counters: split.counters.clone(),
        arm,
    });
    if !choice.coined
        && let Some(booking) = &booking
    {
        booking.counters.uncoined(booking.arm);
    }
    let booking = booking.filter(|_| choice.coined);
    let hung_after = split.and_then(|split| split.hung_after);
    Tracker::new(worker.clone(), Reporter::Source, booking, hung_after)
}

/// No arm may take it: said, and counted under the Service.
fn nowhere(worker: &Rc<Worker>, route: &Route, grpc: bool) -> Response<ResponseBody> {
    let mut tracker = Tracker::new(worker.clone(), Reporter::Source, None, None);
    if let Some(branch) = route.branches.first() {
        tracker.set_destination(Destination {
            cluster: branch.cluster.clone(),
            endpoint: None,
            upstream: None,
        });
    }
    let response = unavailable(Reason::NoEndpoint, grpc);
    tracker.answered(response.status(), response.headers());
    tracker.set_flags(Reason::NoEndpoint.flags());
    tracker.cut();
    response
}

/// One request on its way.
struct Exchange {
    worker: Rc<Worker>,
    tracker: Tracker,
    template: Template,
    body: Source,
    http2: bool,
    tried: Vec<SocketAddr>,
    stale: usize,
    answering: Option<Arc<Endpoint>>,
}

/// What follows from an attempt that failed.
enum Next {
    /// Another endpoint.
    Elsewhere,
    /// A new connection.
    Again,
    /// Nothing may be tried.
    Stop,
}

impl Exchange {
    /// Tries endpoints of the arm, then of another one.
    async fn run(
        &mut self,
        route: &Route,
        first: usize,
    ) -> Result<(Response<Incoming>, Ticket), Reason> {
        if let Some(done) = self.run_branch(&route.branches[first].cluster).await {
            return done;
        }
        let lapsed = self.worker.shared.lease.lapsed();
        let Some(other) = fallback(route, lapsed, |branch| branch != first) else {
            return Err(Reason::Unreachable);
        };
        let branch = &route.branches[other];
        if let Some((split, arm)) = route.split.as_ref().zip(branch.arm) {
            split.counters.uncoined(arm);
        }
        let done = self.run_branch(&branch.cluster).await;
        done.unwrap_or(Err(Reason::Unreachable))
    }

    /// None: nothing was processed, and what may be tried here is used up.
    async fn run_branch(
        &mut self,
        cluster: &Arc<Cluster>,
    ) -> Option<Result<(Response<Incoming>, Ticket), Reason>> {
        let mut tries = 0;
        let mut fresh = false;
        let mut last: Option<Arc<Endpoint>> = None;
        while tries < TRIES {
            let endpoint = match last.take() {
                Some(endpoint) => endpoint,
                None => self.pick(cluster)?,
            };
            let (fault, next) = match self.attempt(cluster, &endpoint, fresh).await {
                Ok(answer) => return Some(Ok(answer)),
                Err(fault) => {
                    let next = self.judge(&fault);
                    (fault, next)
                }
            };
            tracing::debug!(address = %endpoint.address, %fault, "no answer");
            match next {
                Next::Elsewhere => {
                    tries += 1;
                    fresh = false;
                    self.tried.push(endpoint.address);
                }
                Next::Again => {
                    self.worker.shared.metrics.replays.inc();
                    fresh = true;
                    last = Some(endpoint);
                }
                Next::Stop => return Some(Err(Reason::Broken)),
            }
        }
        None
    }

    fn pick(&self, cluster: &Cluster) -> Option<Arc<Endpoint>> {
        let Worker {
            coin, upstreams, ..
        } = &*self.worker;
        let load = |address| upstreams.load(address);
        pick(&cluster.endpoints, &self.tried, coin, load).cloned()
    }

    async fn attempt(
        &mut self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Ticket), Fault> {
        let upstream = self.worker.upstreams.get(endpoint.address);
        self.answering = Some(endpoint.clone());
        self.tracker.set_destination(Destination {
            cluster: cluster.clone(),
            endpoint: Some(endpoint.clone()),
            upstream: Some(upstream.clone()),
        });
        let http2 = (self.http2 || cluster.http2) && !self.template.upgrades();
        let protocol = if http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        let request = self.template.request(protocol, self.body.attempt());
        let sent = self
            .tracker
            .watch(upstream.send(request, protocol, fresh))
            .await;
        let failed = match &sent {
            Ok((response, _)) => response.headers().contains_key(REFUSED),
            Err(fault) => matches!(fault, Fault::Connect(_)),
        };
        if failed {
            upstream.refused();
            self.tracker.connect_failed(endpoint.address);
        }
        match sent {
            // The far proxy reached no application: as good as a refused connection.
            Ok(_) if failed => Err(Fault::Connect(std::io::ErrorKind::ConnectionRefused.into())),
            sent => sent,
        }
    }

    /// What may be sent again, and where. Shielding (an answer of stable in place of a failed
    /// one of the candidate) would be one more case here.
    fn judge(&mut self, fault: &Fault) -> Next {
        let next = self.next(fault);
        if let Next::Stop = next
            && !self.body.failed()
        {
            // The client gets no answer, whatever the reason is: that is a failure.
            let event = !matches!(fault, Fault::Reset { first: false });
            self.tracker.broke(event);
        }
        next
    }

    fn next(&mut self, fault: &Fault) -> Next {
        if !self.body.can_replay() {
            return Next::Stop;
        }
        match fault {
            Fault::Connect(_) => Next::Elsewhere,
            Fault::Unprocessed => self.again(),
            Fault::Stale if self.template.is_idempotent() => self.again(),
            Fault::Stale | Fault::Reset { .. } => Next::Stop,
        }
    }

    fn again(&mut self) -> Next {
        self.stale += 1;
        if self.stale > STALE {
            Next::Stop
        } else {
            Next::Again
        }
    }

    fn respond(
        mut self,
        response: Response<Incoming>,
        ticket: Ticket,
        client: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        self.tracker.answered(response.status(), response.headers());
        if let Some(client) = client.filter(|_| self.template.is_agreed(response.status())) {
            self.tracker.complete();
            return switch(self.worker, response, ticket, client);
        }
        let (mut parts, body) = response.into_parts();
        strip_hop(&mut parts.headers, None);
        parts.headers.remove(REFUSED);
        self.name_endpoint(&mut parts.headers);
        Response::from_parts(parts, ResponseBody::observed(body, self.tracker, ticket))
    }

    /// For people who want to know which pod answered, where that was asked for.
    fn name_endpoint(&self, headers: &mut HeaderMap) {
        let Some(name) = self.worker.shared.answered_by.get() else {
            return;
        };
        let pod = self
            .answering
            .as_ref()
            .map(|endpoint| endpoint.facts.pod.as_str());
        if let Some(pod) = pod.and_then(|pod| HeaderValue::from_str(pod).ok()) {
            headers.insert(name.clone(), pod);
        }
    }

    fn give_up(mut self, reason: Reason, grpc: bool) -> Response<ResponseBody> {
        let response = unavailable(reason, grpc);
        if !self.body.failed() {
            self.tracker.answered(response.status(), response.headers());
            self.tracker.set_flags(reason.flags());
            self.tracker.cut();
        }
        response
    }
}
