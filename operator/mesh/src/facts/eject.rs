//! A candidate off traffic by the leader's word alone.

/// A revision that gets no traffic in any version of a split up to a fence. The leader tells of
/// it while it cannot write the split; see [`World::eject`](crate::World::eject).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// The condemned revision.
    pub revision: String,
    /// The highest fence that it overrides.
    pub fence: i64,
    /// When it was told, in milliseconds since 1970.
    pub since_ms: i64,
    /// The verdict's sentence.
    pub why: String,
}
