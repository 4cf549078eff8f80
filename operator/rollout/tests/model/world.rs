//! The finite world: what the apiserver holds, what the proxies route by, two leaders and what is
//! left of their effects. Everything is small and comparable; numbers that grow without end are
//! kept by rank (fences) or as "written since it was read" (resourceVersions).

/// Index into [`REVISIONS`].
pub type Revision = u8;

/// Names of the revisions; the first one serves in the beginning.
pub const REVISIONS: [&str; 3] = ["aaaaaaaa", "bbbbbbbb", "cccccccc"];

/// `spec.replicas` of the Deployment.
pub const REPLICAS: u8 = 2;

/// A stored state of the machine: its number in `Machine`, and what is not in that: the fence, and
/// the Deployment's life and generation that it was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateRef {
    pub core: u32,
    pub fence: u8,
    pub seen: u8,
    pub uid: u8,
}

/// A MeshRollout; `life` stands for its uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rollout {
    pub life: u8,
    pub state: Option<StateRef>,
    pub retry: bool,
    pub command: Option<(Command, Revision)>,
}

/// What a person may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    Pause,
    Resume,
    Abort,
    Promote,
    Skip,
    Retry,
}

/// What a TrafficSplit says. `life` is that of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Split {
    pub life: u8,
    pub fence: u8,
    pub weight: u8,
    pub revision: Option<Revision>,
    pub leased: bool,
}

/// The Deployment; `complete` as `kubectl rollout status` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deployment {
    pub template: Revision,
    pub paused: bool,
    pub complete: bool,
    /// By rank, as fences.
    pub generation: u8,
    /// How often it was made anew.
    pub uid: u8,
}

/// Who controls a ReplicaSet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Rollout(u8),
    Nobody,
    Deployment,
}

/// A ReplicaSet that we made. `open`: the gates of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    pub owner: Owner,
    pub replicas: u8,
    pub ready: u8,
    pub open: bool,
    /// One of its pods fails alone.
    pub broken: bool,
}

/// What the apiserver holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cluster {
    pub rollout: Option<Rollout>,
    pub split: Option<Split>,
    pub deployment: Deployment,
    /// Ours, by revision: the name tells the revision, so there is one of each at most.
    pub sets: [Option<Set>; 3],
    /// Pods of the Deployment's own other ReplicaSets, by revision.
    pub native: [u8; 3],
    /// Which life of the Deployment those, and the ReplicaSets that it has adopted, are of.
    pub native_uid: u8,
    /// The Deployment's own pods are not ready just now.
    pub native_down: bool,
}

/// A set of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Objects(pub u16);

impl Objects {
    pub const ROLLOUT: Self = Self(1);
    pub const SPLIT: Self = Self(2);
    pub const DEPLOYMENT: Self = Self(4);
    pub const ALL: Self = Self(u16::MAX);
    /// All ReplicaSets and pods.
    pub const SETS: Self = Self(0b1111_1100_0000);

    pub fn set(revision: Revision) -> Self {
        Self(1 << (6 + revision))
    }

    pub fn pods(revision: Revision) -> Self {
        Self(1 << (9 + revision))
    }

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn plus(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// One write of the shim, in the order of `operator/src/controller/act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Status(StateRef),
    /// The status as it was read, where a look has nothing to write into it.
    Confirm,
    CreateSplit(Split),
    ReplaceSplit(Split),
    DeleteSplit,
    Pause(bool),
    DeleteSet(Revision),
    Gates(Revision, bool),
    Scale(Revision, u8),
    /// The ReplicaSet loses its owner reference, so that the Deployment takes it.
    Release(Revision),
    /// Reads the Deployment once more before a ReplicaSet is made of its template.
    CheckTemplate(Revision),
    CreateSet(Revision, Set),
}

impl Effect {
    /// The object whose resourceVersion goes with the write.
    pub fn object(self) -> Objects {
        match self {
            Self::Status(_) | Self::Confirm => Objects::ROLLOUT,
            Self::CreateSplit(_) | Self::ReplaceSplit(_) | Self::DeleteSplit => Objects::SPLIT,
            Self::Pause(_) => Objects::DEPLOYMENT,
            Self::CheckTemplate(_) => Objects::default(),
            Self::Gates(revision, _) => Objects::pods(revision),
            Self::DeleteSet(revision)
            | Self::Scale(revision, _)
            | Self::Release(revision)
            | Self::CreateSet(revision, _) => Objects::set(revision),
        }
    }
}

/// What is left of a leader's effects, and which objects were written since it looked.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plan {
    pub effects: Vec<Effect>,
    pub written: Objects,
}

