//! Proxies as processes of this machine: what they answer, and what is done to them.

use std::process::Command;

use anyhow::{Context, ensure};
use sluice_e2e::world;

/// Port at which proxies reach the control plane.
const XDS: u16 = 15012;
/// Of the rules that cut one off.
const TABLE: &str = "cut_off";

/// A proxy, in whatever process it runs.
#[derive(Debug)]
pub struct Proxy {
    pub pod: String,
    /// `gateway` or `sidecar`.
    pub kind: &'static str,
}

impl Proxy {
    /// The process that it is now.
    pub fn process(&self) -> anyhow::Result<i32> {
        let processes = world::processes(&self.pod, &["/sluice-proxy", self.kind])?;
        processes
            .first()
            .copied()
            .with_context(|| format!("{self:?} does not run"))
    }

    /// Sends it a signal, as `kill` names it: `-STOP`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill")
            .args([signal, &self.process()?.to_string()])
            .status()?;
        ensure!(sent.success(), "{self:?} took no {signal}");
        Ok(())
    }

    /// What is answered inside its pod to a request like `GET /`: with the apiserver away there
    /// is no other way there.
    pub fn ask(&self, port: u16, request: &str) -> anyhow::Result<String> {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request} HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' >&3; timeout 5 cat <&3"
        );
        let output = Command::new("nsenter")
            .args(["--net", "--target", &self.process()?.to_string()])
            .args(["bash", "-c", &ask])
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{self:?}: {told}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = self.ask(15020, "GET /metrics")?;
        let mut lines = page.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(of, _)| *of == name);
        let (_, value) = found.with_context(|| format!("{self:?} tells no {name}"))?;
        Ok(value.parse()?)
    }

    /// Cuts it off from the control plane: what either says to the other is lost without a word.
    pub fn cut_off(&self) -> anyhow::Result<()> {
        self.nft(&format!(
            "table inet {TABLE} {{
               chain out {{ type filter hook output priority 0; tcp dport {XDS} drop; }}
               chain in {{ type filter hook input priority 0; tcp sport {XDS} drop; }}
             }}"
        ))
    }

    /// Ends [`Proxy::cut_off`].
    pub fn reconnect(&self) -> anyhow::Result<()> {
        self.nft(&format!("delete table inet {TABLE}"))
    }

    /// In the pod's own network, and nowhere else.
    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        let output = Command::new("nsenter")
            .args(["--net", "--target", &self.process()?.to_string()])
            .args(["nft", rules])
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{self:?}: {told}");
        Ok(())
    }
}
