//! What every role is given.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Context as _;
use kube::Client;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    telemetry::Telemetry,
    tls::{self, Certs},
};

/// What every role is given: who it is, the apiserver, and where it tells of itself.
#[derive(Clone)]
pub struct Context {
    /// The apiserver, with the role's own account.
    pub client: Client,
    /// The pod that this process runs in.
    pub pod: PodRef,
    /// Named checks behind `/readyz`.
    pub health: Arc<Health>,
    /// Metrics behind `/metrics`.
    pub telemetry: Telemetry,
}

/// The pod that this process runs in, from the downward API.
#[derive(Clone, Debug)]
pub struct PodRef {
    /// POD_NAME.
    pub name: String,
    /// POD_NAMESPACE.
    pub namespace: String,
    /// POD_IP.
    pub ip: IpAddr,
}

/// Returns when one of a role's tasks, all of which run as long as the role does, has ended
/// before `shutdown`. Without it nothing would be as it seems (a cache that is filled no more, a
/// relay that nobody serves), so the process ends, and is started anew.
pub async fn lost(tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> anyhow::Error {
    match tasks.join_next().await {
        Some(ended) if !shutdown.is_cancelled() => {
            let why = ended
                .err()
                .map_or("without a word".to_owned(), |e| e.to_string());
            anyhow::anyhow!("a task that this role needs has ended ({why}): report this")
        }
        _ => std::future::pending().await,
    }
}

/// Listens on a port of all addresses, IPv6 and IPv4 where the node has both.
///
/// # Errors
/// The port is taken, or may not be bound.
pub async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let all = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
    match all {
        Ok(listener) => Ok(listener),
        // A node without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("port {port} cannot be bound: choose another by its flag")),
    }
}

impl Context {
    /// Follows the role's certificate, kept by the `ca` role in the Secret of this name in the
    /// operator's namespace. The value is `None` until the Secret exists, then always the
    /// newest good one: a Secret that cannot be read as a certificate is logged and left.
    /// The watch runs until `tasks` is dropped.
    #[must_use]
    pub fn certs(
        &self,
        secret: &str,
        tasks: &mut JoinSet<()>,
    ) -> watch::Receiver<Option<Arc<Certs>>> {
        tls::follow(self, secret, tasks)
    }
}