/// Watches that stand still: what they show, and what was written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frozen {
    pub kinds: Objects,
    pub view: Cluster,
    pub written: Objects,
    /// It has written to such an object itself, and looks at nothing before it sees that.
    pub waits: bool,
}

/// A process that believes that it leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leader {
    pub plan: Plan,
    pub frozen: Option<Frozen>,
}

/// What may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// Commits.
    pub edits: u8,
    /// Pods that fall away, commits that the webhook missed.
    pub faults: u8,
    /// Watches that stop, of those that may.
    pub freezes: u8,
    pub stops: Objects,
    /// Deletions of the MeshRollout.
    pub lives: u8,
    /// Deployments that are deleted and made anew.
    pub renewals: u8,
    /// Pods that begin to fail alone.
    pub breaks: u8,
    /// New strings in `spec.retry`.
    pub retries: u8,
    /// Commands.
    pub commands: u8,
    /// Looks of one leader while the other has writes left; [`Budget::ANY`]: as many as you like.
    pub overlaps: u8,
    /// Evidence may also tell of breaches at high weight, and of outages of both arms.
    pub outages: bool,
}

impl Budget {
    pub const ANY: u8 = u8::MAX;
}

/// What is remembered only to judge what follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ghost {
    /// Revision that a verdict is against, and the fence of that verdict; until git brings
    /// another one, or somebody says retry.
    pub condemned: Option<(Revision, u8)>,
    /// The last revision whose ReplicaSet was given away: it had passed every step, though git may
    /// have gone elsewhere and come back before that write landed.
    pub given: Option<Revision>,
    /// The template came without being held: its native pods are nobody's fault here.
    pub unheld: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub cluster: Cluster,
    /// What the proxies route by.
    pub applied: Option<Split>,
    pub leaders: [Leader; 2],
    pub budget: Budget,
    pub ghost: Ghost,
}

impl World {
    /// An object was written: whoever read it before has an old resourceVersion.
    pub fn touch(&mut self, objects: Objects) {
        for leader in &mut self.leaders {
            leader.plan.written = leader.plan.written.plus(objects);
            if let Some(frozen) = &mut leader.frozen {
                frozen.written = frozen.written.plus(objects);
            }
        }
    }

    /// What a leader sees, and which of that is not so any more.
    pub fn view(&self, leader: usize) -> (Cluster, Objects) {
        let mut view = self.cluster;
        let Some(frozen) = &self.leaders[leader].frozen else {
            return (view, Objects::default());
        };
        if frozen.kinds.meets(Objects::ROLLOUT) {
            view.rollout = frozen.view.rollout;
        }
        if frozen.kinds.meets(Objects::SPLIT) {
            view.split = frozen.view.split;
        }
        if frozen.kinds.meets(Objects::DEPLOYMENT) {
            view.deployment = frozen.view.deployment;
        }
        if frozen.kinds.meets(Objects::SETS) {
            view.sets = frozen.view.sets;
            view.native = frozen.view.native;
            view.native_uid = frozen.view.native_uid;
            view.native_down = frozen.view.native_down;
        }
        (view, frozen.written.within(frozen.kinds))
    }

