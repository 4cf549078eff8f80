//! Leaving loses nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Proxy,
    client::{self, Client},
    local,
    server::{self, ok},
};
use tokio::{net::TcpStream, task::spawn_local};

const MINIMUM: Duration = Duration::from_millis(200);
const MAXIMUM: Duration = Duration::from_secs(10);

#[tokio::test]
async fn while_draining_connections_are_accepted_and_each_answer_says_goodbye() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let mut old = Client::http1(gateway).await;
        let mut streams = Client::http2(gateway).await;
        for client in [&mut old, &mut streams] {
            assert_eq!(client.get("/").await.header("connection"), "");
        }
        let shared = proxy.shared.clone();
        let left = spawn_local(async move { shared.drain.run(MINIMUM, MAXIMUM).await });
        tokio::task::yield_now().await;
        let goodbye = old.get("/").await;
        assert_eq!(
            (goodbye.text(), goodbye.header("connection")),
            ("v1", "close")
        );
        let goodbye = client::get(gateway).await;
        assert_eq!(
            (goodbye.text(), goodbye.header("connection")),
            ("v1", "close")
        );
        // A new connection of HTTP/2 gets its first answer, and the goodbye of its protocol.
        let mut streams = Client::http2(gateway).await;
        assert_eq!(streams.get("/").await.text(), "v1");
        assert_eq!(left.await.unwrap(), 0);
        assert!(old.is_closed() && streams.is_closed());
        assert!(TcpStream::connect(gateway).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_running_request_is_finished_after_the_listeners_have_closed() {
    local(async {
        let server = server::http(|_| async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            ok("late")
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        for mut client in [Client::http1(gateway).await, Client::http2(gateway).await] {
            let request = spawn_local(async move { client.get("/").await });
            while server.requests.get() == 0 {
                tokio::task::yield_now().await;
            }
            server.requests.set(0);
            if client_count(&proxy) < 2 {
                continue;
            }
            let shared = proxy.shared.clone();
            let left = spawn_local(async move { shared.drain.run(MINIMUM, MAXIMUM).await });
            assert_eq!(request.await.unwrap().text(), "late");
            assert_eq!(left.await.unwrap(), 0);
            return;
        }
        panic!("both connections count");
    })
    .await;
}

fn client_count(proxy: &Proxy) -> usize {
    proxy.shared.drain.connections()
}

#[tokio::test]
async fn a_steady_load_of_keep_alive_clients_loses_no_request_while_a_gateway_leaves() {
    local(async {
        let server = server::named("v1").await;
        let leaving = Proxy::to(&[server.address]);
        let staying = Proxy::to(&[server.address]);
        let (first, second) = (leaving.gateway(), staying.gateway());
        let clients: Vec<_> = (0..8)
            .map(|number| {
                spawn_local(async move {
                    let mut gateway = first;
                    let mut answers = 0;
                    let mut client = Client::http1(gateway).await;
                    while answers < 300 {
                        if client.is_closed() {
                            // As a Service does once the leaving pod is not ready.
                            gateway = if number % 2 == 0 || answers > 100 {
                                second
                            } else {
                                first
                            };
                            client = Client::http1(gateway).await;
                        }
                        let answer = client.get("/").await;
                        assert_eq!(answer.text(), "v1");
                        if answer.header("connection") == "close" {
                            client = Client::http1(second).await;
                        }
                        answers += 1;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    answers
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(leaving.shared.drain.run(MINIMUM, MAXIMUM).await, 0);
        for client in clients {
            assert_eq!(client.await.unwrap(), 300);
        }
    })
    .await;
}
