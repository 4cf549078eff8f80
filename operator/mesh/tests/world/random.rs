//! Random histories: whatever the order, a world shows what its objects say, and it tells of
//! every change.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use proptest::prelude::*;
use sluice_crds::{Mesh, TrafficSplit};
use sluice_mesh::{Input, World};
use sluice_xds::{Kind, ResourceName, Resources, names};

use crate::fixtures::{NAMESPACE, key, mesh, pod, service, slice, split};

/// Always boxed.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
enum Object {
    Service(Service),
    Slice(EndpointSlice),
    Pod(Pod),
    Split(TrafficSplit),
    Mesh(Mesh),
}

#[derive(Debug, Clone)]
enum Step {
    Apply(&'static str, Box<Object>),
    Remove(Input, &'static str),
}

const SERVICES: [&str; 2] = ["cart", "user"];
const SLICES: [&str; 3] = ["slice-1", "slice-2", "slice-3"];
const PODS: [&str; 3] = ["pod-1", "pod-2", "pod-3"];
const SPLITS: [&str; 3] = ["split-1", "split-2", "split-3"];
const VIPS: [&str; 3] = ["10.96.0.1", "10.96.0.2", "None"];
/// Who looks: the Services' own namespace and another.
const VIEWERS: [&str; 2] = [NAMESPACE, "other"];
/// What a Service may say of who sees it; empty: the mesh's default.
const EXPORTS: [&str; 5] = ["", "*", ".", "~", "other"];
const PORT_NAMES: [&str; 3] = ["http", "tcp", "web"];

fn one<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(of)
}

fn a_service() -> impl Strategy<Value = Step> {
    let shape = (
        one(&SERVICES),
        one(&PORT_NAMES),
        any::<bool>(),
        one(&EXPORTS),
    );
    shape.prop_map(|(name, port, headless, export_to)| {
        // Addresses belong to one Service each, as the apiserver sees to.
        let own = SERVICES.iter().position(|one| *one == name).unwrap();
        let vip = if headless { "None" } else { VIPS[own] };
        let built = service(name).vip(vip).port(port, 80);
        let built = built.export_to(export_to).build();
        Step::Apply(name, Box::new(Object::Service(built)))
    })
}

fn a_slice() -> impl Strategy<Value = Step> {
    let members = prop::collection::vec((one(&PODS), any::<bool>()), 0..3);
    let shape = (one(&SLICES), one(&SERVICES), one(&PORT_NAMES), members);
    shape.prop_map(|(name, of, port, members)| {
        let mut built = slice(name, of).port(port, 8080);
        for (pod, ready) in members {
            let number = pod.rsplit('-').next().unwrap();
            let address = format!("10.1.0.{number}");
            built = match ready {
                true => built.pod(pod, &address),
                false => built.unready_pod(pod, &address),
            };
        }
        Step::Apply(name, Box::new(Object::Slice(built.build())))
    })
}

fn a_pod() -> impl Strategy<Value = Step> {
    let shape = (one(&PODS), one(&["v0", "v1", "sluice-v2"]), 0..4u8);
    shape.prop_map(|(name, hash, state)| {
        let built = pod(name, hash);
        let built = match state {
            0 => built,
            1 => built.gated(),
            2 => built.unready(),
            _ => built.deleting(),
        };
        Step::Apply(name, Box::new(Object::Pod(built.build())))
    })
}

fn a_split() -> impl Strategy<Value = Step> {
    let shape = (one(&SPLITS), one(&SERVICES), 0..3i32, 0..2i64);
    shape.prop_map(|(name, of, weight, created)| {
        let built = split(name, of).weight(weight * 50).created(created).build();
        Step::Apply(name, Box::new(Object::Split(built)))
    })
}

fn a_mesh() -> impl Strategy<Value = Step> {
    one(&EXPORTS[1..])
        .prop_map(|entry| Step::Apply("default", Box::new(Object::Mesh(mesh(&[entry])))))
}

fn step() -> impl Strategy<Value = Step> {
    let remove = prop_oneof![
        one(&SERVICES).prop_map(|name| Step::Remove(Input::Service, name)),
        one(&SLICES).prop_map(|name| Step::Remove(Input::Slice, name)),
        one(&PODS).prop_map(|name| Step::Remove(Input::Pod, name)),
        one(&SPLITS).prop_map(|name| Step::Remove(Input::Split, name)),
        Just(Step::Remove(Input::Mesh, "default")),
    ];
    prop_oneof![a_service(), a_slice(), a_pod(), a_split(), a_mesh(), remove]
}

fn apply(world: &mut World, object: &Object) -> Vec<ResourceName> {
    match object {
        Object::Service(service) => world.apply_service(service),
        Object::Slice(slice) => world.apply_slice(slice),
        Object::Pod(pod) => world.apply_pod(pod),
        Object::Split(split) => world.apply_split(split),
        Object::Mesh(mesh) => world.apply_mesh(mesh),
    }
}

fn input(object: &Object) -> Input {
    match object {
        Object::Service(_) => Input::Service,
        Object::Slice(_) => Input::Slice,
        Object::Pod(_) => Input::Pod,
        Object::Split(_) => Input::Split,
        Object::Mesh(_) => Input::Mesh,
    }
}

/// Versions of every name there can be, by who looks.
fn versions(world: &World) -> BTreeMap<(ResourceName, &'static str), String> {
    let mut all = Vec::new();
    for service in SERVICES {
        let host = names::fqdn("shop", service);
        all.push((Kind::Listener, names::host_listener(&host, 80)));
        all.push((Kind::Route, names::route(&host, 80)));
        for arm in ["", "stable", "candidate"] {
            let name = format!("outbound|80|{arm}|{host}");
            all.push((Kind::Cluster, name.clone()));
            all.push((Kind::Endpoints, name));
        }
    }
    let listeners = VIPS.iter().map(|vip| format!("outbound/{vip}:80"));
    all.extend(listeners.map(|name| (Kind::Listener, name)));
    let all = all
        .into_iter()
        .flat_map(|name| VIEWERS.map(|viewer| (name.clone(), viewer)));
    let versions = all.filter_map(|((kind, name), viewer)| {
        let resource = world.sight(viewer).get(kind, &name)?;
        Some((
            (ResourceName::new(kind, name), viewer),
            resource.version.clone(),
        ))
    });
    versions.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_world_shows_its_objects_and_tells_of_every_change(
        steps in prop::collection::vec(step(), 1..40),
        backwards in any::<bool>(),
    ) {
        let mut world = World::new("cluster.local");
        let mut objects: BTreeMap<(u8, &str), Box<Object>> = BTreeMap::new();
        for step in steps {
            let before = versions(&world);
            let touched = match step {
                Step::Apply(name, object) => {
                    let touched = apply(&mut world, &object);
                    objects.insert((input(&object) as u8, name), object);
                    touched
                }
                Step::Remove(input, name) => {
                    objects.remove(&(input as u8, name));
                    world.remove(input, &key(name))
                }
            };
            let after = versions(&world);
            for key in before.keys().chain(after.keys()) {
                let (name, viewer) = key;
                let same = before.get(key) == after.get(key);
                prop_assert!(
                    same || touched.contains(name),
                    "silent change of {name} for {viewer}"
                );
            }

            let mut fresh = World::new("cluster.local");
            let mut all: Vec<_> = objects.values().collect();
            if backwards {
                all.reverse();
            }
            for object in all {
                apply(&mut fresh, object);
            }
            prop_assert_eq!(versions(&fresh), after);
            prop_assert_eq!(fresh.split_conflicts(), world.split_conflicts());
        }
        for input in [
            Input::Service,
            Input::Slice,
            Input::Pod,
            Input::Split,
            Input::Mesh,
        ] {
            for object in world.known(input) {
                world.remove(input, &object);
            }
        }
        let stats = world.stats();
        prop_assert_eq!((stats.services, stats.slices, stats.pods, stats.splits), (0, 0, 0, 0));
        prop_assert!(versions(&world).is_empty());
    }
}
