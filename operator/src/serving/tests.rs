//! Clients against the server in one process, over in-memory connections.
#![allow(clippy::unwrap_used)]

mod ads;
mod harness;
mod relay;
mod reports;

use sluice_evidence::{Identity, v1::ProxyReport};

use super::hub::{Hub, View};

/// A report of this proxy, as if its stream had brought it.
pub(crate) fn report(hub: &Hub, identity: &Identity, report: &ProxyReport, view: &View) {
    hub.report(identity, report, view).unwrap();
}
