//! Leaving loses nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    cell::Cell,
    io::{Read, Write},
    rc::Rc,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use support::{
    Proxy,
    client::{self, Client},
    local,
    server::{self, Body, ok},
    until,
};
use tokio::{net::TcpStream, sync::Notify, task::spawn_local};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const MAXIMUM: Duration = Duration::from_secs(60);

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
        proxy.shared.drain.start();
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
        let mut late = Client::http2(gateway).await;
        assert_eq!(late.get("/").await.text(), "v1");
        assert_eq!(proxy.shared.drain.finish(MAXIMUM).await, 0);
        until("all have left", || {
            [&old, &streams, &late]
                .iter()
                .all(|client| client.is_closed())
        })
        .await;
        assert!(TcpStream::connect(gateway).await.is_err());
    })
    .await;
}

/// Answers when it is told to.
async fn held(release: Rc<Notify>) -> server::Server {
    let answer = move |_: Request<Incoming>| {
        let release = release.clone();
        async move {
            release.notified().await;
            let answer: Response<Body> = ok("late");
            answer
        }
    };
    server::http(answer).await
}

#[tokio::test]
async fn a_running_request_is_finished_after_the_listeners_have_closed() {
    local(async {
        let release = Rc::new(Notify::new());
        let server = held(release.clone()).await;
        for http2 in [false, true] {
            let proxy = Proxy::to(&[server.address]);
            let gateway = proxy.gateway();
            let mut client = match http2 {
                false => Client::http1(gateway).await,
                true => Client::http2(gateway).await,
            };
            server.requests.set(0);
            let request = spawn_local(async move { client.get("/").await });
            until("the request runs", || server.requests.get() == 1).await;
            let shared = proxy.shared.clone();
            let left = spawn_local(async move { shared.drain.finish(MAXIMUM).await });
            while TcpStream::connect(gateway).await.is_ok() {}
            release.notify_one();
            assert_eq!(request.await.unwrap().text(), "late");
            assert_eq!(left.await.unwrap(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_has_come_before_the_listeners_close_is_answered() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        // Blocking clients, so that nothing of the proxy runs between their words and its leaving.
        let mut used = std::net::TcpStream::connect(gateway).unwrap();
        used.write_all(REQUEST).unwrap();
        until("it was answered", || server.requests.get() == 1).await;
        until("it rests", || {
            proxy.worker.upstreams.load(server.address).1 == 0
        })
        .await;
        assert!(used.read(&mut [0; 1024]).unwrap() > 0);

        used.write_all(REQUEST).unwrap();
        let mut queued = std::net::TcpStream::connect(gateway).unwrap();
        queued.write_all(REQUEST).unwrap();
        assert_eq!(proxy.shared.drain.finish(MAXIMUM).await, 0);
        for client in [&mut used, &mut queued] {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("v1"), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_steady_load_of_keep_alive_clients_loses_no_request_while_a_gateway_leaves() {
    local(async {
        const CLIENTS: usize = 8;
        let server = server::named("v1").await;
        let leaving = Proxy::to(&[server.address]);
        let staying = Proxy::to(&[server.address]);
        let (first, second) = (leaving.gateway(), staying.gateway());
        let answers = Rc::new(Cell::new(0));
        let moved = Rc::new(Cell::new(0));
        let stop = Rc::new(Cell::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (answers, moved, stop) = (answers.clone(), moved.clone(), stop.clone());
                spawn_local(async move {
                    let mut client = Client::http1(first).await;
                    while !stop.get() {
                        let answer = client.get("/").await;
                        assert_eq!(answer.text(), "v1");
                        answers.set(answers.get() + 1);
                        if answer.header("connection") == "close" {
                            // As a Service does once the leaving pod is not ready.
                            client = Client::http1(second).await;
                            moved.set(moved.get() + 1);
                        }
                    }
                })
            })
            .collect();
        until("there is load", || answers.get() > 100).await;
        leaving.shared.drain.start();
        until("all have moved", || moved.get() == CLIENTS).await;
        assert_eq!(leaving.shared.drain.finish(MAXIMUM).await, 0);
        stop.set(true);
        for client in clients {
            client.await.unwrap();
        }
    })
    .await;
}
