//! The role's own certificate: read from its Secret, followed by a watch, used for the next
//! handshake. Connections that stand are left alone.
//!
//! ```text
//!  Secret ──watch──▶ Certs ──▶ Acceptor (per handshake: the newest config) ──▶ PeerStream
//!                          └─▶ client_config ──▶ relay
//! ```
//!
//! **Invariants**
//! - A bad Secret never replaces a good certificate.
//! - Private keys live inside rustls' configs only; nothing here that holds one has `Debug`.

mod accept;
mod certs;
mod connect;
#[cfg(test)]
pub(crate) mod tests;

pub use accept::{Acceptor, ClientAuth, PeerInfo, PeerStream};
pub use certs::{Certs, CertsError};
pub use connect::{ConnectError, connect};

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use crate::{backoff::Backoff, context::Context};

/// Follows a Secret of type kubernetes.io/tls with `ca.crt`; see [`Context::certs`].
pub(crate) fn follow(
    context: &Context,
    secret: &str,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Option<Arc<Certs>>> {
    let (publish, receiver) = watch::channel(None);
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.pod.namespace);
    let secret = secret.to_owned();
    let check = context.health.check("certificate");
    check.fail(format!(
        "Secret {secret} is not there yet; the ca role writes it, see its log"
    ));
    tasks.spawn(async move {
        let config = watcher::Config::default().fields(&format!("metadata.name={secret}"));
        let mut secrets = watcher(api, config)
            .backoff(Backoff::default())
            .touched_objects()
            .inspect_err(
                |error| warn!(%error, "watch of the own certificate failed; it is tried again"),
            )
            .filter_map(async |object| object.ok())
            .boxed();
        while let Some(object) = secrets.next().await {
            match Certs::from_secret(&object) {
                Ok(certs) => {
                    info!(
                        spiffe_id = certs.spiffe_id(),
                        serial = certs.serial(),
                        "certificate loaded"
                    );
                    check.pass();
                    publish.send_replace(Some(Arc::new(certs)));
                }
                Err(error) => warn!(%error, secret, "certificate not usable; the one in use stays"),
            }
        }
    });
    receiver
}
