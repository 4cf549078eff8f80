//! One request to the apiserver, as its path tells it.

use http::{Method, Uri};

/// What is asked of the apiserver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// One object.
    Get,
    /// All of them.
    List,
    /// What happens to them.
    Watch,
    /// A new object.
    Create,
    /// The whole object.
    Update,
    /// A part of it.
    Patch,
    /// It is to go.
    Delete,
}

/// One request, parsed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// What is asked.
    pub verb: Verb,
    /// API group; empty for the core.
    pub group: String,
    /// Plural name of the kind; the path itself where it is none of the API's.
    pub resource: String,
    /// Namespace; empty for the whole cluster.
    pub namespace: String,
    /// Name; empty for lists, watches and creations.
    pub name: String,
    /// As `status`; empty for the object itself.
    pub subresource: String,
    /// Nothing is kept of it.
    pub dry_run: bool,
}

impl Call {
    /// Reads a request line.
    #[must_use]
    pub fn parse(method: &Method, uri: &Uri) -> Self {
        let mut parts: Vec<&str> = uri
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let query = uri.query().unwrap_or_default();
        let asks = |wanted: &str| query.split('&').any(|pair| pair.starts_with(wanted));
        let group = match parts.first() {
            Some(&"apis") if parts.len() > 3 => parts.drain(..3).nth(1).unwrap_or_default(),
            Some(&"api") if parts.len() > 2 => {
                parts.drain(..2);
                ""
            }
            _ => {
                return Self {
                    verb: Verb::Get,
                    group: String::new(),
                    resource: uri.path().to_owned(),
                    namespace: String::new(),
                    name: String::new(),
                    subresource: String::new(),
                    dry_run: false,
                };
            }
        };
        let mut namespace = "";
        if parts[0] == "namespaces" && parts.len() > 2 {
            namespace = parts[1];
            parts.drain(..2);
        }
        let part = |index: usize| (*parts.get(index).unwrap_or(&"")).to_owned();
        let name = part(1);
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if asks("watch=true") || asks("watch=1") => Verb::Watch,
            _ if name.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        Self {
            verb,
            group: group.to_owned(),
            resource: part(0),
            namespace: namespace.to_owned(),
            name,
            subresource: part(2),
            dry_run: asks("dryRun="),
        }
    }

    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !self.dry_run && !matches!(self.verb, Verb::Get | Verb::List | Verb::Watch)
    }

    /// Whether it is about the objects of a rollout: not a Lease, an event or a question.
    #[must_use]
    pub fn is_of_a_rollout(&self) -> bool {
        !matches!(
            self.resource.as_str(),
            "leases" | "events" | "tokenreviews" | "subjectaccessreviews"
        )
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.verb, self.resource)?;
        for part in [&self.namespace, &self.name, &self.subresource] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, path: &'static str) -> Call {
        Call::parse(&method, &Uri::from_static(path))
    }

    #[test]
    fn verb_kind_name_and_subresource_are_read_from_the_path() {
        let status = call(
            Method::PUT,
            "/apis/sluice.dev/v1alpha1/namespaces/shop/meshrollouts/web/status?fieldManager=x",
        );
        assert_eq!(status.to_string(), "Update meshrollouts/shop/web/status");
        assert_eq!(status.group, "sluice.dev");
        assert!(status.is_write());
        let pods = call(Method::GET, "/api/v1/pods?limit=500");
        assert_eq!((pods.verb.clone(), pods.is_write()), (Verb::List, false));
        let watch = call(
            Method::GET,
            "/api/v1/pods?watch=true&allowWatchBookmarks=true",
        );
        assert_eq!(watch.verb, Verb::Watch);
        let cluster = call(Method::GET, "/api/v1/namespaces/shop");
        assert_eq!(
            (cluster.resource.as_str(), cluster.name.as_str()),
            ("namespaces", "shop")
        );
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let probe = call(Method::POST, "/api/v1/namespaces/shop/pods?&dryRun=All");
        assert!(!probe.is_write());
        assert!(call(Method::POST, "/api/v1/namespaces/shop/pods").is_write());
    }

    #[test]
    fn what_is_no_object_is_told_by_its_path() {
        assert_eq!(call(Method::GET, "/version").resource, "/version");
    }
}
