//! The program itself: how it leaves, what it shows to whom, and what it starts with.
#![allow(clippy::unwrap_used)]

mod support;

use std::{cell::Cell, rc::Rc, time::Duration};

use support::{
    client::{Client, get},
    gateway::{Gateway, show},
    local, server, until,
};
use tokio::task::spawn_local;

#[tokio::test]
async fn a_gateway_that_is_terminated_under_load_loses_no_request() {
    local(async {
        const CLIENTS: usize = 8;
        let server = server::named("v1").await;
        let mut gateway = Gateway::start(vec![server.address]).await;
        let address = gateway.clients;
        let answers = Rc::new(Cell::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let answers = answers.clone();
                spawn_local(async move {
                    let mut client = Client::http1(address).await;
                    loop {
                        let answer = client.get("/").await;
                        assert_eq!((answer.status, answer.text()), (200, "v1"));
                        answers.set(answers.get() + 1);
                        if answer.header("connection") == "close" {
                            return;
                        }
                    }
                })
            })
            .collect();
        until("there is load", || answers.get() > 200).await;
        gateway.signal("TERM");
        for client in clients {
            client.await.unwrap();
        }
        assert!(!gateway.is_ready().await, "as soon as it says goodbye");
        until("it has left", || {
            gateway.process.try_wait().unwrap().is_some()
        })
        .await;
        assert!(gateway.process.wait().unwrap().success());
        assert_eq!(server.requests.get(), answers.get());
    })
    .await;
}

#[tokio::test]
async fn the_configuration_is_shown_on_the_local_address_and_nowhere_else() {
    local(async {
        let gateway = Gateway::start(Vec::new()).await;
        for path in ["/config_dump", "/clusters", "/stats"] {
            assert_eq!(show(gateway.admin, path).await, 200, "{path}");
            assert_eq!(show(gateway.status, path).await, 404, "{path}");
        }
        for path in ["/metrics", "/stats/prometheus", "/healthz/ready"] {
            assert_eq!(show(gateway.status, path).await, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_restarts_while_its_control_plane_is_away_becomes_ready_and_serves() {
    local(async {
        let server = server::named("v1").await;
        let mut gateway = Gateway::start(vec![server.address]).await;
        assert_eq!(get(gateway.clients).await.text(), "v1");
        until("it is kept", || gateway.last_good().exists()).await;
        gateway.plane.stop();
        for signal in ["TERM", "KILL"] {
            gateway.restart(signal).await;
            assert_eq!(get(gateway.clients).await.text(), "v1", "after SIG{signal}");
            assert!(gateway.metric("sluice_last_good_timestamp_seconds").await > 0.0);
        }
        gateway.plane.restart();
        while gateway.metric("sluice_xds_connected").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gateway.metric("sluice_last_good_timestamp_seconds").await == 0.0);
        assert_eq!(get(gateway.clients).await.text(), "v1");
    })
    .await;
}

#[tokio::test]
async fn a_damaged_last_good_file_is_named_and_not_used() {
    local(async {
        let server = server::named("v1").await;
        let damaged = b"sluice-last-good 1 0123456789abcdef\n???";
        let gateway = Gateway::start_with(vec![server.address], Some(damaged)).await;
        assert_eq!(get(gateway.clients).await.text(), "v1");
        let path = gateway.last_good();
        let told = format!("{} does not match its checksum", path.display());
        assert!(gateway.log().contains(&told), "{}", gateway.log());
        until("a good one takes its place", || {
            sluice_proxy::last_good::read(&path).is_ok()
        })
        .await;
    })
    .await;
}
