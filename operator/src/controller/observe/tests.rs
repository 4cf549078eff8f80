#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use sluice_rollout::observation::{DeploymentView, Owner, SubsetsView};

use super::*;
use crate::controller::{
    facts::{AutoscalerFacts, DeploymentFacts, PodFacts, ReplicaSetFacts},
    fixtures::{
        Build, autoscaler, deployment, pod, replica_set, rollout, rollout_of_versions, service,
    },
    watches::World,
};

/// The Deployment `web` at revision `r2`, its stable ReplicaSet `web-1` of `r1`.
struct Scene(Namespace);

impl Scene {
    fn new() -> Self {
        let mut scene = Self(Namespace::default());
        scene.0.deployments.push(Arc::new(deployment("web", "r2")));
        scene.0.services.push(Arc::new(service("web", "web")));
        scene.set(
            ReplicaSetFacts {
                replicas: 3,
                ..replica_set("web-1")
            }
            .owned("Deployment", "web"),
        );
        scene
    }

    fn set(&mut self, set: ReplicaSetFacts) -> &mut Self {
        self.0.replica_sets.push(Arc::new(set));
        self
    }

    fn pods(&mut self, set: &str, number: usize, shape: PodFacts) -> &mut Self {
        for _ in 0..number {
            let name = format!("{set}-{}", self.0.pods.len());
            let mut made = PodFacts {
                meta: pod(&name).meta,
                ..shape.clone()
            };
            made.meta.labels = shape.meta.labels.clone();
            self.0.pods.push(Arc::new(made.owned("ReplicaSet", set)));
        }
        self
    }

    fn see(&self) -> DeploymentView {
        let seen = observe(
            &rollout("web", "web"),
            &self.0,
            SplitView::default(),
            EvidenceView::default(),
        );
        match seen.workload {
            Workload::Deployment(view) => view,
            other => panic!("{other:?}"),
        }
    }
}

fn ready() -> PodFacts {
    PodFacts {
        ready: true,
        containers_ready: true,
        ..pod("")
    }
}

fn gated() -> PodFacts {
    PodFacts {
        containers_ready: true,
        gated: true,
        ..pod("")
    }
}

fn candidate_set() -> ReplicaSetFacts {
    let revision = "r2".to_owned();
    ReplicaSetFacts {
        revision,
        replicas: 2,
        pods: 2,
        ..replica_set("web-sluice-r2")
    }
}

#[test]
fn stable_and_candidate_are_told_apart_by_their_owners() {
    let mut scene = Scene::new();
    scene.set(candidate_set().owned("MeshRollout", "web"));
    scene
        .pods("web-1", 3, ready())
        .pods("web-sluice-r2", 2, gated());
    let view = scene.see();
    assert_eq!(view.running.len(), 1);
    assert_eq!((view.running[0].pods, view.running[0].ready), (3, 3));
    assert_eq!(view.running[0].pod_hashes, ["web-1"]);
    let candidate = view.candidate.unwrap();
    assert_eq!(candidate.owner, Owner::Rollout);
    assert_eq!(
        (candidate.pods, candidate.containers_ready, candidate.ready),
        (2, 2, 0)
    );
    assert_eq!(candidate.ungated, 0);
    let one = candidate.named[0].name.as_str();
    assert_eq!(
        (candidate.can_serve(None), candidate.can_serve(Some(one))),
        (2, 1)
    );
    assert!(view.leftovers.is_empty() && view.empty_twins.is_empty());
}

#[test]
fn pods_that_are_going_do_not_count() {
    let mut scene = Scene::new();
    let mut going = ready();
    going.meta.deleting = true;
    scene.pods("web-1", 2, ready());
    let mut pod = PodFacts {
        meta: pod("late").meta,
        ..going
    }
    .owned("ReplicaSet", "web-1");
    pod.meta.deleting = true;
    scene.0.pods.push(Arc::new(pod));
    assert_eq!(scene.see().running[0].pods, 2);
}

#[test]
fn an_adopted_replica_set_is_native_and_still_known_as_the_candidate() {
    let mut scene = Scene::new();
    scene.set(candidate_set().owned("Deployment", "web"));
    scene.pods("web-sluice-r2", 2, ready());
    let view = scene.see();
    assert_eq!(view.candidate.unwrap().owner, Owner::Deployment);
    assert_eq!(view.running[0].revision, "r2");
}

