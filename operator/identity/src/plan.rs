//! When a certificate is to be made anew.

use crate::{Facts, Names, Seconds};

/// What is to be done with one certificate now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing; look again at this time.
    Keep {
        /// Seconds since 1970.
        until: Seconds,
    },
    /// Make a new one.
    Renew {
        /// One clause for the log.
        why: &'static str,
    },
}

/// The root is kept until it ends. (Its renewal in time, under an overlapping bundle, needs the
/// acknowledgement of every proxy and is a machine of its own.)
#[must_use]
pub fn plan_root(now: Seconds, root: Option<&Facts>) -> Plan {
    let Some(root) = root else {
        return Plan::Renew {
            why: "there is none",
        };
    };
    if now >= root.not_after {
        return Plan::Renew {
            why: "it has expired",
        };
    }
    Plan::Keep {
        until: root.not_after,
    }
}

/// A leaf is renewed at the half of its life, and at once when it is another root's, or names
/// somebody else than it should.
#[must_use]
pub fn plan_leaf(now: Seconds, leaf: Option<&Facts>, root: &Facts, names: &Names) -> Plan {
    let Some(leaf) = leaf else {
        return Plan::Renew {
            why: "there is none",
        };
    };
    if leaf.authority_key_id.is_none() || leaf.authority_key_id != root.subject_key_id {
        return Plan::Renew {
            why: "another root signed it",
        };
    }
    if leaf.dns != names.dns || leaf.spiffe_id.as_ref() != Some(&names.spiffe_id) {
        return Plan::Renew {
            why: "its names have changed",
        };
    }
    let half = leaf.not_before + (leaf.not_after - leaf.not_before) / 2;
    if now >= half {
        return Plan::Renew {
            why: "half of its life is over",
        };
    }
    if now < leaf.not_before {
        return Plan::Renew {
            why: "its life lies in the future",
        };
    }
    Plan::Keep { until: half }
}
