//! A small model of a Deployment, its ReplicaSets, the hold webhook and the mesh: enough for
//! whole rollouts in virtual time. It follows what was seen on a real node: a held Deployment
//! leaves our ReplicaSet alone, adopts it when its owner reference goes, and scales the old one
//! to zero then.
#![allow(clippy::unwrap_used, dead_code)]

use sluice_crds::{MeshRolloutSpec, WorkloadRef};
use sluice_rollout::decide::{Decision, decide};
use sluice_rollout::desired::{Desired, Hold};
use sluice_rollout::invariants;
use sluice_rollout::observation::{
    CandidatePod, CandidateView, Contest, Counts, DeploymentView, EvidenceView, Observation, Owner,
    RunningRevision, SplitView, Workload,
};
use sluice_rollout::policy::Policy;
use sluice_rollout::project::project;
use sluice_rollout::revision::candidate_pod_hash;
use sluice_rollout::state::{Phase, State};

/// A ReplicaSet of ours.
#[derive(Clone, Debug)]
pub struct Ours {
    pub revision: String,
    pub replicas: i32,
    pub ready: i32,
    pub owner: Owner,
    pub gates_open: bool,
}

/// Everything outside the operator, and the operator's stored state.
pub struct World {
    pub policy: Policy,
    pub state: State,
    pub now: i64,
    pub git: String,
    pub paused: bool,
    pub replicas: i32,
    /// Native revision and its pods.
    pub native: (String, i32),
    pub ours: Vec<Ours>,
    pub split: Option<(i64, i32)>,
    pub applied_fence: Option<i64>,
    pub bad: Vec<String>,
    pub command: String,
    pub events: Vec<String>,
    pub weights: Vec<i32>,
    pub held_by_webhook: bool,
    pub least_serving: i32,
    pub shared_outage: bool,
    pub contested: Option<Contest>,
    /// The weight above which the candidate breaks its promise, stable unseen.
    pub bears: i32,
    pub slow_pods: bool,
    /// The native pods are not ready yet.
    pub starting: bool,
    pub in_step: u64,
    /// The evidence does not suffice, however long it is gathered.
    pub unconvinced: bool,
    /// Why the candidate's pods do not start.
    pub trouble: Option<String>,
    /// Of the Deployment.
    pub uid: String,
    pub deployment: String,
    /// Names of the candidate's pods begin with it: pods of another number are others.
    pub pods_of: u32,
}

pub fn policy(change: impl FnOnce(&mut MeshRolloutSpec)) -> Policy {
    let mut spec = MeshRolloutSpec {
        workload: Some(WorkloadRef {
            kind: "Deployment".to_owned(),
            name: "reviews".to_owned(),
            namespace: None,
        }),
        deadline: "2h".to_owned(),
        ..MeshRolloutSpec::default()
    };
    spec.analysis.hold = "10s".to_owned();
    change(&mut spec);
    Policy::from_spec(&spec).unwrap()
}

impl World {
    pub fn new(policy: Policy) -> Self {
        let mut world = Self {
            policy,
            state: State::default(),
            now: 1_000_000,
            git: "v1".to_owned(),
            paused: false,
            replicas: 4,
            native: ("v1".to_owned(), 4),
            ours: Vec::new(),
            split: None,
            applied_fence: None,
            bad: Vec::new(),
            command: String::new(),
            events: Vec::new(),
            weights: Vec::new(),
            held_by_webhook: true,
            least_serving: i32::MAX,
            shared_outage: false,
            contested: None,
            bears: 100,
            slow_pods: false,
            starting: false,
            in_step: 1000,
            unconvinced: false,
            trouble: None,
            uid: "deployment".to_owned(),
            deployment: "reviews".to_owned(),
            pods_of: 0,
        };
        world.run(5);
        world
    }

