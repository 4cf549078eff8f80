//! Keys and certificates of a cluster: one authority, and a certificate for each who speaks or serves.

use std::{fs, os::unix::fs::OpenOptionsExt};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::state::{Cluster, Kind};

/// Who gets a client certificate: file name, common name (the user), organisation (the group).
const CLIENTS: [(&str, &str, &str); 6] = [
    ("admin", "sluice-admin", "system:masters"),
    (
        "apiserver-kubelet-client",
        "kube-apiserver",
        "system:masters",
    ),
    ("front-proxy", "front-proxy", ""),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// Makes all keys and certificates in the folder `pki`, unless they are there.
pub(super) fn ensure(cluster: &Cluster) -> Result<()> {
    if cluster.file("pki/sa.key").exists() {
        return Ok(());
    }
    fs::create_dir_all(cluster.file("pki"))?;
    let authority = authority(cluster)?;
    for (file, user, group) in CLIENTS {
        authority.client(cluster, file, user, group)?;
    }
    let address = cluster.address.to_string();
    let apiserver = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        &address,
    ];
    authority.server(cluster, "apiserver", &apiserver)?;
    if cluster.kind == Kind::Node {
        let user = format!("system:node:{}", cluster.name);
        authority.client(cluster, "kubelet", &user, "system:nodes")?;
        authority.server(cluster, "kubelet-server", &[&cluster.name, &address])?;
    }
    let accounts = KeyPair::generate()?;
    write(cluster, "sa.pub", &accounts.public_key_pem())?;
    write(cluster, "sa.key", &accounts.serialize_pem())
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

fn authority(cluster: &Cluster) -> Result<Authority> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "sluice-test-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write(cluster, "ca.crt", &params.self_signed(&key)?.pem())?;
    write(cluster, "ca.key", &key.serialize_pem())?;
    Ok(Authority {
        issuer: Issuer::new(params, key),
    })
}

impl Authority {
    fn client(&self, cluster: &Cluster, file: &str, user: &str, group: &str) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(cluster, file, params)
    }

    fn server(&self, cluster: &Cluster, file: &str, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(cluster, file, params)
    }

    fn sign(&self, cluster: &Cluster, file: &str, mut params: CertificateParams) -> Result<()> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(cluster, &format!("{file}.crt"), &certificate.pem())?;
        write(cluster, &format!("{file}.key"), &key.serialize_pem())
    }
}

fn write(cluster: &Cluster, file: &str, text: &str) -> Result<()> {
    let path = cluster.file(&format!("pki/{file}"));
    let mut options = fs::OpenOptions::new();
    let mut opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    std::io::Write::write_all(&mut opened, text.as_bytes())?;
    Ok(())
}