#[test]
fn a_released_replica_set_belongs_to_nobody() {
    let mut scene = Scene::new();
    scene.set(candidate_set());
    assert_eq!(scene.see().candidate.unwrap().owner, Owner::Nobody);
}

#[test]
fn an_empty_twin_of_the_template_is_found_even_when_it_was_once_ours() {
    let mut scene = Scene::new();
    let empty = ReplicaSetFacts {
        replicas: 0,
        pods: 0,
        ..candidate_set()
    };
    scene.set(empty.owned("Deployment", "web"));
    let view = scene.see();
    assert_eq!(view.empty_twins, ["web-sluice-r2"]);
    assert_eq!(view.candidate, None);
}

#[test]
fn our_replica_set_of_an_older_template_is_a_leftover() {
    let mut scene = Scene::new();
    let older = ReplicaSetFacts {
        revision: "r0".to_owned(),
        ..candidate_set()
    };
    scene.set(older.owned("MeshRollout", "web"));
    let view = scene.see();
    assert_eq!(view.leftovers, ["web-sluice-r2"]);
    assert_eq!(view.candidate, None);
}

#[test]
fn a_stranger_with_a_similar_name_is_left_alone() {
    let mut scene = Scene::new();
    scene.set(candidate_set().owned("MeshRollout", "another-life"));
    scene.set(replica_set("website-sluice-1"));
    let view = scene.see();
    assert_eq!(view.candidate, None);
    assert!(view.leftovers.is_empty());
}

#[test]
fn trouble_of_the_replica_set_or_of_a_pod_is_told() {
    let mut scene = Scene::new();
    scene.set(candidate_set().owned("MeshRollout", "web"));
    let stuck = PodFacts {
        trouble: Some("ImagePullBackOff".to_owned()),
        ..gated()
    };
    scene.pods("web-sluice-r2", 1, stuck);
    assert_eq!(
        scene.see().candidate.unwrap().trouble.unwrap(),
        "ImagePullBackOff"
    );
}

#[test]
fn services_that_take_the_pods_are_split_unless_the_spec_names_them() {
    let scene = Scene::new();
    assert_eq!(services_of(&rollout("web", "web"), &scene.0), ["web"]);
    let mut named = rollout("web", "web");
    named.services = Some(vec!["web".to_owned(), "gone".to_owned()]);
    let seen = observe(
        &named,
        &scene.0,
        SplitView::default(),
        EvidenceView::default(),
    );
    assert_eq!(seen.services, ["web"]);
    assert_eq!(seen.missing_services, ["gone"]);
}

#[test]
fn a_missing_deployment_is_missing() {
    let seen = observe(
        &rollout("web", "gone"),
        &Scene::new().0,
        SplitView::default(),
        EvidenceView::default(),
    );
    assert_eq!(seen.workload, Workload::Missing);
    assert!(seen.services.is_empty());
}

#[test]
fn of_two_rollouts_of_one_workload_the_younger_is_in_conflict() {
    let mut scene = Scene::new();
    let older = rollout("zebra", "web").created(1);
    let younger = rollout("ape", "web").created(2);
    scene.0.rollouts = vec![Arc::new(older.clone()), Arc::new(younger.clone())];
    assert_eq!(conflict(&younger, &scene.0), Some("zebra".to_owned()));
    assert_eq!(conflict(&older, &scene.0), None);
}

#[test]
fn two_rollouts_that_split_one_service_are_in_conflict() {
    let mut scene = Scene::new();
    let older = rollout("web", "web").created(1);
    let younger = rollout_of_versions("pair", &["web"]).created(2);
    scene.0.rollouts = vec![Arc::new(older), Arc::new(younger.clone())];
    assert_eq!(conflict(&younger, &scene.0), Some("web".to_owned()));
}

fn subsets(namespace: &Namespace) -> Option<SubsetsView> {
    let rollout = rollout_of_versions("pair", &["web"]);
    match observe(
        &rollout,
        namespace,
        SplitView::default(),
        EvidenceView::default(),
    )
    .workload
    {
        Workload::Subsets(view) => Some(view),
        _ => None,
    }
}

fn subset_pod(version: &str) -> PodFacts {
    ready().labelled("app", "web").labelled("version", version)
}

