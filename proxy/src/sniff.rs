//! Reading just enough of a connection to know what it speaks, without ever holding up a server
//! that speaks first.

use std::{future::Future, io, pin::pin, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::detect::{MAX_LINE, Verdict, judge};

/// A client that speaks first has usually spoken by then; else the server is connected to, to
/// hear whether it does.
const PATIENCE: Duration = Duration::from_millis(5);

/// With no connection to the server, how long a client that may yet speak HTTP is waited for: it
/// can be told in its own protocol.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a connection turned out to be.
#[derive(Debug)]
pub enum Sniffed<S> {
    /// HTTP.
    Http,
    /// Bytes; with the connection to the server, if it was made already.
    Raw(Option<S>),
    /// The server cannot be reached, and the client says nothing.
    Unreachable(io::Error),
}

/// A connection to a server, of which a first word may be heard.
pub trait Server {
    /// Resolves when it has sent something, or ended. Takes nothing away.
    fn speaks(&self) -> impl Future<Output = ()>;
}

/// Reads into `prefix` what the client says first, until it is known what it speaks. `connect`
/// is polled only when the client is slow.
pub async fn sniff<S: Server>(
    client: &mut TcpStream,
    prefix: &mut Vec<u8>,
    connect: impl Future<Output = io::Result<S>>,
) -> Sniffed<S> {
    if let Ok(verdict) = timeout(PATIENCE, listen(client, prefix)).await {
        return known(verdict, None);
    }
    let mut connect = pin!(connect);
    let connected = tokio::select! {
        verdict = listen(client, prefix) => return known(verdict, None),
        connected = &mut connect => connected,
    };
    let server = match connected {
        Ok(server) => server,
        Err(error) => {
            return match timeout(LAST_WORD, listen(client, prefix)).await {
                Ok(Verdict::Http1 | Verdict::Http2) => Sniffed::Http,
                Ok(Verdict::Raw | Verdict::Unsure) | Err(_) => Sniffed::Unreachable(error),
            };
        }
    };
    tokio::select! {
        verdict = listen(client, prefix) => known(verdict, Some(server)),
        () = server.speaks() => Sniffed::Raw(Some(server)),
    }
}

fn known<S>(verdict: Verdict, server: Option<S>) -> Sniffed<S> {
    match verdict {
        Verdict::Http1 | Verdict::Http2 => Sniffed::Http,
        Verdict::Raw | Verdict::Unsure => Sniffed::Raw(server),
    }
}

/// Reads until the verdict is clear, or the client says no more. May be dropped and called anew.
async fn listen(client: &mut TcpStream, prefix: &mut Vec<u8>) -> Verdict {
    loop {
        let verdict = judge(prefix);
        if verdict != Verdict::Unsure || prefix.len() >= MAX_LINE {
            return verdict;
        }
        match client.read_buf(prefix).await {
            Ok(0) | Err(_) => return Verdict::Unsure,
            Ok(_) => {}
        }
    }
}
