//! Connections to endpoints, kept and shared inside one worker.
//!
//! ```text
//!  Upstreams ──address──▶ Upstream ── idle HTTP/1 connections, each for one request at a time
//!                                  └─ HTTP/2 connections, shared
//!  Upstream::send(request) ──▶ response + Ticket (gives the connection back when the body ends)
//! ```

mod connect;
mod fault;
mod pool;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::SocketAddr,
    rc::Rc,
};

use tokio::time::Instant;

pub use connect::{CONNECT_TIMEOUT, LocalExec, PATIENT_TIMEOUT, connect, keepalive};
pub use fault::Fault;
pub use pool::{Protocol, Ticket, Upstream};

/// The endpoints that this worker has to do with.
#[derive(Debug, Default)]
pub struct Upstreams(RefCell<HashMap<SocketAddr, Rc<Upstream>>>);

impl Upstreams {
    /// The upstream of this address.
    pub fn get(&self, address: SocketAddr) -> Rc<Upstream> {
        let mut all = self.0.borrow_mut();
        let make = || Rc::new(Upstream::new(address));
        all.entry(address).or_insert_with(make).clone()
    }

    /// The upstream of the application behind this proxy.
    pub fn local(&self, address: SocketAddr) -> Rc<Upstream> {
        let upstream = self.get(address);
        upstream.set_local();
        upstream
    }

    /// How good a choice this address is now.
    pub fn load(&self, address: SocketAddr) -> crate::balance::Load {
        let all = self.0.borrow();
        all.get(&address).map_or((false, 0), |one| one.load())
    }

    /// Closes what has been idle for too long, at once where the address is not `wanted` any
    /// more, and forgets upstreams that nothing uses.
    pub fn prune(&self, wanted: &HashSet<SocketAddr>) {
        let now = Instant::now();
        self.0.borrow_mut().retain(|address, upstream| {
            upstream.prune(now, wanted.contains(address));
            Rc::strong_count(upstream) > 1 || !upstream.is_unused()
        });
    }
}
