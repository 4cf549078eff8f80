//! What the mesh says about its sidecars.

/// What the mesh says about its sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of both containers.
    pub image: String,
    /// Namespace of the control plane.
    pub system_namespace: String,
    /// Requests and limits of the sidecar.
    pub resources: Resources,
}

/// Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// CPU asked for.
    pub cpu_request: String,
    /// Memory asked for.
    pub memory_request: String,
    /// Memory limit, if any.
    pub memory_limit: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: "10m".into(),
            memory_request: "32Mi".into(),
            memory_limit: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: "sluice/proxy:latest".into(),
            system_namespace: "sluice-system".into(),
            resources: Resources::default(),
        }
    }
}
