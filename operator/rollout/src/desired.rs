//! What the shim has to bring about.

use crate::Millis;

/// The objects that a state asks for. The shim compares them with what is there, writes the
/// differences in the order of the fields, and looks again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The TrafficSplit; none while there is no stable revision or no Service.
    pub split: Option<DesiredSplit>,
    /// What is to be done with `spec.paused` of the Deployment.
    pub hold: Hold,
    /// Our ReplicaSet; none: none of ours may remain (an adopted one is not ours any more).
    pub candidate: Option<DesiredCandidate>,
    /// Whether autoscalers of the Deployment may take pods away.
    pub scale_down: ScaleDown,
}

/// `behavior.scaleDown` of the Deployment's HorizontalPodAutoscalers. They go by the load of
/// stable pods, which falls as the candidate takes its share, and would take away what a rollback
/// needs at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScaleDown {
    /// As it is.
    #[default]
    Leave,
    /// Must be disabled.
    Hold,
    /// Nothing is tried any more. To be given back as soon as the autoscaler has forgotten what
    /// it saw of the rollout.
    Free {
        /// When the last rollout ended.
        since: Millis,
    },
}

/// The TrafficSplit's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredSplit {
    /// The state's fence.
    pub fence: i64,
    /// The candidate's revision; empty when there is none.
    pub revision: String,
    /// Pod label that tells the arms apart.
    pub pod_label: String,
    /// Values of the stable arm.
    pub stable: Vec<String>,
    /// Values of the candidate arm; none: the split has one arm.
    pub candidate: Option<Vec<String>>,
    /// Pods of the candidate arm that get no requests, by name.
    pub excluded: Vec<String>,
    /// The candidate's weight; stable has the rest.
    pub weight: i32,
    /// Whether the weight ends when a proxy loses contact.
    pub leased: bool,
    /// When a request counts as hung, ms.
    pub hung_after_ms: i64,
}

/// `spec.paused` of the Deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hold {
    /// As it is.
    #[default]
    Leave,
    /// Must be true.
    Hold,
    /// Must be false.
    Release,
}

/// Our ReplicaSet of the Deployment's current template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredCandidate {
    /// The revision it must have; with another template in the Deployment nothing is made.
    pub revision: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// Whether the gates of its pods are to be opened, and new pods are made without one.
    pub gates_open: bool,
    /// Whether it is to be given to the Deployment: empty twins deleted, then our owner
    /// reference removed.
    pub adopt: bool,
}
