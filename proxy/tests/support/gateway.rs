//! A gateway in a process of its own.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};

use super::{LISTENER, Split, client::raw, plane::Plane, until};

/// A gateway with a control plane of its own.
pub struct Gateway {
    pub process: Child,
    pub clients: SocketAddr,
    pub status: SocketAddr,
    pub admin: SocketAddr,
    pub plane: Plane,
    files: TempDir,
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Gateway {
    /// In front of these endpoints, and ready.
    pub async fn start(stable: Vec<SocketAddr>) -> Self {
        Self::start_with(stable, None).await
    }

    /// The same, where somebody has left this as the last-good file.
    pub async fn start_with(stable: Vec<SocketAddr>, last_good: Option<&[u8]>) -> Self {
        // A port that was free may be somebody's by the time that the process listens on it.
        for _ in 0..5 {
            let mut gateway = Self::spawn(stable.clone(), last_good);
            if gateway.is_up().await {
                return gateway;
            }
        }
        panic!("the gateway ends at its start, five times");
    }

    fn spawn(stable: Vec<SocketAddr>, last_good: Option<&[u8]>) -> Self {
        let plane = Plane::start();
        let split = Split {
            stable,
            ..Split::default()
        };
        plane.set(split.resources());
        let (clients, status, admin) = (free(), free(), free());
        let files = TempDir::new().unwrap();
        if let Some(bytes) = last_good {
            std::fs::write(files.path().join("last-good"), bytes).unwrap();
        }
        Self {
            process: process(&plane, &files, clients, status, admin),
            clients,
            status,
            admin,
            plane,
            files,
        }
    }

    /// The last-good file.
    pub fn last_good(&self) -> PathBuf {
        self.files.path().join("last-good")
    }

    /// What the process has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.files.path().join("log")).unwrap()
    }

    /// Ends it and starts it again, until it is ready.
    pub async fn restart(&mut self, signal: &str) {
        self.signal(signal);
        until("it has left", || self.process.try_wait().unwrap().is_some()).await;
        let Self {
            plane,
            files,
            clients,
            status,
            admin,
            ..
        } = self;
        self.process = process(plane, files, *clients, *status, *admin);
        assert!(self.is_up().await, "it ends at its second start");
    }

    /// Waits until it is ready; false when the process has ended.
    async fn is_up(&mut self) -> bool {
        let start = Instant::now();
        // A connect to a port that nobody has may meet itself, and then says nothing.
        let patience = Duration::from_secs(5);
        while !timeout(patience, self.is_ready()).await.unwrap_or(false) {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "never ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    pub async fn is_ready(&self) -> bool {
        TcpStream::connect(self.status).await.is_ok()
            && show(self.status, "/healthz/ready").await == 200
    }

    /// A metric of its own.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = raw(self.status, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut lines = page.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(of, _)| *of == name).unwrap();
        value.parse().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
    }
}

fn process(
    plane: &Plane,
    files: &TempDir,
    clients: SocketAddr,
    status: SocketAddr,
    admin: SocketAddr,
) -> Child {
    let target = plane.target();
    let route = LISTENER.trim_start_matches("outbound/");
    let log = files.path().join("log");
    let log = File::options().append(true).create(true).open(log).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sluice-proxy"))
        .args(["gateway", "--log", "warn", "--drain-min", "3"])
        .args(["--control-plane", &target.url])
        .args(["--route", &format!("{}={route}", clients.port())])
        .args(["--status", &status.to_string()])
        .args(["--admin", &admin.to_string()])
        .arg("--token-file")
        .arg(&target.token_file)
        .arg("--root-file")
        .arg(&target.root_file)
        .arg("--last-good")
        .arg(files.path().join("last-good"))
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        eprint!("{}", self.log());
    }
}

/// The status of the answer.
pub async fn show(address: SocketAddr, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = raw(address, request.as_bytes()).await;
    answer
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}
