//! Connections that become another protocol's (WebSocket, CONNECT): bytes both ways from then on.

use std::rc::Rc;

use http::Response;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{
    headers::{REFUSED, strip_hop, upgrade},
    response::ResponseBody,
};
use crate::{upstream::Ticket, worker::Worker};

/// Passes the server's agreement on, and joins both sides once each has changed its protocol.
pub fn switch(
    worker: Rc<Worker>,
    mut response: Response<Incoming>,
    ticket: Ticket,
    client: OnUpgrade,
) -> Response<ResponseBody> {
    let server = hyper::upgrade::on(&mut response);
    tokio::task::spawn_local(tunnel(worker, client, server, ticket));
    let (mut parts, _) = response.into_parts();
    let protocol = upgrade(&parts.headers);
    strip_hop(&mut parts.headers, protocol);
    parts.headers.remove(REFUSED);
    Response::from_parts(parts, ResponseBody::empty())
}

async fn tunnel(worker: Rc<Worker>, client: OnUpgrade, server: OnUpgrade, _ticket: Ticket) {
    let _open = worker.shared.drain.open();
    let Ok((client, server)) = futures::try_join!(client, server) else {
        return;
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    // How it ends is the business of the two ends.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
