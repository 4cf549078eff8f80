//! A leaf, its key and the roots it is checked against, as TLS configurations.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// Why a Secret is not a certificate that can be served.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A key of the Secret is absent.
    #[error("the Secret has no {0}: delete it, and the ca role writes it anew")]
    Missing(&'static str),
    /// It is not PEM.
    #[error("{0} is not PEM: {1}; delete the Secret, and the ca role writes it anew")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    /// The leaf cannot be read, or carries no SPIFFE id.
    #[error("tls.crt: {0}")]
    Leaf(#[from] sluice_identity::IdentityError),
    /// The key does not fit, or the roots are no certificates.
    #[error("TLS refuses the certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The roots cannot check clients.
    #[error("TLS refuses ca.crt: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The role's own certificate with everything that TLS needs. It has no `Debug`, for its key.
pub struct Certs {
    spiffe_id: String,
    serial: String,
    root_pem: String,
    grpc: Arc<ServerConfig>,
    grpc_mutual: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Certs {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` of a Secret.
    ///
    /// # Errors
    /// What is missing or does not fit, with what to do.
    pub fn from_secret(secret: &Secret) -> Result<Self, CertsError> {
        let part = |name: &'static str| {
            secret
                .data
                .as_ref()
                .and_then(|data| data.get(name))
                .map(|bytes| bytes.0.as_slice())
                .ok_or(CertsError::Missing(name))
        };
        Self::from_pem(part("tls.crt")?, part("tls.key")?, part("ca.crt")?)
    }

    /// The same from PEM bytes: leaf, key, roots.
    ///
    /// # Errors
    /// What does not fit.
    pub fn from_pem(leaf: &[u8], key: &[u8], roots: &[u8]) -> Result<Self, CertsError> {
        let chain = CertificateDer::pem_slice_iter(leaf)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CertsError::Pem("tls.crt", error))?;
        let first = chain.first().ok_or(CertsError::Missing("tls.crt"))?;
        let facts = sluice_identity::inspect_der(first)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| CertsError::Pem("tls.key", error))?;
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            store.add(root.map_err(|error| CertsError::Pem("ca.crt", error))?)?;
        }
        let store = Arc::new(store);

        let server = |mutual: Option<bool>, alpn: &[&[u8]]| -> Result<_, CertsError> {
            let builder = ServerConfig::builder();
            let verifier = match mutual {
                None => WebPkiClientVerifier::no_client_auth(),
                Some(true) => WebPkiClientVerifier::builder(store.clone()).build()?,
                Some(false) => WebPkiClientVerifier::builder(store.clone())
                    .allow_unauthenticated()
                    .build()?,
            };
            let mut config = builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Ok(Arc::new(config))
        };
        let mut client = ClientConfig::builder()
            .with_root_certificates(store.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.alpn_protocols = vec![b"h2".to_vec()];

        Ok(Self {
            spiffe_id: facts.spiffe_id.unwrap_or_default(),
            serial: facts.serial,
            root_pem: String::from_utf8_lossy(roots).into_owned(),
            grpc: server(Some(false), &[b"h2"])?,
            grpc_mutual: server(Some(true), &[b"h2"])?,
            http: server(None, &[b"h2", b"http/1.1"])?,
            client: Arc::new(client),
        })
    }

    /// Our own id, `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
    #[must_use]
    pub fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }

    /// The leaf's serial number, hex: tells rotations apart in the log.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The roots that peers are checked against, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// For gRPC (h2): a client certificate is checked if there is one, and not asked for
    /// otherwise (proxies prove themselves by token).
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.grpc.clone()
    }

    /// For gRPC (h2) between the operator's own roles: without a client certificate of our
    /// root there is no handshake.
    #[must_use]
    pub fn mutual_server_config(&self) -> Arc<ServerConfig> {
        self.grpc_mutual.clone()
    }

    /// For plain HTTPS (h2 and HTTP/1.1), no client certificate.
    #[must_use]
    pub fn http_server_config(&self) -> Arc<ServerConfig> {
        self.http.clone()
    }

    /// For gRPC to another role: presents our leaf, checks the server against our roots.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }
}
