//! Both ends and a virtual wire between them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    google::protobuf::Any,
};
use sluice_xds::{
    ClientSession, Event, Held, Kind, Limits, Refusal, Resource, ResourceName, Resources,
    ServerSession,
};

/// What a client refuses.
pub const BAD: &str = "bad";

/// A table of resources whose content is their version.
#[derive(Default)]
pub struct Table(pub BTreeMap<ResourceName, Arc<Resource>>);

impl Resources for Table {
    fn get(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        self.0.get(&ResourceName::new(kind, name)).cloned()
    }

    fn system_version(&self) -> String {
        "test".to_owned()
    }
}

pub struct Pair {
    pub client: ClientSession,
    pub server: ServerSession,
    pub table: Table,
    pub to_server: VecDeque<DeltaDiscoveryRequest>,
    pub to_client: VecDeque<DeltaDiscoveryResponse>,
    /// What the proxy has in force.
    pub in_force: BTreeMap<ResourceName, String>,
    /// All that went over the wire since the last [`Pair::take_log`].
    log: RefCell<Vec<String>>,
}

impl Pair {
    pub fn new() -> Self {
        let node = Node {
            id: "sidecar~cart-1.shop".to_owned(),
            ..Node::default()
        };
        Self {
            client: ClientSession::new(node),
            server: ServerSession::new(Limits::default()),
            table: Table::default(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            in_force: BTreeMap::new(),
            log: RefCell::default(),
        }
    }

    /// Sets a resource to a content, and tells the server.
    pub fn set(&mut self, kind: Kind, name: &str, version: &str) {
        let name = ResourceName::new(kind, name);
        let resource = Resource {
            version: version.to_owned(),
            body: Any {
                type_url: kind.type_url(),
                value: version.as_bytes().to_vec(),
            },
        };
        self.table.0.insert(name.clone(), Arc::new(resource));
        self.server.changed([&name]);
    }

    pub fn remove(&mut self, kind: Kind, name: &str) {
        let name = ResourceName::new(kind, name);
        self.table.0.remove(&name);
        self.server.changed([&name]);
    }

    pub fn subscribe(&mut self, kind: Kind, name: &str) {
        self.client.subscribe(kind, [name]);
    }

    pub fn unsubscribe(&mut self, kind: Kind, name: &str) {
        self.client.unsubscribe(kind, [name]);
        self.in_force.remove(&ResourceName::new(kind, name));
    }

    /// Cuts the connection, with all that is on its way, and opens another.
    pub fn reconnect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.server = ServerSession::new(Limits::default());
        self.client.reconnect();
    }

    /// Puts what both ends have to say on the wire.
    pub fn flush(&mut self) {
        while let Some(request) = self.client.poll_request() {
            self.to_server.push_back(request);
        }
        while let Some(response) = self.server.poll(&self.table) {
            self.note(&response);
            self.to_client.push_back(response);
        }
    }

    /// Delivers one message to the server. Returns whether there was one.
    pub fn deliver_request(&mut self) -> bool {
        let Some(request) = self.to_server.pop_front() else {
            return false;
        };
        self.server.handle_request(request).unwrap();
        true
    }

    /// Delivers one message to the client, which takes what it likes. Returns whether there
    /// was one.
    pub fn deliver_response(&mut self) -> bool {
        let Some(response) = self.to_client.pop_front() else {
            return false;
        };
        let update = self.client.handle_response(response).unwrap();
        let mut refusals = Vec::new();
        for event in update.events {
            match event {
                Event::Upsert { name, version, .. } if version.starts_with(BAD) => {
                    refusals.push(Refusal::new(name, "is bad"));
                }
                Event::Upsert {
                    kind,
                    name,
                    version,
                    ..
                } => {
                    self.in_force.insert(ResourceName::new(kind, name), version);
                }
                Event::Gone { kind, name } => {
                    self.in_force.remove(&ResourceName::new(kind, name));
                }
            }
        }
        match refusals.as_slice() {
            [] => self.client.ack(update.verdict),
            refusals => self.client.nack(update.verdict, refusals),
        }
        true
    }

    /// Runs until nobody has anything to say.
    pub fn drive(&mut self) {
        loop {
            self.flush();
            let requested = self.deliver_request();
            let responded = self.deliver_response();
            if !requested && !responded {
                return;
            }
        }
    }

    /// What the server sent since the last call, one line a response.
    pub fn take_log(&self) -> Vec<String> {
        self.log.take()
    }

    /// What must be in force when all is quiet: the server's resources that are wanted.
    pub fn expected(&self) -> BTreeMap<ResourceName, String> {
        self.client
            .subscriptions()
            .filter_map(|(kind, name, _)| {
                let version = self.table.get(kind, name)?.version.clone();
                Some((ResourceName::new(kind, name), version))
            })
            .collect()
    }

    /// What the client says it holds.
    pub fn held(&self) -> BTreeMap<ResourceName, String> {
        self.client
            .subscriptions()
            .filter_map(|(kind, name, held)| match held {
                Held::Version(version) => Some((ResourceName::new(kind, name), version.clone())),
                Held::Unknown | Held::Absent => None,
            })
            .collect()
    }

    fn note(&self, response: &DeltaDiscoveryResponse) {
        assert!(!response.system_version_info.is_empty());
        let kind = Kind::from_type_url(&response.type_url).unwrap();
        let made = response.resources.iter();
        let made = made.map(|r| format!("{}@{}", r.name, r.version));
        let removed = response.removed_resources.iter().map(|n| format!("-{n}"));
        let all: Vec<_> = made.chain(removed).collect();
        self.log
            .borrow_mut()
            .push(format!("{kind} {}", all.join(" ")));
    }
}