    /// The same world under the names that all equal worlds share.
    pub fn normalise(&mut self) {
        rank(|visit| self.each_fence(visit));
        rank(|visit| self.each_generation(visit));
        for leader in &mut self.leaders {
            let plan = &mut leader.plan;
            let named = plan.effects.iter().map(|effect| effect.object());
            plan.written = plan
                .written
                .within(named.fold(Objects::default(), Objects::plus));
            if let Some(frozen) = &mut leader.frozen {
                frozen.written = frozen.written.within(frozen.kinds);
            }
        }
        self.leaders.sort();
    }

    /// The highest fence that anybody knows.
    pub fn top_fence(&mut self) -> u8 {
        let mut top = 0;
        self.each_fence(&mut |fence| top = top.max(*fence));
        top
    }

    fn each_fence(&mut self, visit: &mut dyn FnMut(&mut u8)) {
        fn of_cluster(cluster: &mut Cluster, visit: &mut dyn FnMut(&mut u8)) {
            let state = cluster.rollout.as_mut().and_then(|r| r.state.as_mut());
            if let Some(state) = state {
                visit(&mut state.fence);
            }
            if let Some(split) = &mut cluster.split {
                visit(&mut split.fence);
            }
        }
        of_cluster(&mut self.cluster, visit);
        if let Some(split) = &mut self.applied {
            visit(&mut split.fence);
        }
        if let Some((_, fence)) = &mut self.ghost.condemned {
            visit(fence);
        }
        for leader in &mut self.leaders {
            if let Some(frozen) = &mut leader.frozen {
                of_cluster(&mut frozen.view, visit);
            }
            for effect in &mut leader.plan.effects {
                match effect {
                    Effect::Status(state) => visit(&mut state.fence),
                    Effect::CreateSplit(split) | Effect::ReplaceSplit(split) => {
                        visit(&mut split.fence);
                    }
                    _ => {}
                }
            }
        }
    }

    fn each_generation(&mut self, visit: &mut dyn FnMut(&mut u8)) {
        fn of_cluster(cluster: &mut Cluster, visit: &mut dyn FnMut(&mut u8)) {
            visit(&mut cluster.deployment.generation);
            let state = cluster.rollout.as_mut().and_then(|r| r.state.as_mut());
            if let Some(state) = state {
                visit(&mut state.seen);
            }
        }
        of_cluster(&mut self.cluster, visit);
        for leader in &mut self.leaders {
            if let Some(frozen) = &mut leader.frozen {
                of_cluster(&mut frozen.view, visit);
            }
            for effect in &mut leader.plan.effects {
                if let Effect::Status(state) = effect {
                    visit(&mut state.seen);
                }
            }
        }
    }

    /// Every state of the machine that is named in this world.
    pub fn each_core(&mut self, visit: &mut impl FnMut(&mut u32)) {
        let mut of_rollout = |rollout: &mut Option<Rollout>| {
            let state = rollout.as_mut().and_then(|r| r.state.as_mut());
            if let Some(state) = state {
                visit(&mut state.core);
            }
        };
        of_rollout(&mut self.cluster.rollout);
        for leader in &mut self.leaders {
            if let Some(frozen) = &mut leader.frozen {
                of_rollout(&mut frozen.view.rollout);
            }
        }
        for effect in self.leaders.iter_mut().flat_map(|l| &mut l.plan.effects) {
            if let Effect::Status(state) = effect {
                visit(&mut state.core);
            }
        }
    }
}

/// Gives numbers of which only the order counts the smallest values of the same order.
fn rank(mut each: impl FnMut(&mut dyn FnMut(&mut u8))) {
    let mut known = 0_u64;
    each(&mut |number| known |= 1 << *number);
    let below = |number: u8| (known & ((1_u64 << number) - 1)).count_ones();
    each(&mut |number| *number = u8::try_from(below(*number)).unwrap_or(u8::MAX));
}
