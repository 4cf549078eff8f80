//! What is counted, in which arm, in which class.
#![allow(clippy::unwrap_used)]

mod support;

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use sluice_evidence::v1::ArmCounts;
use support::{
    CANDIDATE, Proxy, Split,
    client::{self, Answer, Client},
    local, plain,
    server::{self, Body, head, status},
    until,
};
use tokio::{io::AsyncWriteExt, sync::Notify, task::spawn_local};

#[tokio::test]
async fn requests_fall_on_the_arms_by_weight_and_are_counted_there() {
    local(async {
        let (v1, v2) = (server::named("v1").await, server::named("v2").await);
        let proxy = Proxy::with(&Split {
            stable: vec![v1.address],
            candidate: vec![v2.address],
            weight: 10,
            ..Split::default()
        });
        let mut client = Client::http1(proxy.gateway()).await;
        let n = 2000;
        for _ in 0..n {
            client.get("/").await;
        }
        let (stable, candidate) = (proxy.stable(), proxy.candidate());
        assert_eq!(stable.coined, v1.requests.get() as u64);
        assert_eq!(candidate.coined, v2.requests.get() as u64);
        assert_eq!(stable.coined + candidate.coined, n);
        assert_eq!(stable.duration_buckets.iter().sum::<u64>(), stable.coined);
        let sigma = (n as f64 * 0.1 * 0.9).sqrt();
        assert!(
            (candidate.coined as f64 - 200.0).abs() < 4.0 * sigma,
            "{candidate:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_new_weight_holds_for_the_next_request_of_an_open_connection() {
    local(async {
        let (v1, v2) = (server::named("v1").await, server::named("v2").await);
        let mut split = Split {
            stable: vec![v1.address],
            candidate: vec![v2.address],
            weight: 100,
            ..Split::default()
        };
        let mut proxy = Proxy::with(&split);
        let mut client = Client::http1(proxy.gateway()).await;
        assert_eq!(client.get("/").await.text(), "v2");
        split.weight = 0;
        split.fence = 2;
        proxy.set(&split);
        for _ in 0..50 {
            assert_eq!(client.get("/").await.text(), "v1");
        }
        assert_eq!(proxy.shared.snapshot.load().applied["shop/cart"], 2);
    })
    .await;
}

#[tokio::test]
async fn http_statuses_are_counted_by_class() {
    local(async {
        let server = server::http(|request: Request<Incoming>| async move {
            status(request.uri().path()[1..].parse().unwrap())
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        let mut client = Client::http1(proxy.gateway()).await;
        for path in ["/200", "/404", "/429", "/500", "/503", "/302"] {
            client.get(path).await;
        }
        let expected = ArmCounts {
            coined: 6,
            server_errors: 2,
            client_errors: 2,
            ..ArmCounts::default()
        };
        assert_eq!(plain(proxy.stable()), expected);
    })
    .await;
}

/// A gRPC answer with this status: in trailers after a message, or alone in the headers.
fn grpc(code: &str, trailers_only: bool) -> Response<Body> {
    let mut status = HeaderMap::new();
    status.insert("grpc-status", code.parse().unwrap());
    let builder = Response::builder().header("content-type", "application/grpc");
    if trailers_only {
        return builder
            .header("grpc-status", code)
            .body(server::full(""))
            .unwrap();
    }
    let frames = [
        Frame::data(Bytes::from_static(b"message")),
        Frame::trailers(status),
    ];
    builder
        .body(StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync())
        .unwrap()
}

#[tokio::test]
async fn grpc_statuses_that_are_the_servers_fault_are_failures_and_others_are_not() {
    local(async {
        let server = server::http(|request: Request<Incoming>| async move {
            let (only, code) = request.uri().path()[1..].split_at(1);
            grpc(code, only == "h")
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        let mut client = Client::http2(proxy.gateway()).await;
        for code in 0..=16 {
            for place in ["t", "h"] {
                let request = Request::post(format!("http://cart/{place}{code}"))
                    .header("content-type", "application/grpc+proto")
                    .body(Full::default())
                    .unwrap();
                Answer::read(client.send(request).await.unwrap()).await;
            }
        }
        let expected = ArmCounts {
            coined: 34,
            grpc_errors: 12,
            ..ArmCounts::default()
        };
        assert_eq!(plain(proxy.stable()), expected);
        let text = proxy.shared.metrics.text();
        assert!(text.contains(r#"grpc_response_status="14""#), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_cut_body_is_a_reset_and_the_client_sees_the_cut() {
    local(async {
        let address = server::raw(|mut stream, _| async move {
            head(&mut stream).await;
            let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            stream.write_all(cut).await.unwrap();
        })
        .await;
        let proxy = Proxy::to(&[address]);
        let mut client = Client::http1(proxy.gateway()).await;
        let request = Request::get("/").body(Full::default()).unwrap();
        let response = client.send(request).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
        let expected = ArmCounts {
            coined: 1,
            resets: 1,
            ..ArmCounts::default()
        };
        assert_eq!(plain(proxy.stable()), expected);
    })
    .await;
}

#[tokio::test]
async fn streams_that_break_with_their_connection_are_one_failure() {
    local(async {
        let (kill, killed) = tokio::sync::watch::channel(false);
        let server = server::http(|_| async move {
            let frames = stream::once(async { Ok(Frame::data(Bytes::from_static(b"x"))) });
            Response::new(StreamBody::new(frames.chain(stream::pending())).boxed_unsync())
        })
        .await;
        let backend = server.address;
        let address = server::raw(move |mut stream, _| {
            let mut killed = killed.clone();
            async move {
                let mut real = tokio::net::TcpStream::connect(backend).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut stream, &mut real) => {}
                    _ = killed.changed() => {}
                }
            }
        })
        .await;
        let proxy = Proxy::to(&[address]);
        let mut client = Client::http2(proxy.gateway()).await;
        let mut bodies = Vec::new();
        for _ in 0..5 {
            let request = Request::get("http://cart/").body(Full::default()).unwrap();
            let mut body = client.send(request).await.unwrap().into_body();
            body.frame().await.unwrap().unwrap();
            bodies.push(body);
        }
        kill.send(true).unwrap();
        for body in bodies {
            assert!(body.collect().await.is_err());
        }
        let expected = ArmCounts {
            coined: 5,
            resets: 1,
            ..ArmCounts::default()
        };
        assert_eq!(plain(proxy.stable()), expected);
    })
    .await;
}

#[tokio::test]
async fn what_the_client_breaks_off_is_counted_in_no_arm() {
    local(async {
        let server = server::http(|request: Request<Incoming>| async move {
            if request.uri().path() == "/ok" {
                return status(200);
            }
            std::future::pending().await
        })
        .await;
        let proxy = Proxy::to(&[server.address]);
        let gateway = proxy.gateway();
        let mut client = Client::http1(gateway).await;
        let request = Request::get("/").body(Full::default()).unwrap();
        let sent = spawn_local(async move { client.send(request).await.is_ok() });
        until("it runs", || server.requests.get() == 1).await;
        sent.abort();
        let mut client = Client::http2(gateway).await;
        let request = Request::get("http://cart/").body(Full::default()).unwrap();
        let sent = spawn_local(async move { client.send(request).await.is_ok() });
        until("it runs", || server.requests.get() == 2).await;
        sent.abort();
        // Only the listening socket is left.
        until("both are gone", || proxy.shared.drain.open_count() == 1).await;
        Client::http1(gateway).await.get("/ok").await;
        assert_eq!(
            plain(proxy.stable()),
            ArmCounts {
                coined: 1,
                ..ArmCounts::default()
            }
        );
    })
    .await;
}

#[tokio::test]
async fn a_request_is_hung_when_it_crosses_the_line_and_its_end_counts_no_more() {
    local(async {
        let release = Rc::new(Notify::new());
        let held = release.clone();
        let server = server::http(move |_| {
            let held = held.clone();
            async move {
                held.notified().await;
                status(500)
            }
        })
        .await;
        let proxy = Proxy::with(&Split {
            stable: vec![server.address],
            hung_after_ms: 50,
            ..Split::default()
        });
        let mut client = Client::http1(proxy.gateway()).await;
        let answer = spawn_local(async move { client.get("/").await });
        until("it is hung", || proxy.stable().hung == 1).await;
        let hung = ArmCounts {
            coined: 1,
            hung: 1,
            ..ArmCounts::default()
        };
        assert_eq!(plain(proxy.stable()), hung, "while it runs");
        release.notify_one();
        assert_eq!(answer.await.unwrap().status, 500);
        assert_eq!(plain(proxy.stable()), hung);
    })
    .await;
}

#[tokio::test]
async fn a_lapsed_lease_keeps_requests_from_the_candidate_and_out_of_the_coin() {
    local(async {
        let (v1, v2) = (server::named("v1").await, server::named("v2").await);
        let proxy = Proxy::with(&Split {
            stable: vec![v1.address],
            candidate: vec![v2.address],
            weight: 100,
            leased: true,
            ..Split::default()
        });
        let gateway = proxy.gateway();
        assert_eq!(client::get(gateway).await.text(), "v2");
        tokio::time::pause();
        tokio::select! {
            () = proxy.shared.lease.watch() => {}
            () = tokio::time::sleep(Duration::from_secs(61)) => {}
        }
        tokio::time::resume();
        assert_eq!(client::get(gateway).await.text(), "v1");
        assert_eq!((proxy.stable().coined, proxy.stable().uncoined), (0, 1));
        proxy.shared.lease.renew();
        assert_eq!(client::get(gateway).await.text(), "v2");
    })
    .await;
}

#[tokio::test]
async fn a_candidate_without_endpoints_leaves_its_share_to_stable_outside_the_coin() {
    local(async {
        let v1 = server::named("v1").await;
        let proxy = Proxy::with(&Split {
            stable: vec![v1.address],
            weight: 100,
            ..Split::default()
        });
        assert_eq!(
            client::get(proxy.gateway()).await.text(),
            "v1",
            "{CANDIDATE} is empty"
        );
        let stable = proxy.stable();
        assert_eq!((stable.coined, stable.uncoined), (0, 1));
    })
    .await;
}
