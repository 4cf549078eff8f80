//! Names of resources, hosts and arms: built by the mesh, parsed by both.
//!
//! A name is canonical: whatever parses builds the very same name again. So two spellings can
//! never stand for one resource.

use std::{fmt, net::IpAddr};

/// Most bytes of a resource name: a host name of 253, a port and the longest decoration, with
/// room to spare.
pub const MAX_LEN: usize = 320;

/// The suffix of the host names of Services.
pub const SERVICE_SUFFIX: &str = ".svc.cluster.local";

const LISTENER_PREFIX: &str = "outbound/";
const CLUSTER_PREFIX: &str = "outbound|";

/// One of the two arms of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    /// What serves whatever is not being tried.
    Stable,
    /// What is being tried.
    Candidate,
}

impl Arm {
    /// Both, stable first.
    pub const ALL: [Self; 2] = [Self::Stable, Self::Candidate];

    /// `stable` or `candidate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }

    /// The arm of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arm| arm.as_str() == name)
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `SERVICE.NAMESPACE.svc.cluster.local`.
#[must_use]
pub fn fqdn(namespace: &str, service: &str) -> String {
    format!("{service}.{namespace}{SERVICE_SUFFIX}")
}

/// Namespace and name of the Service that a host name means.
#[must_use]
pub fn parse_fqdn(host: &str) -> Option<(&str, &str)> {
    let (service, namespace) = host.strip_suffix(SERVICE_SUFFIX)?.split_once('.')?;
    (is_label(service) && is_label(namespace)).then_some((namespace, service))
}

/// `outbound/HOST:PORT`, the listener of an address; the host of an IPv6 one in brackets.
#[must_use]
pub fn vip_listener(address: IpAddr, port: u16) -> String {
    format!(
        "{LISTENER_PREFIX}{}",
        std::net::SocketAddr::new(address, port)
    )
}

/// `outbound/HOST:PORT`, the listener of a host name.
#[must_use]
pub fn host_listener(host: &str, port: u16) -> String {
    format!("{LISTENER_PREFIX}{host}:{port}")
}

/// `HOST:PORT`, the routes of a Service's port.
#[must_use]
pub fn route(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// Host and port of a RouteConfiguration's name.
#[must_use]
pub fn parse_route(name: &str) -> Option<(&str, u16)> {
    let (host, port) = name.rsplit_once(':')?;
    Some((host, parse_port(port)?))
}

/// What a listener listens for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerName<'a> {
    /// An address, or the host name of a Service.
    pub host: ListenerHost<'a>,
    /// Its port.
    pub port: u16,
}

/// The host of a listener's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenerHost<'a> {
    /// A ClusterIP.
    Address(IpAddr),
    /// A host name.
    Name(&'a str),
}

impl<'a> ListenerName<'a> {
    /// Reads `outbound/HOST:PORT`.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let (host, port) = name.strip_prefix(LISTENER_PREFIX)?.rsplit_once(':')?;
        let port = parse_port(port)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let host = match bare.parse::<IpAddr>() {
            Ok(address) => ListenerHost::Address(address),
            Err(_) => ListenerHost::Name(host),
        };
        let parsed = Self { host, port };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for ListenerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match &self.host {
            ListenerHost::Address(address) => vip_listener(*address, self.port),
            ListenerHost::Name(host) => host_listener(host, self.port),
        })
    }
}

/// The endpoints of a Service's port, or those of one arm. Its ClusterLoadAssignment has the
/// same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterName<'a> {
    /// Host name of the Service.
    pub host: &'a str,
    /// Port of the Service, not of its pods.
    pub port: u16,
    /// The arm; none: the whole Service.
    pub arm: Option<Arm>,
}

impl<'a> ClusterName<'a> {
    /// Reads `outbound|PORT|ARM|HOST`.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.strip_prefix(CLUSTER_PREFIX)?.splitn(3, '|');
        let port = parse_port(parts.next()?)?;
        let arm = match parts.next()? {
            "" => None,
            arm => Some(Arm::parse(arm)?),
        };
        let host = parts.next()?;
        Some(Self { host, port, arm })
    }
}

impl fmt::Display for ClusterName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arm = self.arm.map_or("", Arm::as_str);
        write!(f, "{CLUSTER_PREFIX}{}|{arm}|{}", self.port, self.host)
    }
}

/// A port between 1 and 65535 without sign or leading zero.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.starts_with(|c: char| ('1'..='9').contains(&c));
    if plain { text.parse().ok() } else { None }
}

/// A DNS label as Kubernetes names have it (RFC 1123).
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_are_built_are_parsed() {
        let host = fqdn("shop", "cart");
        assert_eq!(host, "cart.shop.svc.cluster.local");
        assert_eq!(parse_fqdn(&host), Some(("shop", "cart")));
        assert_eq!(parse_route(&route(&host, 80)), Some((host.as_str(), 80)));

        let whole = "outbound|80||cart.shop.svc.cluster.local";
        let candidate = "outbound|80|candidate|cart.shop.svc.cluster.local";
        assert_eq!(ClusterName::parse(whole).unwrap().arm, None);
        for name in [whole, candidate] {
            assert_eq!(ClusterName::parse(name).unwrap().to_string(), name);
        }

        for name in [
            "outbound/10.96.0.1:443",
            "outbound/[fd00::1]:443",
            "outbound/cart.shop.svc.cluster.local:80",
        ] {
            assert_eq!(ListenerName::parse(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn another_spelling_of_a_name_is_no_name() {
        for name in [
            "",
            "outbound/",
            "outbound/10.0.0.1",
            "outbound/10.0.0.1:0",
            "outbound/10.0.0.1:080",
            "outbound/10.0.0.1:+80",
            "outbound/10.0.0.1:65536",
            "outbound/[10.0.0.1]:80",
            "outbound/[FD00::1]:80",
            "outbound/fd00::1:80",
            "inbound/10.0.0.1:80",
        ] {
            assert_eq!(ListenerName::parse(name), None, "{name}");
        }
        for name in ["outbound|80|canary|h", "outbound|80|h", "outbound|+80||h"] {
            assert_eq!(ClusterName::parse(name), None, "{name}");
        }
        for host in [
            "cart.svc.cluster.local",
            "a.b.c.svc.cluster.local",
            ".b.svc.cluster.local",
        ] {
            assert_eq!(parse_fqdn(host), None, "{host}");
        }
    }
}
