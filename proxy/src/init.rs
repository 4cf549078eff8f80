//! The redirect: what `sluice-proxy init` tells nftables, once in each pod.
//!
//! Outbound TCP goes to 15001, inbound TCP to 15006, but for the proxy itself (by uid), loopback
//! and what is excluded. UDP, so DNS, is not touched. Loading it twice gives the same rules.

use std::{fmt::Write as _, net::Ipv4Addr, str::FromStr};

/// What is redirected.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Account of the proxy, whose own connections are left alone.
    pub proxy_uid: u32,
    /// Where outbound connections go.
    pub outbound_port: u16,
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Inbound ports that are left alone.
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound destinations that are left alone.
    pub exclude_outbound_ranges: Vec<Range>,
}

/// Inbound ports that are never redirected: ssh, and the proxy's own.
const OWN_PORTS: [u16; 5] = [22, 15000, 15020, 15021, 15090];

/// An IPv4 network, `ADDRESS/BITS`; a bare address is one of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    address: Ipv4Addr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no IPv4 network: write it like 10.0.0.0/8")]
pub struct RangeError(String);

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError(text.to_owned());
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let bits: u8 = bits.parse().map_err(|_| error())?;
        if bits > 32 {
            return Err(error());
        }
        // nft refuses a network with host bits set.
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let address = Ipv4Addr::from(u32::from(address) & mask);
        Ok(Self { address, bits })
    }
}

/// The input for `nft -f -`: replaces the table as a whole, in one transaction.
#[must_use]
pub fn rules(redirect: &Redirect) -> String {
    let inbound: Vec<u16> = OWN_PORTS
        .iter()
        .chain(&redirect.exclude_inbound_ports)
        .copied()
        .chain([redirect.inbound_port, redirect.outbound_port])
        .collect();
    let mut outbound = String::new();
    if !redirect.exclude_outbound_ports.is_empty() {
        let ports = set(redirect.exclude_outbound_ports.clone());
        let _ = writeln!(outbound, "    tcp dport {ports} return");
    }
    for range in &redirect.exclude_outbound_ranges {
        let _ = writeln!(
            outbound,
            "    ip daddr {}/{} return",
            range.address, range.bits
        );
    }
    format!(
        "table ip sluice {{}}
delete table ip sluice
table ip sluice {{
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    iifname \"lo\" return
    tcp dport {inbound} return
    meta l4proto tcp redirect to :{inbound_port}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    meta skuid {uid} return
    oifname \"lo\" return
    ip daddr 127.0.0.0/8 return
{outbound}    meta l4proto tcp redirect to :{outbound_port}
  }}
}}
",
        inbound = set(inbound),
        inbound_port = redirect.inbound_port,
        uid = redirect.proxy_uid,
        outbound_port = redirect.outbound_port,
    )
}

/// Ports as an nft set: ascending, each once.
fn set(mut ports: Vec<u16>) -> String {
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    format!("{{ {} }}", ports.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn redirect() -> Redirect {
        Redirect {
            proxy_uid: 1337,
            outbound_port: 15001,
            inbound_port: 15006,
            exclude_inbound_ports: vec![9000, 22],
            exclude_outbound_ports: vec![],
            exclude_outbound_ranges: vec![],
        }
    }

    #[test]
    fn the_rules_redirect_tcp_both_ways_but_for_the_proxy_loopback_and_exclusions() {
        let plain = rules(&redirect());
        assert_eq!(
            plain,
            r#"table ip sluice {}
delete table ip sluice
table ip sluice {
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    iifname "lo" return
    tcp dport { 22, 9000, 15000, 15001, 15006, 15020, 15021, 15090 } return
    meta l4proto tcp redirect to :15006
  }
  chain output {
    type nat hook output priority -100; policy accept;
    meta skuid 1337 return
    oifname "lo" return
    ip daddr 127.0.0.0/8 return
    meta l4proto tcp redirect to :15001
  }
}
"#
        );
        let more = rules(&Redirect {
            exclude_outbound_ports: vec![5432, 3306, 5432],
            exclude_outbound_ranges: vec![
                "10.1.2.3/8".parse().unwrap(),
                "1.2.3.4".parse().unwrap(),
            ],
            ..redirect()
        });
        assert!(
            more.contains("    tcp dport { 3306, 5432 } return\n"),
            "{more}"
        );
        assert!(more.contains("    ip daddr 10.0.0.0/8 return\n"), "{more}");
        assert!(more.contains("    ip daddr 1.2.3.4/32 return\n"), "{more}");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/8; flush ruleset",
            "::/0",
        ] {
            let error = text.parse::<Range>().unwrap_err();
            assert!(error.to_string().contains("10.0.0.0/8"), "{text}");
        }
        let everything = "1.2.3.4/0".parse::<Range>().unwrap();
        assert_eq!(everything.address, Ipv4Addr::UNSPECIFIED);
    }
}
