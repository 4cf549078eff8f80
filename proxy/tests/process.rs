//! The program itself: how it leaves, and what it shows to whom.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener},
    process::{Child, Command},
    rc::Rc,
    time::{Duration, Instant},
};

use support::{
    LISTENER, Split,
    client::{Client, raw},
    local,
    plane::Plane,
    server, until,
};
use tokio::{net::TcpStream, task::spawn_local, time::timeout};

/// A gateway in a process of its own.
struct Gateway {
    process: Child,
    clients: SocketAddr,
    status: SocketAddr,
    admin: SocketAddr,
    _plane: Plane,
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Gateway {
    /// In front of these endpoints, and ready.
    async fn start(stable: Vec<SocketAddr>) -> Self {
        // A port that was free may be somebody's by the time that the process listens on it.
        for _ in 0..5 {
            if let Some(ready) = Self::spawn(stable.clone()).ready().await {
                return ready;
            }
        }
        panic!("the gateway ends at its start, five times");
    }

    fn spawn(stable: Vec<SocketAddr>) -> Self {
        let plane = Plane::start();
        let split = Split {
            stable,
            ..Split::default()
        };
        plane.set(split.resources());
        let (clients, status, admin) = (free(), free(), free());
        let target = plane.target();
        let route = LISTENER.trim_start_matches("outbound/");
        let process = Command::new(env!("CARGO_BIN_EXE_sluice-proxy"))
            .args(["gateway", "--log", "warn", "--drain-min", "3"])
            .args(["--control-plane", &target.url])
            .args(["--route", &format!("{}={route}", clients.port())])
            .args(["--status", &status.to_string()])
            .args(["--admin", &admin.to_string()])
            .arg("--token-file")
            .arg(&target.token_file)
            .arg("--root-file")
            .arg(&target.root_file)
            .spawn()
            .unwrap();
        Self {
            process,
            clients,
            status,
            admin,
            _plane: plane,
        }
    }

    /// None: the process has ended.
    async fn ready(mut self) -> Option<Self> {
        let start = Instant::now();
        // A connect to a port that nobody has may meet itself, and then says nothing.
        let patience = Duration::from_secs(5);
        while !timeout(patience, self.is_ready()).await.unwrap_or(false) {
            if self.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "never ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(self)
    }

    async fn is_ready(&self) -> bool {
        TcpStream::connect(self.status).await.is_ok()
            && show(self.status, "/healthz/ready").await == 200
    }

    fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn show(address: SocketAddr, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = raw(address, request.as_bytes()).await;
    answer
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

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
        gateway.terminate();
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
