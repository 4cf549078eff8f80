//! Raw connections, and those of which nobody said what they speak.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use sluice_evidence::v1::ArmCounts;
use support::{
    Proxy, Speaks, Split,
    client::{self, Client},
    local, nobody, plain, server, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BANNER: &[u8; 5] = b"220 \n";

/// Speaks first, then gives back what it gets.
async fn server_first() -> std::net::SocketAddr {
    server::raw(|mut stream, _| async move {
        stream.write_all(BANNER).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await
}

fn split(speaks: Speaks, stable: std::net::SocketAddr) -> Split {
    Split {
        speaks,
        stable: vec![stable],
        ..Split::default()
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_without_delay_whatever_the_port_is_called() {
    local(async {
        let server = server_first().await;
        let tcp = Proxy::with(&split(Speaks::Tcp, server));
        let unknown = Proxy::with(&split(Speaks::Unknown, server));
        let inbound = Proxy::new().inbound(server);
        for address in [tcp.gateway(), unknown.gateway(), inbound] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut banner = [0; 5];
            stream.read_exact(&mut banner).await.unwrap();
            assert_eq!(&banner, BANNER);
            stream.write_all(b"QUIT\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "QUIT\r\n");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_speaks_first_is_judged_by_its_words() {
    local(async {
        let echo = server::raw(|mut stream, _| async move {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
        let proxy = Proxy::with(&split(Speaks::Unknown, echo));
        let inbound = Proxy::new().inbound(echo);
        for address in [proxy.gateway(), inbound] {
            for words in [&b"PING\r\n"[..], b"\x16\x03\x01\x00", b"GE"] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(words).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).await.unwrap();
                assert_eq!(back, words);
            }
        }
        assert_eq!(proxy.stable().coined, 3);
    })
    .await;
}

#[tokio::test]
async fn slow_http_is_still_http() {
    local(async {
        let server = server::named("v1").await;
        let proxy = Proxy::with(&split(Speaks::Unknown, server.address));
        for address in [proxy.gateway(), Proxy::new().inbound(server.address)] {
            server.connections.set(0);
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GE").await.unwrap();
            // The server is asked whether it speaks first.
            until("it is connected to", || server.connections.get() == 1).await;
            let rest = b"T / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(rest).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("v1"), "{answer}");
        }
        assert_eq!(
            proxy.stable().coined,
            1,
            "as a request, not as a connection"
        );
    })
    .await;
}

#[tokio::test]
async fn http2_is_known_on_a_port_of_which_nothing_was_said() {
    local(async {
        let server = server::named("v1").await;
        let inbound = Proxy::new().inbound(server.address);
        let proxy = Proxy::with(&split(Speaks::Unknown, inbound));
        let mut client = Client::http2(proxy.gateway()).await;
        assert_eq!(client.get("/").await.text(), "v1");
    })
    .await;
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    local(async {
        let server = server::raw(|mut stream, _| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            let length = all.len().to_string();
            stream.write_all(length.as_bytes()).await.unwrap();
        })
        .await;
        let proxy = Proxy::with(&split(Speaks::Tcp, server));
        let mut stream = TcpStream::connect(proxy.gateway()).await.unwrap();
        stream.write_all(&vec![7; 300_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "300000");
    })
    .await;
}

#[tokio::test]
async fn a_broken_connection_is_broken_for_the_client_too_and_is_a_failure() {
    local(async {
        let server = server::raw(|mut stream, _| async move {
            stream.write_all(b"half").await.unwrap();
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        })
        .await;
        let proxy = Proxy::with(&split(Speaks::Tcp, server));
        let mut stream = TcpStream::connect(proxy.gateway()).await.unwrap();
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
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
async fn a_refused_raw_connection_is_made_elsewhere_and_is_a_failure() {
    local(async {
        let server = server_first().await;
        let proxy = Proxy::with(&Split {
            candidate: vec![nobody().await],
            weight: 100,
            ..split(Speaks::Tcp, server)
        });
        let mut stream = TcpStream::connect(proxy.gateway()).await.unwrap();
        let mut banner = [0; 5];
        stream.read_exact(&mut banner).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let candidate = proxy.candidate();
        assert_eq!((candidate.coined, candidate.connect_failures), (1, 1));
        assert_eq!(proxy.stable().uncoined, 1);
    })
    .await;
}

#[tokio::test]
async fn with_nobody_to_connect_to_a_raw_client_is_reset_and_an_http_one_is_told() {
    local(async {
        let server = nobody().await;
        let proxy = Proxy::with(&split(Speaks::Unknown, server));
        for address in [proxy.gateway(), Proxy::new().inbound(server)] {
            assert_eq!(client::get(address).await.status, 503);
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"\0\0\0").await.unwrap();
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    })
    .await;
}
