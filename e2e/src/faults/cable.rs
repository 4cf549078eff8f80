//! A TCP connection's way, which can be cut in either direction: what is sent is taken, and
//! never arrives.

use std::{io, sync::Arc};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
};

/// Which directions are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// From those who connect to whom they connect to.
    pub forth: bool,
    /// The other way.
    pub back: bool,
}

/// A way to one address.
pub struct Cable {
    /// Where it begins, `IP:PORT`.
    pub address: String,
    cut: Arc<watch::Sender<Cut>>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// A whole one to this address.
    ///
    /// # Errors
    /// No free port.
    pub async fn to(target: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let cut = Arc::new(watch::channel(Cut::default()).0);
        let mut tasks = JoinSet::new();
        let told = cut.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (target, cut) = (target.clone(), told.subscribe());
                connections.spawn(async move {
                    // Either end may go at any time.
                    let _ = join(near, &target, cut).await;
                });
            }
        });
        Ok(Self {
            address,
            cut,
            _tasks: tasks,
        })
    }

    /// From now on it is cut so.
    pub fn cut(&self, cut: Cut) {
        self.cut.send_replace(cut);
    }
}

async fn join(near: TcpStream, target: &str, cut: watch::Receiver<Cut>) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    let ((near_out, near_in), (far_out, far_in)) = (near.into_split(), far.into_split());
    let back = cut.clone();
    tokio::select! {
        ended = carry(near_out, far_in, move || cut.borrow().forth) => ended,
        ended = carry(far_out, near_in, move || back.borrow().back) => ended,
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    is_cut: impl Fn() -> bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    let mut lost = false;
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        // A stream that has lost bytes is never mended: those who use it must make a new one.
        lost |= is_cut();
        if !lost {
            to.write_all(&bytes[..read]).await?;
        }
    }
}
