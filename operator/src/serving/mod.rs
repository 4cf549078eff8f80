//! The `serving` role: xDS and evidence for proxies, and the webhooks.
//!
//! ```text
//!  Services, EndpointSlices, Pods, TrafficSplits, Mesh ──watches──▶ Hub (World, sessions, Table)
//!                                                               │           ▲        │
//!  proxies ══TLS, token══▶ auth ─▶ ads ◀──── names that changed ┘           │        └─▶ relay::sender
//!                               └▶ evidence ── reports ─────────────────────┘
//! ```
//!
//! **Invariants**
//! - Who a proxy is comes from its token, checked by the apiserver; nothing that it says of
//!   itself is believed.
//! - A change wakes the streams that subscribe to it and no other.
//! - Nothing is served before the first whole list of every watch; afterwards what is known is
//!   served, whether the apiserver answers or not.
//! - A proxy sees what the namespace of its token may see; of the rest it is told no more than of
//!   what does not exist, and what it says of it is not taken.
//! - A record is taken only for a service that the same pod's subscriptions route.

mod ads;
mod auth;
mod evidence;
mod hub;
mod mailbox;
mod metrics;
mod server;
#[cfg(test)]
pub(crate) mod tests;
mod watches;

pub use auth::{AuthError, Authenticator, TokenReviewer};
pub use hub::Hub;
pub use server::serve;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use sluice_inject::Settings;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::metrics::Metrics;
use crate::{
    context::{Context, listen, lost},
    relay::sender,
    tls::{Acceptor, ClientAuth},
    webhook::{self, Caches, Webhooks},
};

/// The Secret with this role's certificate.
const SECRET: &str = "sluice-serving-tls";

/// Settings of the `serving` role.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Port of xDS and evidence.
    #[arg(long, default_value_t = 15012)]
    pub xds_port: u16,
    /// Port of the webhooks.
    #[arg(long, default_value_t = 15017)]
    pub webhook_port: u16,
    /// Trust domain of all SPIFFE ids.
    #[arg(long, env = "SLUICE_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Image of the sidecar, unless the Mesh says another.
    #[arg(
        long,
        env = "SLUICE_PROXY_IMAGE",
        default_value = concat!("sluice/proxy:", env!("CARGO_PKG_VERSION"))
    )]
    pub proxy_image: String,
}

/// Serves until `shutdown`.
///
/// # Errors
/// A port is taken.
pub async fn run(context: Context, options: Options, shutdown: CancellationToken) -> Result<()> {
    let xds = listen(options.xds_port).await?;
    let hooks = listen(options.webhook_port).await?;
    let check = context.health.check("caches");
    let metrics = Metrics::new(&context.telemetry);
    let hub = Hub::new(&options.trust_domain, &context.pod.name, metrics);

    let mut tasks = JoinSet::new();
    let certs = context.certs(SECRET, &mut tasks);
    let caches = Caches::follow(&context.client, &mut tasks);
    let world = watches::follow(&context.client, &hub, &mut tasks);
    check.fail("the first lists of the watches are not complete yet");
    let complete = async {
        world.synced().await;
        caches.synced().await;
    };
    tokio::select! {
        () = complete => {}
        error = lost(&mut tasks, &shutdown) => return Err(error),
        () = shutdown.cancelled() => return Ok(()),
    }
    check.pass();
    info!("watches are complete");

    let settings = Settings {
        image: options.proxy_image,
        system_namespace: context.pod.namespace.clone(),
        ..Settings::default()
    };
    let webhooks = Webhooks::new(caches, settings, &context.telemetry);
    let leader = sender::find_leader(&context, &mut tasks);
    let dial = sender::MutualTls::new(certs.clone(), &context.pod.namespace);
    tasks.spawn(sender::run(hub.clone(), leader, dial));
    tasks.spawn(hub.clone().housekeeping());

    let authenticator = Arc::new(TokenReviewer::new(context.client.clone()));
    let xds = Acceptor::new(xds, certs.clone(), ClientAuth::Optional);
    let hooks = Acceptor::new(hooks, certs, ClientAuth::None);
    let servers = async {
        let ((), served) = tokio::join!(
            webhook::serve(hooks, webhooks, shutdown.clone()),
            server::serve(xds.incoming(), hub, authenticator, shutdown.clone()),
        );
        served.context("the xDS server ended")
    };
    tokio::select! {
        ended = servers => ended,
        error = lost(&mut tasks, &shutdown) => Err(error),
    }
}
