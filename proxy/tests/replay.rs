//! What is sent again when it was not answered, and what never is.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use http::Response;
use sluice_evidence::v1::ArmCounts;
use support::{
    Proxy, Split,
    client::{self, Client},
    local, nobody, plain,
    server::{self, answer, full, head, ok},
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers one request of its first connection, and drops that connection when the next request
/// has come; later connections answer always. Counts the requests it has read.
async fn fickle(read: Rc<Cell<usize>>) -> std::net::SocketAddr {
    server::raw(move |mut stream, number| {
        let read = read.clone();
        async move {
            for request in 0.. {
                if head(&mut stream).await.is_empty() {
                    return;
                }
                read.set(read.get() + 1);
                if number == 0 && request == 1 {
                    return;
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_reused_connection_that_dies_before_its_answer_costs_no_request_and_is_no_failure() {
    local(async {
        let read = Rc::new(Cell::new(0));
        let proxy = Proxy::to(&[fickle(read.clone()).await]);
        let mut client = Client::http1(proxy.gateway()).await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), "ok");
        }
        assert_eq!(read.get(), 4);
        let counts = plain(proxy.stable());
        assert_eq!(
            counts,
            ArmCounts {
                coined: 3,
                ..ArmCounts::default()
            }
        );
    })
    .await;
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_sent_twice_only_if_that_does_no_more() {
    local(async {
        let read = Rc::new(Cell::new(0));
        let proxy = Proxy::to(&[fickle(read.clone()).await]);
        let mut client = Client::http1(proxy.gateway()).await;
        assert_eq!(client.post("").await.status, 200);
        let lost = client.post("").await;
        assert_eq!(
            (lost.status, lost.header("x-sluice-response-flags")),
            (503, "UC")
        );
        assert_eq!(read.get(), 2, "sent once");
        let counts = plain(proxy.stable());
        assert_eq!(
            (counts.coined, counts.resets),
            (2, 1),
            "it is lost: a failure"
        );
    })
    .await;
}

#[tokio::test]
async fn connections_that_were_closed_while_idle_are_not_used_even_for_what_cannot_be_repeated() {
    local(async {
        let idle = Rc::new(RefCell::new(None));
        let keep = idle.clone();
        let address = server::raw(move |mut stream, _| {
            let keep = keep.clone();
            async move {
                answer(&mut stream, OK).await;
                keep.replace(Some(stream));
            }
        })
        .await;
        let proxy = Proxy::to(&[address]);
        let mut client = TcpStream::connect(proxy.gateway()).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        for _ in 0..5 {
            // The goodbye comes just behind the request, and just ahead of its being passed on.
            client.try_write(request).unwrap();
            drop(idle.take());
            let head = server::head(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            client.read_exact(&mut [0; 2]).await.unwrap();
            until("it is idle", || idle.borrow().is_some()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_connection_is_made_elsewhere_in_the_arm_and_is_one_failure() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::to(&[nobody().await, server.address]);
        let gateway = proxy.gateway();
        for _ in 0..20 {
            assert_eq!(client::get(gateway).await.text(), "v1");
        }
        let counts = proxy.stable();
        assert_eq!((counts.coined, counts.uncoined), (20, 0));
        assert!(
            counts.connect_failures <= 1,
            "one event in a second: {counts:?}"
        );
        assert_eq!(counts.server_errors + counts.resets, 0);
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_never_answers_a_connect_holds_up_few_requests_and_is_avoided_then() {
    local(async {
        // Nobody accepts, and the queue is full: the kernel drops what comes.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = socket.unwrap();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        silent.bind(&any.into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let _queued = TcpStream::connect(address).await.unwrap();

        let server = server::named("v1").await;
        let proxy = Proxy::to(&[address, server.address]);
        let gateway = proxy.gateway();
        let clients = (0..40).map(|_| client::get(gateway));
        for answer in futures::future::join_all(clients).await {
            assert_eq!(answer.text(), "v1");
        }
        let failures = proxy.stable().connect_failures;
        for _ in 0..100 {
            assert_eq!(client::get(gateway).await.text(), "v1");
        }
        assert_eq!(proxy.stable().connect_failures, failures, "avoided");
        assert_eq!(proxy.stable().coined, 140);
    })
    .await;
}

#[tokio::test]
async fn an_arm_of_which_no_endpoint_can_be_reached_is_stood_in_for_by_the_other() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::with(&Split {
            stable: vec![server.address],
            candidate: vec![nobody().await],
            weight: 100,
            ..Split::default()
        });
        let answer = client::get(proxy.gateway()).await;
        assert_eq!(answer.text(), "v1");
        let candidate = proxy.candidate();
        assert_eq!((candidate.coined, candidate.connect_failures), (1, 1));
        let stable = proxy.stable();
        assert_eq!((stable.coined, stable.uncoined), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn an_arm_of_weight_0_that_is_not_stable_stands_in_for_nobody() {
    local(async {
        let server = server::named("v2").await;
        let proxy = Proxy::with(&Split {
            stable: vec![nobody().await],
            candidate: vec![server.address],
            ..Split::default()
        });
        let answer = client::get(proxy.gateway()).await;
        assert_eq!(
            (answer.status, answer.header("x-sluice-response-flags")),
            (503, "UF")
        );
        assert_eq!(server.requests.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_the_far_proxy_could_not_hand_over_is_sent_elsewhere_body_and_all() {
    local(async {
        let far = Proxy::new().inbound(nobody().await);
        let server = server::echo().await;
        let proxy = Proxy::with(&Split {
            stable: vec![server.address],
            candidate: vec![far],
            weight: 100,
            ..Split::default()
        });
        let gateway = proxy.gateway();
        for mut client in [Client::http1(gateway).await, Client::http2(gateway).await] {
            let answer = client.post("a body that is not lost").await;
            assert_eq!(answer.text(), "a body that is not lost");
        }
        let candidate = proxy.candidate();
        assert_eq!((candidate.coined, candidate.connect_failures), (2, 1));
        assert_eq!(candidate.server_errors, 0);
    })
    .await;
}

#[tokio::test]
async fn a_client_never_sees_the_mark_of_a_refusal() {
    local(async {
        let far = Proxy::new().inbound(nobody().await);
        let direct = client::get(far).await;
        assert_eq!(
            (direct.status, direct.header("x-sluice-refused")),
            (503, "1")
        );
        let proxy = Proxy::to(&[far]);
        let answer = client::get(proxy.gateway()).await;
        assert_eq!(
            (answer.status, answer.header("x-sluice-refused")),
            (503, "")
        );
        // An application cannot say it either.
        let liar = server::http(|_| async {
            Response::builder()
                .status(503)
                .header("x-sluice-refused", "1")
                .body(full(""))
                .unwrap()
        })
        .await;
        let inbound = Proxy::new().inbound(liar.address);
        assert_eq!(client::get(inbound).await.header("x-sluice-refused"), "");
    })
    .await;
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_a_failure_and_is_not_hidden() {
    local(async {
        let address = server::raw(|mut stream, _| async move {
            head(&mut stream).await;
        })
        .await;
        let proxy = Proxy::to(&[address]);
        let answer = client::get(proxy.gateway()).await;
        assert_eq!(
            (answer.status, answer.header("x-sluice-response-flags")),
            (503, "UC")
        );
        let counts = plain(proxy.stable());
        assert_eq!(
            counts,
            ArmCounts {
                coined: 1,
                resets: 1,
                ..ArmCounts::default()
            }
        );
    })
    .await;
}

#[tokio::test]
async fn streams_that_a_leaving_server_did_not_take_are_sent_again() {
    local(async {
        // GOAWAY with last stream 0 upon the first request of the first connection.
        let served = server::http(|_| async { ok("later") }).await;
        let address = served.address;
        let address = server::raw(move |mut stream, number| async move {
            if number > 0 {
                let mut real = TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut real).await;
                return;
            }
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            stream.write_all(&settings).await.unwrap();
            loop {
                let mut frame = [0; 9];
                stream.read_exact(&mut frame).await.unwrap();
                let length = usize::from(frame[1]) << 8 | usize::from(frame[2]);
                let mut payload = vec![0; length];
                stream.read_exact(&mut payload).await.unwrap();
                if frame[3] == 1 {
                    stream.write_all(&goaway).await.unwrap();
                    return;
                }
            }
        })
        .await;
        let proxy = Proxy::to(&[address]);
        let mut client = Client::http2(proxy.gateway()).await;
        assert_eq!(client.post("not idempotent").await.text(), "later");
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