    /// Git brings a revision; the webhook holds or releases in the same request.
    pub fn commit(&mut self, revision: &str) {
        self.git = revision.to_owned();
        let stable = self.state.stable.as_ref().map(|s| s.revision.clone());
        if self.held_by_webhook {
            self.paused = stable.is_some_and(|stable| stable != revision);
        }
    }

    pub fn seen(&self) -> Observation {
        let current = self.ours.iter().find(|o| o.revision == self.git);
        let native_running = (self.native.1 > 0).then(|| RunningRevision {
            revision: self.native.0.clone(),
            pod_hashes: vec![format!("native-{}", self.native.0)],
            pods: self.native.1,
            ready: if self.starting { 0 } else { self.native.1 },
        });
        let adopted_running = current
            .filter(|o| o.owner == Owner::Deployment && o.ready > 0)
            .map(|o| RunningRevision {
                revision: o.revision.clone(),
                pod_hashes: vec![candidate_pod_hash(&o.revision)],
                pods: o.ready,
                ready: o.ready,
            });
        let adopted = adopted_running.is_some();
        let complete = !self.paused
            && !self.starting
            && if adopted {
                self.native.1 == 0
            } else {
                self.native == (self.git.clone(), self.replicas)
            };
        let bad = self.bad.contains(&self.git);
        let weight = self.split.map_or(0, |(_, weight)| weight);
        let condemned = bad && weight > 0 && self.applied_fence == self.split.map(|s| s.0);
        Observation {
            workload: Workload::Deployment(DeploymentView {
                generation: 1,
                revision: self.git.clone(),
                replicas: self.replicas,
                paused: self.paused,
                uid: self.uid.clone(),
                name: self.deployment.clone(),
                paused_by_git: None,
                paused_by_hand: None,
                complete,
                running: native_running.into_iter().chain(adopted_running).collect(),
                empty_twins: Vec::new(),
                candidate: current.map(|o| CandidateView {
                    revision: o.revision.clone(),
                    pod_hash: candidate_pod_hash(&o.revision),
                    owner: o.owner,
                    replicas: o.replicas,
                    pods: o.ready,
                    named: self.named(o.ready),
                    containers_ready: o.ready,
                    ready: if o.gates_open { o.ready } else { 0 },
                    ungated: 0,
                    trouble: self.trouble.clone(),
                    unready: None,
                }),
                leftovers: Vec::new(),
            }),
            services: vec!["reviews".to_owned()],
            missing_services: Vec::new(),
            conflict: None,
            split: SplitView {
                fence: self.split.map(|(fence, _)| fence),
                expected: 4,
                applied: 4,
                behind: u32::from(self.applied_fence != self.split.map(|s| s.0)),
                away: 0,
                refusal: None,
                complete: true,
            },
            evidence: EvidenceView {
                candidate: Counts {
                    requests: 1000,
                    failures: if bad { 300 } else { 0 },
                },
                condemned: condemned.then(|| "failed 300 of 1000 requests".to_owned()),
                contested: self.contested.clone(),
                breach: (weight > self.bears).then(|| "failed 30 of 90 requests".to_owned()),
                shared_outage: self.shared_outage.then(|| "both arms fail".to_owned()),
                sufficient: !bad && !self.unconvinced,
                needed: 500,
                in_step: self.in_step,
                ..EvidenceView::default()
            },
            unheld: None,
            command: self.command.clone(),
        }
    }

    fn named(&self, ready: i32) -> Vec<CandidatePod> {
        let pod = |n| CandidatePod {
            name: format!("pod-{}-{n}", self.pods_of),
            can_serve: true,
        };
        (0..ready).map(pod).collect()
    }

    /// One turn of the operator on what is seen now; effects included.
    pub fn turn(&mut self) {
        let seen = self.seen();
        let decision = self.decide(&seen);
        self.store(decision);
        let desired = project(&self.policy, &self.state, &self.seen());
        self.apply(&desired);
    }

