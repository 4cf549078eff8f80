//! Certificates of the mesh: the root, what it signs, and when each is to be renewed.
//!
//! ```text
//!  create_root ─▶ Issued ─▶ Authority ── issue(Names) ─▶ Issued (leaf)
//!  PEM ─ inspect ─▶ Facts ─▶ plan_root / plan_leaf (now) ─▶ Plan: keep until, or renew why
//! ```
//!
//! **Invariants**
//! - Pure but for one thing: new keys are drawn from the operating system's randomness, inside
//!   rcgen (`KeyPair::generate`). There is no clock: times come in as seconds since 1970.
//! - A private key is a [`PrivateKey`]: it has no `Debug` and no `Display`, so that no log line
//!   can hold one by accident.
//! - A leaf's names come from the caller's [`Names`], never from anything a peer sent.

mod authority;
mod facts;
mod plan;

pub use authority::{
    Authority, Issued, LEAF_LIFETIME, Names, PrivateKey, ROOT_LIFETIME, create_root, spiffe_id,
};
pub use facts::{Facts, inspect_der, inspect_pem};
pub use plan::{Plan, plan_leaf, plan_root};

/// Seconds since 1970, from the caller's clock.
pub type Seconds = i64;

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// rcgen refused.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// It cannot be read.
    #[error("not an X.509 certificate: {0}")]
    Read(String),
    /// A leaf stands where a root should.
    #[error(
        "the certificate may not sign others: put a root (CA:TRUE) there, or delete the Secret to start a new root"
    )]
    NotAnAuthority,
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate: restore both from one backup, or delete the Secret to start a new root"
    )]
    KeyMismatch,
    /// The time cannot stand in a certificate.
    #[error("{0} seconds since 1970 cannot stand in a certificate: check the clock")]
    Time(Seconds),
}
