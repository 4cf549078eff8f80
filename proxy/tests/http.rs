//! Forwarding of HTTP: what passes, what stays behind, what is reused.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use support::{
    Proxy, Speaks, Split,
    client::{self, Answer, Client},
    local, nobody,
    server::{self, Body, full, ok},
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
};

#[tokio::test]
async fn requests_are_forwarded_in_the_version_of_the_client_or_of_the_cluster() {
    local(async {
        let server = server::echo().await;
        for (speaks, one, two) in [
            (Speaks::Http, "HTTP/1.1", "HTTP/2.0"),
            (Speaks::Unknown, "HTTP/1.1", "HTTP/2.0"),
            (Speaks::Http2, "HTTP/2.0", "HTTP/2.0"),
        ] {
            let stable = vec![server.address];
            let proxy = Proxy::with(&Split {
                speaks,
                stable,
                ..Split::default()
            });
            let gateway = proxy.gateway();
            let first = Client::http1(gateway).await.get("/a?b=c").await;
            let second = Client::http2(gateway).await.get("/a?b=c").await;
            assert_eq!(first.header("got-version"), one, "{speaks:?}");
            assert_eq!(second.header("got-version"), two, "{speaks:?}");
            assert!(first.header("got-uri").ends_with("/a?b=c"), "{first:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn connections_to_endpoints_are_kept_and_used_again() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let mut first = Client::http1(gateway).await;
        for _ in 0..20 {
            assert_eq!(first.get("/").await.text(), "v1");
        }
        for _ in 0..5 {
            assert_eq!(client::get(gateway).await.text(), "v1");
        }
        assert_eq!((server.connections.get(), server.requests.get()), (1, 25));
        let mut second = Client::http2(gateway).await;
        for _ in 0..20 {
            assert_eq!(second.get("/").await.status, 200);
        }
        assert_eq!(server.connections.get(), 2, "one more, of HTTP/2");
    })
    .await;
}

#[tokio::test]
async fn headers_of_one_hop_stay_behind_and_all_others_pass() {
    local(async {
        let server = server::echo().await;
        let proxy = Proxy::to(&[server.address]);
        let request = "GET http://cart:80/x HTTP/1.1\r\nHost: other\r\nConnection: close, x-mine\r\n\
            X-Mine: 1\r\nKeep-Alive: timeout=1\r\nTE: trailers\r\nX-Theirs: 2\r\nX-Theirs: 3\r\n\
            X-Forwarded-For: 1.1.1.1\r\n\r\n";
        let answer = client::raw(proxy.gateway(), request.as_bytes()).await;
        for there in [
            "got-host: cart:80",
            "got-uri: /x",
            "got-te: trailers",
            "got-x-theirs: 2\r\ngot-x-theirs: 3",
            "got-x-forwarded-for: 1.1.1.1, 127.0.0.1",
            "got-x-request-id: ",
        ] {
            assert!(answer.contains(there), "{there} in {answer}");
        }
        for gone in ["got-x-mine", "got-keep-alive", "got-connection: close"] {
            assert!(!answer.contains(gone), "{gone} in {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_with_unclear_target_or_framing_is_refused() {
    local(async {
        let server = server::echo().await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        for head in [
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\nConnection: close\r\n\r\n",
        ] {
            let answer = client::raw(gateway, head.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        }
        assert_eq!(server.requests.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_length_beside_chunks_never_reaches_the_endpoint() {
    local(async {
        let server = server::echo().await;
        let proxy = Proxy::to(&[server.address]);
        let smuggled = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nhi\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = client::raw(proxy.gateway(), smuggled.as_bytes()).await;
        assert!(!answer.contains("got-content-length"), "{answer}");
        assert!(!answer.contains("evil"), "{answer}");
        assert_eq!(server.requests.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn answers_without_a_body_end_at_once() {
    local(async {
        let server = server::http(|request: Request<Incoming>| async move {
            let code = request.uri().path()[1..].parse().unwrap_or(200);
            let builder = Response::builder().status(code);
            match code {
                200 => builder
                    .header("content-length", "5")
                    .body(full("hello"))
                    .unwrap(),
                _ => builder.body(full("")).unwrap(),
            }
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let mut client = Client::http1(gateway).await;
        assert_eq!(client.get("/204").await.status, 204);
        assert_eq!(client.get("/304").await.status, 304);
        let head = Request::head("/200").body(Full::default()).unwrap();
        let head = Answer::read(client.send(head).await.unwrap()).await;
        assert_eq!((head.header("content-length"), head.text()), ("5", ""));
        assert_eq!(client.get("/200").await.text(), "hello");
        assert_eq!(server.connections.get(), 1);
    })
    .await;
}

/// 8 MiB of a pattern.
fn big() -> Bytes {
    (0..8 << 20).map(|i: u32| (i % 251) as u8).collect()
}

#[tokio::test]
async fn big_bodies_stream_through_both_ways() {
    local(async {
        let server = server::echo().await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let body = big();
        for mut client in [Client::http1(gateway).await, Client::http2(gateway).await] {
            let answer = client.post(body.clone()).await;
            assert_eq!((answer.status, answer.body == body), (200, true));
        }
    })
    .await;
}

fn with_trailers() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [
        Frame::data(Bytes::from_static(b"data")),
        Frame::trailers(trailers),
    ];
    StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync()
}

#[tokio::test]
async fn trailers_pass() {
    local(async {
        let server = server::http(|_| async {
            let mut response = Response::new(with_trailers());
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("x-sum"));
            response
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let two = Request::get("http://cart/").header("te", "trailers");
        let one = Request::get("/").header("te", "trailers");
        for (mut client, request) in [
            (Client::http2(gateway).await, two),
            (Client::http1(gateway).await, one),
        ] {
            let request = request.body(Full::default()).unwrap();
            let response = client.send(request).await.unwrap();
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
        }
    })
    .await;
}

#[tokio::test]
async fn a_websocket_becomes_bytes_both_ways() {
    local(async {
        let server = server::http(|mut request: Request<Incoming>| async move {
            assert_eq!(request.headers()["upgrade"], "websocket");
            let upgrade = hyper::upgrade::on(&mut request);
            spawn_local(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut word = [0; 4];
                io.read_exact(&mut word).await.unwrap();
                io.write_all(&word).await.unwrap();
                io.shutdown().await.unwrap();
            });
            let response = Response::builder().status(101);
            let response = response
                .header("connection", "upgrade")
                .header("upgrade", "websocket");
            response.body(full("")).unwrap()
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        // Through both ends of the mesh.
        let inbound = proxy.inbound(server.address);
        let proxy = Proxy::to(&[inbound]);
        let mut stream = TcpStream::connect(proxy.gateway()).await.unwrap();
        let request =
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let head = server::head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("upgrade: websocket"), "{head}");
        stream.write_all(b"ping").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ping");
        assert_eq!(proxy.stable().coined, 1);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    local(async {
        let server = server::echo().await;
        let proxy = Proxy::to(&[server.address]);
        let mut stream = TcpStream::connect(proxy.gateway()).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
        stream.write_all(head).await.unwrap();
        assert!(server::head(&mut stream).await.starts_with("HTTP/1.1 100 "));
        stream.write_all(b"body").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("body"), "{rest}");
    })
    .await;
}

#[tokio::test]
async fn a_stream_flows_both_ways_before_either_end_is_done() {
    local(async {
        let server = server::echo().await;
        let proxy = Proxy::to(&[server.address]);
        let stream = TcpStream::connect(proxy.gateway()).await.unwrap();
        let io = TokioIo::new(stream);
        let handshake =
            hyper::client::conn::http2::handshake(sluice_proxy::upstream::LocalExec, io);
        let (mut sender, connection) = handshake.await.unwrap();
        spawn_local(connection);
        let (words, body) = futures::channel::mpsc::unbounded::<Bytes>();
        let frames = body.map(|word| Ok::<_, std::convert::Infallible>(Frame::data(word)));
        let request = Request::post("http://cart/")
            .body(StreamBody::new(frames))
            .unwrap();
        let mut answer = sender.send_request(request).await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            words.unbounded_send(word.into()).unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        drop(words);
        assert!(answer.collect().await.unwrap().to_bytes().is_empty());
    })
    .await;
}

#[tokio::test]
async fn without_endpoints_the_answer_says_so() {
    local(async {
        let proxy = Proxy::to(&[]);
        let answer = client::get(proxy.gateway()).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("server"), "sluice");
        assert_eq!(answer.header("x-sluice-response-flags"), "UH");
        assert!(
            answer
                .text()
                .contains("no endpoint of the destination is ready")
        );
        let text = proxy.shared.metrics.text();
        assert!(text.contains(r#"response_flags="UH""#), "{text}");

        let mut unreached = Client::http2(Proxy::to(&[nobody().await]).gateway()).await;
        let request = Request::post("http://cart/").header("content-type", "application/grpc");
        let request = request.body(Full::default()).unwrap();
        let answer = Answer::read(unreached.send(request).await.unwrap()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));
    })
    .await;
}

#[tokio::test]
async fn a_gateway_without_a_route_says_so() {
    local(async {
        let proxy = Proxy::new();
        let absent = [support::LISTENER.to_owned()].into();
        proxy.shared.publish(sluice_proxy::config::Snapshot {
            absent,
            ..Default::default()
        });
        let answer = client::get(proxy.gateway()).await;
        assert_eq!(
            (answer.status, answer.header("x-sluice-response-flags")),
            (503, "NR")
        );
    })
    .await;
}

#[tokio::test]
async fn inbound_requests_reach_the_application_and_are_counted_at_the_destination() {
    local(async {
        let server = server::http(|_| async { ok("app") }).await;
        let proxy = Proxy::new();
        let inbound = proxy.inbound(server.address);
        for mut client in [Client::http1(inbound).await, Client::http2(inbound).await] {
            assert_eq!(client.get("/").await.text(), "app");
        }
        let text = proxy.shared.metrics.text();
        let line = text
            .lines()
            .find(|line| line.contains(r#"reporter="destination""#))
            .unwrap();
        assert!(
            line.contains(r#"destination_workload="frontend""#),
            "{line}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_an_idle_connection_costs_stays_small() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::to(&[server.address]);
        let client = TcpStream::connect(server.address).await.unwrap();
        let peer = client.local_addr().unwrap();
        let connection = sluice_proxy::outbound::gateway(
            proxy.worker.clone(),
            client,
            peer,
            support::LISTENER.into(),
        );
        let size = size_of_val(&connection);
        assert!((1024..12 * 1024).contains(&size), "{size}");
    })
    .await;
}

#[tokio::test]
async fn half_a_head_is_not_waited_for_for_ever_but_a_connection_in_use_may_rest() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let mut used = Client::http1(gateway).await;
        used.get("/").await;
        let mut slow = TcpStream::connect(gateway).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let open = || proxy.shared.drain.open_count();
        until("it is accepted", || open() == 3).await;
        tokio::time::pause();
        tokio::time::sleep(std::time::Duration::from_secs(70)).await;
        tokio::time::resume();
        until("it is closed", || open() == 2).await;
        assert_eq!(slow.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(used.get("/").await.text(), "v1");
    })
    .await;
}