    /// The decision, with the invariants checked.
    pub fn decide(&self, seen: &Observation) -> Decision {
        let decision = decide(&self.policy, &self.state, seen, self.now);
        let checked = invariants::check(&self.policy, &self.state, &decision.state)
            .and_then(|()| invariants::check_capacity(&decision.state, seen));
        if let Err(broken) = checked {
            panic!(
                "{broken}\nbefore {:?}\nafter {:?}",
                self.state, decision.state
            );
        }
        let again = decide(&self.policy, &decision.state, seen, self.now);
        if again.state == decision.state {
            assert!(
                again.notes.is_empty(),
                "notes without a change: {:?}",
                again.notes
            );
        }
        decision
    }

    /// The status write.
    pub fn store(&mut self, decision: Decision) {
        self.events
            .extend(decision.notes.iter().map(|n| n.reason.to_owned()));
        self.state = decision.state;
    }

    /// All effects, in order.
    pub fn apply(&mut self, desired: &Desired) {
        if let Some(split) = &desired.split {
            let newer = self.split.is_none_or(|(fence, _)| split.fence > fence);
            if newer {
                self.split = Some((split.fence, split.weight));
                if self.weights.last() != Some(&split.weight) {
                    self.weights.push(split.weight);
                }
            }
        }
        match desired.hold {
            Hold::Hold => self.paused = true,
            Hold::Release => self.paused = false,
            Hold::Leave => {}
        }
        let wanted = desired.candidate.as_ref().map(|c| c.revision.clone());
        self.ours
            .retain(|o| o.owner == Owner::Deployment || Some(&o.revision) == wanted.as_ref());
        let Some(candidate) = &desired.candidate else {
            return;
        };
        if !self.ours.iter().any(|o| o.revision == candidate.revision) {
            self.ours.push(Ours {
                revision: candidate.revision.clone(),
                replicas: 0,
                ready: 0,
                owner: Owner::Rollout,
                gates_open: false,
            });
        }
        let ours = self
            .ours
            .iter_mut()
            .find(|o| o.revision == candidate.revision)
            .unwrap();
        if ours.owner == Owner::Rollout {
            ours.replicas = candidate.replicas;
            ours.gates_open = candidate.gates_open;
            if candidate.adopt {
                ours.owner = Owner::Nobody;
            }
        }
    }

    /// What the cluster does in a second: pods start, the Deployment acts, proxies apply.
    pub fn cluster(&mut self) {
        for ours in &mut self.ours {
            if !self.slow_pods || ours.ready > ours.replicas {
                ours.ready = ours.replicas;
            }
        }
        self.applied_fence = self.split.map(|(fence, _)| fence);
        let adoptable = self
            .ours
            .iter_mut()
            .find(|o| o.owner != Owner::Rollout && o.revision == self.git);
        if let Some(adopted) = adoptable {
            adopted.owner = Owner::Deployment;
            adopted.replicas = self.replicas;
            self.native.1 = 0;
        } else if !self.paused {
            // A plain rolling update, gone through at once.
            self.native = (self.git.clone(), self.replicas);
            self.ours.retain(|o| o.owner == Owner::Rollout);
        } else {
            self.native.1 = self.replicas;
        }
        // An adopted revision is an ordinary one from the end of its rollout on.
        if self.state.candidate.is_none()
            && let Some(index) = self.ours.iter().position(|o| o.owner == Owner::Deployment)
            && !self.paused
        {
            let adopted = self.ours.remove(index);
            self.native = (adopted.revision, self.replicas);
        }
        let serving: i32 = self.native.1
            + self
                .ours
                .iter()
                .filter(|o| o.gates_open)
                .map(|o| o.ready)
                .sum::<i32>();
        self.least_serving = self.least_serving.min(serving);
    }

    /// So many seconds.
    pub fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.turn();
            self.cluster();
            self.now += 1000;
        }
    }

    pub fn stable(&self) -> &str {
        self.state.stable.as_ref().map_or("", |s| &s.revision)
    }

    pub fn phase(&self) -> &Phase {
        &self.state.phase
    }
}
