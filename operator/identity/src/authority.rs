//! The root and what it signs. ECDSA P-256 throughout.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::{Facts, IdentityError, Seconds, inspect_pem};

/// How long a root lives, in seconds: 10 years.
pub const ROOT_LIFETIME: Seconds = 10 * 365 * 86_400;
/// How long a leaf lives unless the caller says otherwise, in seconds: 24 hours.
pub const LEAF_LIFETIME: Seconds = 86_400;
/// How far a certificate's life reaches back, in seconds, for clocks that differ.
const BACKDATE: Seconds = 300;
/// 9999-12-31: beyond it X.509 has no dates (RFC 5280, 4.1.2.5).
const LAST: Seconds = 253_402_300_799;

/// A private key, PKCS #8 in PEM. It has no `Debug` on purpose.
pub struct PrivateKey(String);

impl PrivateKey {
    /// Wraps a PEM text.
    #[must_use]
    pub fn from_pem(pem: String) -> Self {
        Self(pem)
    }

    /// The PEM text, for the Secret alone.
    #[must_use]
    pub fn expose_pem(&self) -> &str {
        &self.0
    }
}

/// A new certificate with its key. It has no `Debug`, for the key.
pub struct Issued {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// Its key.
    pub key: PrivateKey,
}

/// Who a leaf speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// The SPIFFE id.
    pub spiffe_id: String,
}

/// A root with its key, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    facts: Facts,
}

/// The SPIFFE id of a service account (Istio's form).
#[must_use]
pub fn spiffe_id(trust_domain: &str, namespace: &str, account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
}

/// Makes a self-signed root that lives for [`ROOT_LIFETIME`].
///
/// # Errors
/// The clock is absurd, or there is no randomness.
pub fn create_root(trust_domain: &str, now: Seconds) -> Result<Issued, IdentityError> {
    let mut params = params(now, ROOT_LIFETIME)?;
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain);
    params
        .distinguished_name
        .push(DnType::CommonName, "Sluice root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok(Issued {
        cert_pem: cert.pem(),
        key: PrivateKey(key.serialize_pem()),
    })
}

impl Authority {
    /// A root from its PEM texts.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together.
    pub fn load(cert_pem: &str, key: &PrivateKey) -> Result<Self, IdentityError> {
        let facts = inspect_pem(cert_pem)?;
        if !facts.is_ca {
            return Err(IdentityError::NotAnAuthority);
        }
        let key = KeyPair::from_pem(&key.0)?;
        if key.public_key_raw() != facts.public_key {
            return Err(IdentityError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key)?;
        Ok(Self { issuer, facts })
    }

    /// The root itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Signs a leaf with a new key, for servers and clients, that lives for `lifetime` seconds
    /// but never longer than the root.
    ///
    /// # Errors
    /// A name cannot stand in a certificate, the clock is absurd, or there is no randomness.
    pub fn issue(
        &self,
        names: &Names,
        now: Seconds,
        lifetime: Seconds,
    ) -> Result<Issued, IdentityError> {
        let lifetime = lifetime.min(self.facts.not_after.saturating_sub(now));
        let mut params = params(now, lifetime)?;
        for name in &names.dns {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into()?));
        }
        params
            .subject_alt_names
            .push(SanType::URI(names.spiffe_id.as_str().try_into()?));
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key: PrivateKey(key.serialize_pem()),
        })
    }
}

fn params(now: Seconds, lifetime: Seconds) -> Result<CertificateParams, IdentityError> {
    let until = now.saturating_add(lifetime);
    let from = u64::try_from(now - BACKDATE.min(now)).map_err(|_| IdentityError::Time(now))?;
    if until <= now || until > LAST {
        return Err(IdentityError::Time(until));
    }
    let until = u64::try_from(until).map_err(|_| IdentityError::Time(until))?;
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}
