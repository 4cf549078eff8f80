//! The network of a node: a namespace that nothing leaves.
//!
//! ```text
//!  host                          | namespace sluice-NAME
//!  sluiceN 10.233.N.1/24 ────────┼── eth0 10.233.N.2/24 (the node)      pods 10.244.0.0/16
//!                                |   void0 ── void1 (default route)     services 10.96.0.0/16
//! ```
//!
//! Traffic to a Service needs some route before its address is replaced, hence a default route; it leads into
//! a veth pair that nobody listens to, and what really would go there is refused at once instead of lost.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command;

/// Addresses of pods. The same in every cluster: they are known only inside its namespace.
pub(super) const PODS: &str = "10.244.0.0/16";
/// Addresses of Services.
pub(super) const SERVICES: &str = "10.96.0.0/16";

pub(super) fn namespace(name: &str) -> String {
    format!("sluice-{name}")
}

pub(super) fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace(name))
}

/// Makes the namespace and its link to the host, and returns the node's address.
pub(super) fn create(name: &str) -> Result<Ipv4Addr> {
    let namespace = namespace(name);
    ip(&["netns", "add", &namespace])?;
    let index = link(&namespace)?;
    let node = Ipv4Addr::new(10, 233, index, 2);
    let host = Ipv4Addr::new(10, 233, index, 1);
    let device = device(index);
    ip(&["addr", "add", &format!("{host}/24"), "dev", &device])?;
    ip(&["link", "set", &device, "up"])?;
    write_sysctl(
        &mut Command::new("sh"),
        &format!("/proc/sys/net/ipv4/conf/{device}/forwarding"),
        "0",
    )
    .context("cannot forbid the host to forward what comes from the node")?;

    let node_text = node.to_string();
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["addr", "add", &format!("{node}/24"), "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &[
            "link", "add", "void0", "type", "veth", "peer", "name", "void1",
        ],
        &["link", "set", "void0", "up"],
        &["link", "set", "void1", "up"],
        &["route", "add", "default", "dev", "void0", "src", &node_text],
    ] {
        let mut ip = Command::new("ip");
        command::output(ip.args(["-n", &namespace]).args(arguments))?;
    }
    let mut shell = enter(name, "sh");
    write_sysctl(&mut shell, "/proc/sys/net/ipv4/ip_forward", "1")?;
    let mut nft = enter(name, "nft");
    command::output_with_input(nft.args(["-f", "-"]), REFUSE_VOID.as_bytes())?;
    Ok(node)
}

/// Whether anything of the network is there.
pub(super) fn exists(name: &str) -> bool {
    namespace_path(name).exists()
}

/// Removes the namespace; its end of the veth pair goes with it, and so does the host's.
pub(super) fn remove(name: &str) -> Result<()> {
    if exists(name) {
        ip(&["netns", "delete", &namespace(name)])?;
    }
    Ok(())
}

/// TCP is reset, as the kernel overlooks an ICMP answer that comes while it still sends.
const REFUSE_VOID: &str = r#"
table inet sluice-node {
    chain output {
        type filter hook output priority 10;
        # Bound for a Service: the route is still the one to its address, the pod's is taken after these chains.
        ct status dnat accept
        oifname "void0" meta l4proto tcp reject with tcp reset
        oifname "void0" reject with icmpx type no-route
    }
    chain forward {
        type filter hook forward priority 10;
        oifname "void0" meta l4proto tcp reject with tcp reset
        oifname "void0" reject with icmpx type no-route
    }
}
"#;

/// Makes the veth pair, with the first number that nobody uses.
fn link(namespace: &str) -> Result<u8> {
    let routes = ip(&["-4", "route", "show", "table", "all"])?;
    for index in 0..=u8::MAX {
        if routes.contains(&format!("10.233.{index}.")) {
            continue;
        }
        let device = device(index);
        let pair = [
            "link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", namespace,
        ];
        // Another cluster may take the number between the look and the try.
        if command::succeeds(Command::new("ip").args(pair)) {
            return Ok(index);
        }
        if index == u8::MAX {
            ip(&pair)?;
        }
    }
    bail!("all of 10.233.0.0/16 is in use on this machine; take a cluster down")
}

fn device(index: u8) -> String {
    format!("sluice{index}")
}

fn ip(arguments: &[&str]) -> Result<String> {
    command::output(Command::new("ip").args(arguments))
}

/// Not `ip netns exec`: that would hide the cgroups behind a fresh /sys.
fn enter(name: &str, program: &str) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter
        .arg(format!("--net={}", namespace_path(name).display()))
        .arg("--")
        .arg(program);
    nsenter
}

fn write_sysctl(shell: &mut Command, path: &str, value: &str) -> Result<()> {
    command::output(shell.args(["-c", "echo \"$1\" > \"$0\"", path, value]))?;
    Ok(())
}