fn two_subsets() -> Scene {
    let mut scene = Scene(Namespace::default());
    scene.0.services.push(Arc::new(service("web", "web")));
    scene.0.deployments.push(Arc::new(DeploymentFacts {
        replicas: 2,
        ..deployment("web-v2", "r2")
    }));
    scene.set(ReplicaSetFacts {
        replicas: 3,
        ..replica_set("web-v1-a")
    });
    let second = ReplicaSetFacts {
        revision: "r2".to_owned(),
        replicas: 2,
        ..replica_set("web-v2-a")
    };
    scene.set(second.owned("Deployment", "web-v2"));
    scene.pods("web-v1-a", 3, subset_pod("v1"));
    scene
}

#[test]
fn a_candidate_subset_without_pods_has_no_revision() {
    let view = subsets(&two_subsets().0).unwrap();
    assert_eq!(
        (view.stable_ready, view.candidate_revision.as_str()),
        (3, "")
    );
    assert_eq!(subsets(&Namespace::default()), None);
}

#[test]
fn a_subset_counts_its_ready_pods_and_what_its_deployment_asks_for() {
    let mut scene = two_subsets();
    scene.pods("web-v2-a", 1, subset_pod("v2"));
    let view = subsets(&scene.0).unwrap();
    assert_eq!((view.candidate_ready, view.candidate_wanted), (1, 2));
    let one = view.candidate_pods[0].name.as_str();
    assert_eq!(view.can_serve(Some(one)), 0);
    assert_ne!(view.candidate_revision, view.stable_revision);
}

#[test]
fn the_revision_of_a_subset_changes_with_its_newest_template() {
    let mut scene = two_subsets();
    scene.pods("web-v2-a", 1, subset_pod("v2"));
    let before = subsets(&scene.0).unwrap().candidate_revision;
    let newer = ReplicaSetFacts {
        revision: "r3".to_owned(),
        replicas: 1,
        ..replica_set("web-v2-b")
    };
    scene
        .set(newer.created(9))
        .pods("web-v2-b", 1, subset_pod("v2"));
    assert_ne!(subsets(&scene.0).unwrap().candidate_revision, before);
}

#[test]
fn an_autoscaler_of_the_workload_that_somebody_else_sets_is_seen() {
    let seen = |facts: &[AutoscalerFacts]| {
        let mut scene = Scene::new();
        scene.0.autoscalers = facts.iter().cloned().map(Arc::new).collect();
        let (split, evidence) = (SplitView::default(), EvidenceView::default());
        observe(&rollout("web", "web"), &scene.0, split, evidence).unheld
    };
    let set = |deployment| AutoscalerFacts {
        set_by: Some("kustomize-controller".to_owned()),
        ..autoscaler("web", deployment)
    };
    assert_eq!(seen(&[autoscaler("web", "web"), set("other")]), None);
    let unheld = seen(&[set("other"), set("web")]).unwrap();
    assert_eq!(
        (unheld.name.as_str(), unheld.manager.as_str()),
        ("web", "kustomize-controller")
    );
}

#[test]
fn a_rollout_reaches_nothing_of_another_namespace() {
    let world = World::default();
    world.deployments.put(deployment("web", "r2"));
    world.services.put(service("web", "web"));
    let mut theirs = replica_set("web-sluice-1").owned("Deployment", "web");
    theirs.meta.namespace = "evil".to_owned();
    world.replica_sets.put(theirs);
    let mut pretender = pod("web-9").labelled("app", "web");
    pretender.meta.namespace = "evil".to_owned();
    world
        .pods
        .put(pretender.owned("ReplicaSet", "web-sluice-1"));

    let see = |rollout: RolloutFacts| {
        let namespace = world.namespace(&rollout.meta.namespace);
        observe(
            &rollout,
            &namespace,
            SplitView::default(),
            EvidenceView::default(),
        )
    };
    let evil = |mut rollout: RolloutFacts| {
        rollout.meta.namespace = "evil".to_owned();
        see(rollout)
    };
    let seen = evil(rollout("web", "web"));
    assert_eq!((seen.workload, seen.services), (Workload::Missing, vec![]));
    let names = ["shop/web", "web", "web.shop"];
    let seen = evil(rollout_of_versions("web", &names));
    assert_eq!((seen.workload, seen.services), (Workload::Missing, vec![]));
    assert_eq!(seen.missing_services, names);

    // Nor does what they have there count here, whoever it says that it belongs to.
    let Workload::Deployment(view) = see(rollout("web", "web")).workload else {
        panic!("no Deployment");
    };
    assert_eq!(view.running, []);
    assert_eq!((view.candidate, view.leftovers), (None, vec![]));
}
