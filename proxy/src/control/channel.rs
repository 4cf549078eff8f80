//! The TLS connection to the control plane, and the token that proves who we are.

use std::{io, path::PathBuf, time::Duration};

use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// A control plane that says nothing for this long is asked whether it lives.
const PING: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);

/// Where the control plane is, and what is needed to trust each other.
#[derive(Debug, Clone)]
pub struct Target {
    /// `https://HOST:PORT`; `http` speaks without TLS, for tests.
    pub url: String,
    /// The projected token; read anew for each connection, since it is renewed.
    pub token_file: PathBuf,
    /// Roots in PEM; read anew for each connection.
    pub root_file: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that the pod should have.
    #[error("cannot read {path}: {error}; is its volume mounted, and has the ca role written it?")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// A token that is none.
    #[error("{0} holds no token")]
    Token(PathBuf),
    /// The connection itself.
    #[error("cannot connect to {url}: {}", chain(error))]
    Transport {
        /// Where to.
        url: String,
        /// What is wrong.
        error: tonic::transport::Error,
    },
}

/// All causes: tonic's own message is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The bearer token of one connection.
#[derive(Debug, Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    /// A request that carries it.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        request
    }
}

impl Target {
    /// Connects, with the files as they are now.
    ///
    /// # Errors
    /// [`ConnectError`], which says what to look at.
    pub async fn connect(self) -> Result<(Channel, Token), ConnectError> {
        let token = self.token().await?;
        let transport = |error| ConnectError::Transport {
            url: self.url.clone(),
            error,
        };
        let mut endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(transport)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let root = Certificate::from_pem(read(&self.root_file).await?);
            let tls = ClientTlsConfig::new().ca_certificate(root);
            endpoint = endpoint.tls_config(tls).map_err(transport)?;
        }
        let channel = endpoint.connect().await.map_err(transport)?;
        Ok((channel, token))
    }

    async fn token(&self) -> Result<Token, ConnectError> {
        let token = read(&self.token_file).await?;
        let invalid = || ConnectError::Token(self.token_file.clone());
        let token = std::str::from_utf8(&token).map_err(|_| invalid())?.trim();
        if token.is_empty() {
            return Err(invalid());
        }
        let value = format!("Bearer {token}").parse();
        value.map(Token).map_err(|_| invalid())
    }
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    tokio::fs::read(path)
        .await
        .map_err(|error| ConnectError::File {
            path: path.clone(),
            error,
        })
}
