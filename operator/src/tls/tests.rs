//! Real handshakes over loopback.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use futures::StreamExt;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use sluice_identity::{Authority, LEAF_LIFETIME, Names, create_root, spiffe_id};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::*;

const SERVER: &str = "sluice-serving.sluice-system.svc";

/// Certificates of one root.
pub(crate) struct Ca {
    authority: Authority,
    root_pem: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let root = create_root("cluster.local", Timestamp::now().as_second()).unwrap();
        let authority = Authority::load(&root.cert_pem, &root.key).unwrap();
        Self {
            authority,
            root_pem: root.cert_pem,
        }
    }

    pub(crate) fn certs(&self, account: &str) -> Arc<Certs> {
        let names = Names {
            dns: vec![format!("{account}.sluice-system.svc")],
            spiffe_id: spiffe_id("cluster.local", "sluice-system", account),
        };
        let now = Timestamp::now().as_second();
        let leaf = self.authority.issue(&names, now, LEAF_LIFETIME).unwrap();
        let key = leaf.key.expose_pem();
        let certs = Certs::from_pem(
            leaf.cert_pem.as_bytes(),
            key.as_bytes(),
            self.root_pem.as_bytes(),
        );
        Arc::new(certs.unwrap())
    }

    /// A client that trusts this root and shows nothing.
    fn anonymous(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.root_pem.as_bytes()).unwrap())
            .unwrap();
        Arc::new(
            ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }
}

/// A server that says to each client which SPIFFE ids it has shown.
async fn serve(certs: watch::Receiver<Option<Arc<Certs>>>, auth: ClientAuth) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut incoming = std::pin::pin!(Acceptor::new(listener, certs, auth).incoming());
        while let Some(Ok(mut stream)) = incoming.next().await {
            let ids = tonic::transport::server::Connected::connect_info(&stream).spiffe_ids;
            let _ = stream.write_all(ids.join(",").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// What the server says, and its serial number.
async fn ask(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<(String, String)> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(SERVER).unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok((said, sluice_identity::inspect_der(&leaf).unwrap().serial))
}

#[tokio::test]
async fn the_newest_certificate_is_served_and_none_before_there_is_one() {
    let ca = Ca::new();
    let (publish, certs) = watch::channel(None);
    let address = serve(certs, ClientAuth::None).await;
    assert!(
        ask(address, ca.anonymous()).await.is_err(),
        "no certificate yet"
    );
    for _ in 0..2 {
        let next = ca.certs("sluice-serving");
        publish.send_replace(Some(next.clone()));
        let (_, serial) = ask(address, ca.anonymous()).await.unwrap();
        assert_eq!(serial, next.serial());
    }
}

#[tokio::test]
async fn a_client_certificate_is_welcome_or_required_and_must_be_of_our_root() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (_publish, certs) = watch::channel(Some(ca.certs("sluice-serving")));
    let optional = serve(certs.clone(), ClientAuth::Optional).await;
    let required = serve(certs, ClientAuth::Required).await;
    let known = ca.certs("sluice-controller").client_config();
    let id = "spiffe://cluster.local/ns/sluice-system/sa/sluice-controller";
    assert_eq!(ask(optional, known.clone()).await.unwrap().0, id);
    assert_eq!(ask(required, known).await.unwrap().0, id);
    assert_eq!(ask(optional, ca.anonymous()).await.unwrap().0, "");
    assert!(ask(required, ca.anonymous()).await.is_err());
    let stranger = other.certs("sluice-controller").client_config();
    assert!(ask(optional, stranger.clone()).await.is_err());
    assert!(ask(required, stranger).await.is_err());
}

#[tokio::test]
async fn a_connection_that_never_shakes_hands_holds_up_nobody() {
    let ca = Ca::new();
    let (_publish, certs) = watch::channel(Some(ca.certs("sluice-serving")));
    let address = serve(certs, ClientAuth::None).await;
    let _idle = TcpStream::connect(address).await.unwrap();
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(ask(address, ca.anonymous()).await.is_ok());
}

#[tokio::test]
async fn connecting_checks_the_name_that_was_asked_for() {
    let ca = Ca::new();
    let (_publish, certs) = watch::channel(Some(ca.certs("sluice-serving")));
    let address = serve(certs, ClientAuth::Required).await;
    let config = ca.certs("sluice-controller").client_config();
    assert!(
        connect(
            address,
            "sluice-controller.sluice-system.svc",
            config.clone()
        )
        .await
        .is_err()
    );
    assert!(connect(address, "not a name", config).await.is_err());
}

#[test]
fn a_secret_that_is_no_certificate_is_refused_with_what_to_do() {
    let empty = Certs::from_secret(&Secret::default()).err().unwrap();
    assert!(empty.to_string().contains("delete it"), "{empty}");
    assert!(Certs::from_pem(b"x", b"y", b"z").is_err());
    let ca = Ca::new();
    let names = Names {
        dns: vec![SERVER.into()],
        spiffe_id: "spiffe://a/b".into(),
    };
    let now = Timestamp::now().as_second();
    let one = ca.authority.issue(&names, now, 3600).unwrap();
    let two = ca.authority.issue(&names, now, 3600).unwrap();
    let mixed = Certs::from_pem(
        one.cert_pem.as_bytes(),
        two.key.expose_pem().as_bytes(),
        ca.root_pem.as_bytes(),
    );
    assert!(
        matches!(mixed, Err(CertsError::Tls(_))),
        "the key of another leaf"
    );
}
