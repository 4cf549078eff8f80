//! Which namespaces see a Service, told as in Istio: `meshConfig.defaultServiceExportTo`, and the
//! Service's annotation over it.
//! <https://istio.io/latest/docs/reference/config/annotations/#NetworkingExportTo>

use std::collections::BTreeSet;

use sluice_crds::names::EXPORT_TO;

/// Who may see a Service. Many Services share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// Every namespace.
    Everybody,
    /// These namespaces, sorted; nobody where there are none.
    Namespaces(Box<[String]>),
}

impl Audience {
    /// Whether a namespace sees the Service.
    pub(crate) fn admits(&self, namespace: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Namespaces(names) => names
                .binary_search_by(|name| name.as_str().cmp(namespace))
                .is_ok(),
        }
    }
}

/// What an `exportTo` says; of whose Service is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportTo {
    everybody: bool,
    /// The Service's own namespace.
    own: bool,
    namespaces: BTreeSet<String>,
}

/// An `exportTo` that says nothing clear. It is read as `.`: the Service's own namespace sees it
/// and no other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongExportTo {
    /// An entry is neither a sign nor a namespace.
    #[error(
        "{EXPORT_TO} has the entry `{0}`, which is no name of a namespace, so that only the Service's own namespace sees it: \
         write names of namespaces, '.' (its own), '*' (all) or '~' (none), with commas between them"
    )]
    Entry(String),
    /// Nobody, and somebody.
    #[error(
        "{EXPORT_TO} has '~' (no namespace) beside other entries, so that only the Service's own namespace sees it: \
         write '~' alone, or leave it out"
    )]
    NobodyAndSomebody,
}

/// Most bytes of an entry that a sentence repeats.
const MAX_REPEATED: usize = 64;

impl Default for ExportTo {
    /// `*`, as in Istio.
    fn default() -> Self {
        Self {
            everybody: true,
            ..Self::nobody()
        }
    }
}

impl ExportTo {
    /// What a Service's annotation says; none where it is absent or empty and so the mesh's
    /// default holds.
    ///
    /// # Errors
    /// See [`WrongExportTo`].
    pub fn of_annotation(text: Option<&str>) -> Option<Result<Self, WrongExportTo>> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        Some(Self::read(text.split(',').map(str::trim)))
    }

    /// What these entries say together. `*` beside others is everybody.
    ///
    /// # Errors
    /// See [`WrongExportTo`].
    pub fn read<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, WrongExportTo> {
        let (mut told, mut nobody) = (Self::nobody(), false);
        for entry in entries {
            match entry {
                "*" => told.everybody = true,
                "." => told.own = true,
                "~" => nobody = true,
                name if is_namespace(name) => {
                    told.namespaces.insert(name.to_owned());
                }
                wrong => {
                    let end = wrong.floor_char_boundary(MAX_REPEATED);
                    return Err(WrongExportTo::Entry(wrong[..end].to_owned()));
                }
            }
        }
        if nobody && told != Self::nobody() {
            return Err(WrongExportTo::NobodyAndSomebody);
        }
        Ok(told)
    }

    /// `.`: what is gone by where something wrong is said.
    pub(crate) fn own() -> Self {
        Self {
            own: true,
            ..Self::nobody()
        }
    }

    /// Who may see a Service of this namespace.
    pub(crate) fn audience(&self, namespace: &str) -> Audience {
        if self.everybody {
            return Audience::Everybody;
        }
        let own = self.own.then_some(namespace);
        let names = self.namespaces.iter().map(String::as_str).chain(own);
        // A namespace may be named beside `.` for itself.
        let sorted: BTreeSet<&str> = names.collect();
        Audience::Namespaces(sorted.into_iter().map(str::to_owned).collect())
    }

    fn nobody() -> Self {
        Self {
            everybody: false,
            own: false,
            namespaces: BTreeSet::new(),
        }
    }
}

/// A name that a namespace may have (RFC 1123).
fn is_namespace(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-')
}
