//! Requests of others to the application of this pod.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use http::{Request, Response, Version};
use hyper::body::Incoming;

use super::{
    body::Source,
    headers::{REFUSED, is_grpc, strip_hop},
    local::{Reason, bad_request, refused, unavailable},
    observe::{Destination, Tracker},
    response::ResponseBody,
    template::Template,
    upgrade::switch,
};
use crate::{
    config::{Cluster, ServiceName},
    metrics::Reporter,
    upstream::{Fault, Protocol},
    worker::Worker,
};

/// Reused connections that may have died under one request.
const STALE: usize = 3;

/// Hands a request to the application at `address`. What was never handed over is answered with
/// [`REFUSED`], so that the client's proxy may send it elsewhere.
pub async fn inbound(
    worker: Rc<Worker>,
    address: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let grpc = is_grpc(request.headers());
    let http2 = request.version() == Version::HTTP_2;
    let client = super::headers::upgrade(request.headers())
        .is_some()
        .then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let template = match Template::new(parts, &worker.coin) {
        Ok(template) => template,
        Err(why) => return bad_request(why),
    };
    let body = Source::new(body);
    let upstream = worker.upstreams.local(address);
    let mut tracker = Tracker::new(worker.clone(), Reporter::Destination, None, None);
    tracker.set_destination(Destination {
        cluster: worker.own.clone(),
        endpoint: None,
        upstream: Some(upstream.clone()),
    });
    if grpc {
        tracker.set_grpc();
    }
    let protocol = if http2 {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    let mut stale = 0;
    loop {
        let attempt = template.request(protocol, body.attempt());
        let fault = match upstream.send(attempt, protocol, stale > 0).await {
            Ok((response, ticket)) => {
                tracker.answered(response.status(), response.headers());
                if let Some(client) = client.filter(|_| template.is_agreed(response.status())) {
                    tracker.complete();
                    return switch(worker, response, ticket, client);
                }
                let (mut parts, body) = response.into_parts();
                strip_hop(&mut parts.headers, None);
                parts.headers.remove(REFUSED);
                return Response::from_parts(parts, ResponseBody::observed(body, tracker, ticket));
            }
            Err(fault) => fault,
        };
        let may = match &fault {
            Fault::Unprocessed => true,
            Fault::Stale => template.is_idempotent(),
            Fault::Connect(_) | Fault::Reset { .. } => false,
        };
        stale += 1;
        if may && body.can_replay() && stale <= STALE {
            continue;
        }
        let (response, flags) = match fault {
            Fault::Connect(_) | Fault::Unprocessed => (refused(), Reason::Unreachable.flags()),
            Fault::Stale | Fault::Reset { .. } => {
                (unavailable(Reason::Broken, grpc), Reason::Broken.flags())
            }
        };
        if !body.failed() {
            tracker.answered(response.status(), response.headers());
            tracker.set_flags(flags);
            tracker.cut();
        }
        return response;
    }
}

/// The cluster that inbound requests are reported under: this workload's Service by its
/// canonical name.
pub fn own_cluster(own: &sluice_xds::metadata::EndpointFacts) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: "inbound".to_owned(),
        service: ServiceName {
            host: sluice_xds::names::fqdn(&own.namespace, &own.canonical_name),
            name: own.canonical_name.clone(),
            namespace: own.namespace.clone(),
        },
        http2: false,
        endpoints: Arc::default(),
    })
}
