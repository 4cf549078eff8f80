//! How a NACK names the resources it refuses: one `ResourceError` for each in the details of
//! the status. Clients that do not do so (Envoy) refuse the whole response.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::service::discovery::v3::{ResourceError, ResourceName},
    google::rpc::Status,
};

use crate::{pack, unpack};

/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;
/// Most characters of a reason that are kept or sent.
const MAX_REASON: usize = 256;
/// Most reasons that are spelled out in the message for people.
const MAX_SPELLED: usize = 3;

/// One refused resource of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its name.
    pub name: String,
    /// Why, for people.
    pub reason: String,
}

impl Refusal {
    /// Refuses the resource of this name.
    #[must_use]
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reason: reason.into(),
        }
    }
}

/// The `error_detail` of a NACK.
pub(crate) fn to_status(refusals: &[Refusal]) -> Status {
    let spelled: Vec<String> = refusals
        .iter()
        .take(MAX_SPELLED)
        .map(|refusal| format!("{}: {}", refusal.name, clip(&refusal.reason)))
        .collect();
    Status {
        code: INVALID_ARGUMENT,
        message: spelled.join("; "),
        details: refusals.iter().map(|r| pack(&to_error(r))).collect(),
    }
}

/// The `error_detail` of a NACK, read.
pub(crate) struct Nack {
    named: HashMap<String, String>,
    whole: String,
}

impl Nack {
    pub(crate) fn of(status: &Status) -> Self {
        let errors = status.details.iter();
        let errors = errors.filter_map(|detail| unpack::<ResourceError>(detail).ok());
        let named = errors.filter_map(|error| {
            let reason = clip(&error.error_detail?.message);
            Some((error.resource_name?.name, reason))
        });
        Self {
            named: named.collect(),
            whole: clip(&status.message),
        }
    }

    /// Why this resource is refused; none: it is taken. A NACK that names nothing refuses all.
    pub(crate) fn reason(&self, name: &str) -> Option<&str> {
        if self.named.is_empty() {
            return Some(&self.whole);
        }
        self.named.get(name).map(String::as_str)
    }
}

/// A reason short enough to be kept.
fn clip(reason: &str) -> String {
    reason.chars().take(MAX_REASON).collect()
}

fn to_error(refusal: &Refusal) -> ResourceError {
    ResourceError {
        resource_name: Some(ResourceName {
            name: refusal.name.clone(),
            dynamic_parameter_constraints: None,
        }),
        error_detail: Some(Status {
            code: INVALID_ARGUMENT,
            message: clip(&refusal.reason),
            details: Vec::new(),
        }),
    }
}
