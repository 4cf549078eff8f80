use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sluice_evidence::{
    Identity,
    relay::{
        Ack, Eject, Table,
        relay_server::{Relay, RelayServer},
    },
    v1::ProxyReport,
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::{eject, harness::Harness};
use crate::relay::sender::{self, Dial};

/// A leader that keeps what it hears, and when.
#[derive(Clone, Default)]
struct Leader {
    heard: Arc<Mutex<Vec<(Instant, Table)>>>,
    abdicated: Arc<Mutex<bool>>,
    ejects: Arc<Mutex<Vec<Eject>>>,
}

#[tonic::async_trait]
impl Relay for Leader {
    type ShareStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn share(
        &self,
        request: Request<Streaming<Table>>,
    ) -> Result<Response<Self::ShareStream>, Status> {
        let leader = self.clone();
        let acks = request.into_inner().map(move |table| {
            leader.heard.lock().push((Instant::now(), table?));
            Ok(Ack {
                leading: !*leader.abdicated.lock(),
                ejects: leader.ejects.lock().clone(),
            })
        });
        Ok(Response::new(acks.boxed()))
    }
}

/// Leaders by port.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Vec<mpsc::UnboundedSender<io::Result<DuplexStream>>>>>);

impl Network {
    /// Starts a leader; its address.
    fn start(&self, leader: &Leader) -> SocketAddr {
        let (connections, incoming) = mpsc::unbounded_channel();
        let server = Server::builder().add_service(RelayServer::new(leader.clone()));
        tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        let mut all = self.0.lock();
        all.push(connections);
        SocketAddr::from(([10, 0, 0, 1], u16::try_from(all.len()).unwrap()))
    }
}

impl Dial for Network {
    async fn dial(&self, address: SocketAddr) -> Result<Channel, String> {
        let connections = self.0.lock().get(usize::from(address.port()) - 1).cloned();
        let connections = connections.ok_or("nobody there")?;
        let connect = tower::service_fn(move |_: http::Uri| {
            let (near, far) = tokio::io::duplex(1 << 16);
            let sent = connections
                .send(Ok(far))
                .map_err(|_| io::Error::other("gone"));
            async move { sent.map(|()| TokioIo::new(near)) }
        });
        let endpoint = Endpoint::from_static("http://leader");
        endpoint
            .connect_with_connector(connect)
            .await
            .map_err(|error| error.to_string())
    }
}

fn report(harness: &Harness, pod: &str) {
    let identity = Identity {
        pod_uid: format!("uid-{pod}"),
        pod: pod.into(),
        ..Identity::default()
    };
    let report = ProxyReport {
        process_start_ms: 1,
        ..ProxyReport::default()
    };
    harness
        .hub
        .report(&identity, &report, &Default::default())
        .unwrap();
}

fn pods(table: &Table) -> Vec<&str> {
    table
        .proxies
        .iter()
        .map(|proxy| proxy.pod.as_str())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_leader_gets_the_whole_table_first_then_changes_at_once_and_a_word_each_second() {
    let (harness, network, leader) = (Harness::new(), Network::default(), Leader::default());
    report(&harness, "a");
    report(&harness, "b");
    let (_lease, address) = watch::channel(Some(network.start(&leader)));
    tokio::spawn(sender::run(harness.hub.clone(), address, network));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    {
        let heard = leader.heard.lock();
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[0].1.replica, "serving-1");
        assert_eq!(pods(&heard[0].1), ["a", "b"]);
        assert!(heard[1].1.proxies.is_empty(), "the keep-alive");
    }
    let before = Instant::now();
    report(&harness, "b");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let heard = leader.heard.lock();
    let (at, table) = heard.last().unwrap();
    assert_eq!(pods(table), ["b"]);
    assert!(*at - before < Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_steps_down_the_next_one_gets_the_whole_table() {
    let (harness, network) = (Harness::new(), Network::default());
    let (old, new) = (Leader::default(), Leader::default());
    report(&harness, "a");
    let (lease, address) = watch::channel(Some(network.start(&old)));
    tokio::spawn(sender::run(harness.hub.clone(), address, network.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    *old.abdicated.lock() = true;
    tokio::time::sleep(Duration::from_secs(1)).await;
    lease.send_replace(Some(network.start(&new)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pods(&new.heard.lock()[0].1), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_there_is_tried_again_and_again() {
    let (harness, network, leader) = (Harness::new(), Network::default(), Leader::default());
    report(&harness, "a");
    let nobody = SocketAddr::from(([10, 0, 0, 1], 1));
    let (_lease, address) = watch::channel(Some(nobody));
    tokio::spawn(sender::run(harness.hub.clone(), address, network.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(network.start(&leader), nobody);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(pods(&leader.heard.lock()[0].1), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_eject_outlives_the_leader_that_told_it_and_the_next_one_learns_of_it() {
    let (harness, network) = (Harness::new(), Network::default());
    let (old, new) = (Leader::default(), Leader::default());
    harness.reviews();
    harness.split(7, 10);
    let (lease, address) = watch::channel(Some(network.start(&old)));
    tokio::spawn(sender::run(harness.hub.clone(), address, network.clone()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(old.heard.lock().last().unwrap().1.ejects.is_empty());
    old.ejects.lock().push(eject(7));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(harness.hub.ejects(), [eject(7)]);

    *old.abdicated.lock() = true;
    lease.send_replace(None);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(harness.hub.ejects(), [eject(7)]);
    lease.send_replace(Some(network.start(&new)));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(new.heard.lock()[0].1.ejects, [eject(7)]);
    harness.split(8, 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(
        new.heard.lock().last().unwrap().1.ejects.is_empty(),
        "told at once when it is over"
    );
}
