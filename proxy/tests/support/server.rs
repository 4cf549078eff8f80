//! Servers behind the proxy.

use std::{cell::Cell, convert::Infallible, future::Future, net::SocketAddr, rc::Rc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder};
use sluice_proxy::upstream::LocalExec;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub fn ok(text: &'static str) -> Response<Body> {
    Response::new(full(text))
}

pub fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(full("")).unwrap()
}

/// A server that counts.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub connections: Rc<Cell<usize>>,
    pub requests: Rc<Cell<usize>>,
}

/// HTTP/1 and 2, each request answered by `answer`.
pub async fn http<F, A>(answer: F) -> Server
where
    F: Fn(Request<Incoming>) -> A + Clone + 'static,
    A: Future<Output = Response<Body>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        address: listener.local_addr().unwrap(),
        connections: Rc::default(),
        requests: Rc::default(),
    };
    let counted = server.clone();
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.connections.set(counted.connections.get() + 1);
            let (answer, counted) = (answer.clone(), counted.clone());
            spawn_local(async move {
                let service = service_fn(|request| {
                    counted.requests.set(counted.requests.get() + 1);
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = Builder::new(LocalExec);
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    server
}

/// Says its name.
pub async fn named(name: &'static str) -> Server {
    http(move |_| async move {
        let mut response = ok(name);
        let name = HeaderValue::from_static(name);
        response.headers_mut().insert("x-name", name);
        response
    })
    .await
}

/// Gives back what it gets.
pub async fn echo() -> Server {
    http(|request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
        let headers = response.headers_mut();
        for (name, value) in &parts.headers {
            let name = format!("got-{name}");
            headers.append(http::HeaderName::try_from(name).unwrap(), value.clone());
        }
        let uri = HeaderValue::try_from(parts.uri.to_string()).unwrap();
        headers.insert("got-uri", uri);
        let version = HeaderValue::try_from(format!("{:?}", parts.version)).unwrap();
        headers.insert("got-version", version);
        response
    })
    .await
}

/// Raw connections, each handled by `handle`, which also gets its number.
pub async fn raw<F, A>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> A + 'static,
    A: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            spawn_local(handle(stream, number));
        }
    });
    address
}

/// Reads the head of a request.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Answers one request with these bytes.
pub async fn answer(stream: &mut TcpStream, bytes: &str) {
    head(stream).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
}
