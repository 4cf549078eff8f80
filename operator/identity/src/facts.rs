//! What a certificate says, as far as renewal and TLS ask.

use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::FromDer,
};

use crate::{IdentityError, Seconds};

/// What a certificate says. Nothing here is proved: the signature is checked by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The first URI name that is a SPIFFE id.
    pub spiffe_id: Option<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Start of its life.
    pub not_before: Seconds,
    /// End of its life.
    pub not_after: Seconds,
    /// Serial number, hex.
    pub serial: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// Identifier of its own key, if it names one.
    pub subject_key_id: Option<Vec<u8>>,
    /// Identifier of the key that signed it, if it names one.
    pub authority_key_id: Option<Vec<u8>>,
    /// The public key, as in the certificate's SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// It is none.
pub fn inspect_pem(pem: &str) -> Result<Facts, IdentityError> {
    let (_, pem) =
        parse_x509_pem(pem.as_bytes()).map_err(|error| IdentityError::Read(error.to_string()))?;
    inspect_der(&pem.contents)
}

/// Reads a certificate.
///
/// # Errors
/// It is none.
pub fn inspect_der(der: &[u8]) -> Result<Facts, IdentityError> {
    let (_, cert) =
        X509Certificate::from_der(der).map_err(|error| IdentityError::Read(error.to_string()))?;
    let mut facts = Facts {
        spiffe_id: None,
        dns: Vec::new(),
        not_before: cert.validity().not_before.timestamp(),
        not_after: cert.validity().not_after.timestamp(),
        serial: cert.raw_serial_as_string(),
        is_ca: cert.is_ca(),
        subject_key_id: None,
        authority_key_id: None,
        public_key: cert.public_key().subject_public_key.data.to_vec(),
    };
    for extension in cert.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::DNSName(name) => facts.dns.push((*name).to_owned()),
                        GeneralName::URI(uri) if uri.starts_with("spiffe://") => {
                            facts.spiffe_id.get_or_insert_with(|| (*uri).to_owned());
                        }
                        _ => {}
                    }
                }
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                facts.subject_key_id = Some(id.0.to_vec());
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    Ok(facts)
}
