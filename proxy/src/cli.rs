//! Flags and the environment they may come from.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use sluice_proxy::init::Range;

/// The data plane of Sluice.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What is logged, as of tracing's EnvFilter.
    #[arg(long, env = "SLUICE_LOG", default_value = "info", global = true)]
    pub log: String,
    /// What to be.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Beside an application: takes its redirected connections, outbound and inbound.
    Sidecar(Sidecar),
    /// In front of Services: plain listeners, each for one Service's port.
    Gateway(Gateway),
    /// Sets the redirect of a pod, and ends.
    Init(Init),
    /// Waits until the proxy of this pod is ready, and ends.
    Wait(Wait),
}

/// What sidecar and gateway have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// Where the control plane is; the TLS server name is its host.
    #[arg(
        long,
        env = "SLUICE_CONTROL_PLANE",
        default_value = "https://sluice-serving.sluice-system.svc:15012"
    )]
    pub control_plane: String,
    /// The projected token.
    #[arg(
        long,
        env = "SLUICE_TOKEN_FILE",
        default_value = "/var/run/secrets/sluice/token"
    )]
    pub token_file: PathBuf,
    /// The roots that the control plane's certificate is checked against.
    #[arg(
        long,
        env = "SLUICE_ROOT_FILE",
        default_value = "/var/run/secrets/sluice-root/ca.crt"
    )]
    pub root_file: PathBuf,
    /// Where what is in force is kept for a restart without the control plane: a file on a
    /// volume of its own; empty: nowhere.
    #[arg(
        long,
        env = "SLUICE_LAST_GOOD",
        default_value = "/var/lib/sluice/last-good"
    )]
    pub last_good: PathBuf,
    /// Worker threads; by default 2, or 1 where there is one CPU.
    #[arg(long, env = "SLUICE_CONCURRENCY")]
    pub concurrency: Option<usize>,
    /// Name of the pod.
    #[arg(long, env = "POD_NAME", default_value = "unknown")]
    pub pod_name: String,
    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub pod_namespace: String,
    /// The workload that owns the pod, for metrics.
    #[arg(long, env = "SLUICE_WORKLOAD", default_value = "")]
    pub workload: String,
    /// Label `app` of the pod, for metrics.
    #[arg(long, env = "SLUICE_APP", default_value = "")]
    pub app: String,
    /// Label `version` of the pod, for metrics.
    #[arg(long, env = "SLUICE_VERSION", default_value = "")]
    pub version: String,
    /// Where people look: /config_dump, /clusters, /stats. Only on a loopback address.
    #[arg(long, default_value = "127.0.0.1:15000", value_parser = loopback)]
    pub admin: SocketAddr,
    /// Where probes and Prometheus look, besides.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0.0.0.0:15020,0.0.0.0:15021,0.0.0.0:15090"
    )]
    pub status: Vec<SocketAddr>,
    /// Longest time that running requests are waited for on SIGTERM, in seconds.
    #[arg(long, env = "SLUICE_DRAIN_MAX", default_value_t = 30)]
    pub drain_max: u64,
}

/// Flags of `sidecar`.
#[derive(Debug, Args)]
pub struct Sidecar {
    /// Common ones.
    #[command(flatten)]
    pub common: Common,
    /// Where outbound connections are redirected to.
    #[arg(long, default_value = "0.0.0.0:15001")]
    pub outbound: SocketAddr,
    /// Where inbound connections are redirected to.
    #[arg(long, default_value = "0.0.0.0:15006")]
    pub inbound: SocketAddr,
}

/// Flags of `gateway`.
#[derive(Debug, Args)]
pub struct Gateway {
    /// Common ones.
    #[command(flatten)]
    pub common: Common,
    /// PORT=HOST:PORT, as 8080=frontend.demo.svc.cluster.local:9898; may be repeated.
    #[arg(long = "route", required = true, value_parser = route)]
    pub routes: Vec<(u16, String)>,
    /// Response header that tells which pod answered; for demos and for looking around, as
    /// names of pods are nothing for the public.
    #[arg(long, env = "SLUICE_ANSWERED_BY_HEADER")]
    pub answered_by_header: Option<http::HeaderName>,
    /// After SIGTERM, how long new connections are still taken, in seconds.
    #[arg(long, env = "SLUICE_DRAIN_MIN", default_value_t = 5)]
    pub drain_min: u64,
}

/// Flags of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The nft program.
    #[arg(long, default_value = "/usr/sbin/nft")]
    pub nft: PathBuf,
    /// Account of the proxy.
    #[arg(long, default_value_t = 1337)]
    pub proxy_uid: u32,
    /// Inbound ports that are not redirected.
    #[arg(long, env = "SLUICE_EXCLUDE_INBOUND_PORTS", value_delimiter = ',')]
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that are not redirected.
    #[arg(long, env = "SLUICE_EXCLUDE_OUTBOUND_PORTS", value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound networks that are not redirected, as 10.0.0.0/8.
    #[arg(long, env = "SLUICE_EXCLUDE_OUTBOUND_RANGES", value_delimiter = ',')]
    pub exclude_outbound_ranges: Vec<Range>,
    /// Prints the rules and sets nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// What is asked.
    #[arg(long, default_value = "127.0.0.1:15021")]
    pub address: SocketAddr,
    /// How long, in seconds.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

/// Reads an address that only this machine can reach.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is no address"))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "`{text}`: the configuration is for this machine only, as 127.0.0.1:15000"
        ));
    }
    Ok(address)
}

/// Reads PORT=HOST:PORT.
fn route(text: &str) -> Result<(u16, String), String> {
    let error = || format!("`{text}`: write PORT=HOST:PORT, as 8080=web.shop.svc.cluster.local:80");
    let (port, target) = text.split_once('=').ok_or_else(error)?;
    let (host, target_port) = target.rsplit_once(':').ok_or_else(error)?;
    let port = port.parse().map_err(|_| error())?;
    let target_port = target_port.parse().map_err(|_| error())?;
    if sluice_xds::names::parse_fqdn(host).is_none() {
        return Err(error());
    }
    Ok((port, sluice_xds::names::host_listener(host, target_port)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_route_names_a_port_of_ours_and_one_of_a_service() {
        let (port, listener) = route("8080=web.shop.svc.cluster.local:80").unwrap();
        assert_eq!(
            (port, listener.as_str()),
            (8080, "outbound/web.shop.svc.cluster.local:80")
        );
        for bad in [
            "8080",
            "8080=web.shop.svc.cluster.local",
            "x=web.shop.svc.cluster.local:80",
            "80=web:80",
        ] {
            assert!(route(bad).unwrap_err().contains("PORT=HOST:PORT"), "{bad}");
        }
    }

    #[test]
    fn the_configuration_is_shown_on_loopback_only() {
        assert!(loopback("127.0.0.1:15000").is_ok());
        assert!(loopback("0.0.0.0:15000").unwrap_err().contains("127.0.0.1"));
        assert!(loopback("localhost").is_err());
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
