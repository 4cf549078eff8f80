//! The tables of what is in the cluster.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use parking_lot::Mutex;
use sluice_crds::{Mesh, TrafficSplit};
use sluice_xds::ResourceName;

use crate::{
    facts::{
        Audience, Eject, ExportTo, ObjectKey, PodFacts, ServiceFacts, SliceFacts, SplitAge,
        SplitFacts, Template,
    },
    intern::Interner,
    sight::Compiled,
};

/// The kinds of objects that the world is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// `v1 Service`.
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    Slice,
    /// `v1 Pod`.
    Pod,
    /// `sluice.dev/v1alpha1 TrafficSplit`.
    Split,
    /// `sluice.dev/v1alpha1 Mesh`, which has no namespace.
    Mesh,
}

/// The cluster as the mesh sees it.
///
/// Each `apply_*` and `remove` returns the names of the resources that may have changed, sorted:
/// a superset, since versions are compared when resources are sent. Applying an object again, or
/// a change that no resource shows, returns none.
#[derive(Debug)]
pub struct World {
    pub(crate) trust_domain: String,
    /// The settings of the whole mesh, while there are any.
    mesh: Option<ObjectKey>,
    /// Who sees a Service that does not say so.
    export_to: ExportTo,
    audiences: Interner<Audience>,
    /// Changes of who sees a Service that was known.
    pub(crate) audience_changes: u64,
    pub(crate) services: HashMap<ObjectKey, ServiceFacts>,
    pub(crate) vips: HashMap<IpAddr, ObjectKey>,
    pub(crate) slices: HashMap<ObjectKey, SliceFacts>,
    /// Service -> its slices.
    pub(crate) slices_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Pod -> the slices that hold it.
    holders: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    pub(crate) pods: HashMap<ObjectKey, PodFacts>,
    pub(crate) templates: Interner<Template>,
    pub(crate) splits: HashMap<ObjectKey, Arc<SplitFacts>>,
    /// What the leader has told of splits, until their fences are higher.
    ejects: BTreeMap<ObjectKey, Eject>,
    /// Service -> the splits that name it, the one that holds first.
    pub(crate) splits_of: HashMap<ObjectKey, BTreeMap<SplitAge, Arc<SplitFacts>>>,
    /// Compiled resources, of names that were asked for.
    pub(crate) compiled: Mutex<HashMap<ResourceName, Compiled>>,
    pub(crate) generation: u64,
}

impl World {
    /// An empty world; pods have SPIFFE ids of this trust domain.
    #[must_use]
    pub fn new(trust_domain: impl Into<String>) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            mesh: None,
            export_to: ExportTo::default(),
            audiences: Interner::new(),
            audience_changes: 0,
            services: HashMap::new(),
            vips: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            holders: HashMap::new(),
            pods: HashMap::new(),
            templates: Interner::new(),
            splits: HashMap::new(),
            ejects: BTreeMap::new(),
            splits_of: HashMap::new(),
            compiled: Mutex::default(),
            generation: 0,
        }
    }

    /// Takes in a Service that is new or has changed.
    pub fn apply_service(&mut self, service: &Service) -> Vec<ResourceName> {
        let Some(key) = ObjectKey::of(&service.metadata) else {
            return Vec::new();
        };
        let facts = ServiceFacts::of(service, &self.export_to, &mut self.audiences);
        self.put_service(key, facts)
    }

    /// Takes in the settings of the mesh.
    pub fn apply_mesh(&mut self, mesh: &Mesh) -> Vec<ResourceName> {
        let entries = mesh.spec.default_service_export_to.iter();
        let told = ExportTo::read(entries.map(String::as_str));
        let name = mesh.metadata.name.as_ref();
        self.mesh = name.map(|name| ObjectKey::new("", name));
        self.put_export_to(told.unwrap_or(ExportTo::own()))
    }

    /// Takes in an EndpointSlice that is new or has changed.
    pub fn apply_slice(&mut self, slice: &EndpointSlice) -> Vec<ResourceName> {
        match ObjectKey::of(&slice.metadata) {
            Some(key) => self.put_slice(key, SliceFacts::of(slice)),
            None => Vec::new(),
        }
    }

    /// Takes in a Pod that is new or has changed.
    pub fn apply_pod(&mut self, pod: &Pod) -> Vec<ResourceName> {
        let Some(key) = ObjectKey::of(&pod.metadata) else {
            return Vec::new();
        };
        let facts = PodFacts::of(pod, &mut self.templates);
        self.put_pod(key, Some(facts))
    }

    /// Takes in a TrafficSplit that is new or has changed.
    pub fn apply_split(&mut self, split: &TrafficSplit) -> Vec<ResourceName> {
        match SplitFacts::of(split) {
            Some(facts) => self.put_split(facts.key.clone(), Some(facts)),
            None => Vec::new(),
        }
    }

    /// Takes a candidate off traffic until its split has a higher fence, or is no more. Nothing
    /// happens where there is no such split, where its fence is higher already, or where an
    /// eject reaches as far.
    pub fn eject(&mut self, split: &ObjectKey, eject: Eject) -> Vec<ResourceName> {
        let Some(held) = self.splits.get(split) else {
            return Vec::new();
        };
        let known = self.ejects.get(split).map(|eject| eject.fence);
        if known >= Some(eject.fence) {
            return Vec::new();
        }
        let facts = SplitFacts::clone(held);
        self.ejects.insert(split.clone(), eject);
        self.put_split(split.clone(), Some(facts))
    }

    /// The ejects that hold, by split.
    #[must_use]
    pub fn ejects(&self) -> &BTreeMap<ObjectKey, Eject> {
        &self.ejects
    }

    /// Takes out an object that is no more.
    pub fn remove(&mut self, input: Input, key: &ObjectKey) -> Vec<ResourceName> {
        let key = key.clone();
        match input {
            Input::Service => self.put_service(key, None),
            Input::Slice => self.put_slice(key, None),
            Input::Pod => self.put_pod(key, None),
            Input::Split => self.put_split(key, None),
            Input::Mesh => {
                self.mesh = None;
                self.put_export_to(ExportTo::default())
            }
        }
    }

    /// The objects that are known: after a watch was started over, those that its new list does
    /// not hold are to be removed.
    #[must_use]
    pub fn known(&self, input: Input) -> Vec<ObjectKey> {
        match input {
            Input::Service => self.services.keys().cloned().collect(),
            Input::Slice => self.slices.keys().cloned().collect(),
            Input::Pod => self.pods.keys().cloned().collect(),
            Input::Split => self.splits.keys().cloned().collect(),
            Input::Mesh => self.mesh.iter().cloned().collect(),
        }
    }

    /// Lets go of what was compiled for names that nobody wants any more.
    pub fn trim(&self, wanted: impl Fn(&ResourceName) -> bool) {
        let mut compiled = self.compiled.lock();
        compiled.retain(|name, _| wanted(name));
        compiled.shrink_to_fit();
    }

    /// The split that holds for a Service.
    pub(crate) fn split(&self, service: &ObjectKey) -> Option<&Arc<SplitFacts>> {
        self.splits_of.get(service)?.values().next()
    }

    fn put_service(&mut self, key: ObjectKey, facts: Option<ServiceFacts>) -> Vec<ResourceName> {
        if self.services.get(&key) == facts.as_ref() {
            return Vec::new();
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = self.services.remove(&key) {
            let is_seen_as_before = facts
                .as_ref()
                .is_none_or(|new| new.audience == old.audience);
            self.audience_changes += u64::from(!is_seen_as_before);
            touched.extend(old.resource_names());
            for vip in &old.vips {
                // The address may be another's by now.
                if self.vips.get(vip) == Some(&key) {
                    self.vips.remove(vip);
                }
            }
        }
        if let Some(new) = facts {
            touched.extend(new.resource_names());
            let vips = new.vips.iter();
            self.vips.extend(vips.map(|vip| (*vip, key.clone())));
            self.services.insert(key, new);
        }
        self.touched(touched)
    }

    fn put_export_to(&mut self, export_to: ExportTo) -> Vec<ResourceName> {
        if self.export_to == export_to {
            return Vec::new();
        }
        let mut touched = BTreeSet::new();
        for service in self.services.values_mut().filter(|s| s.by_default) {
            let audience = export_to.audience(&service.key.namespace);
            let audience = self.audiences.intern(audience);
            if service.audience != audience {
                service.audience = audience;
                touched.extend(service.resource_names());
            }
        }
        self.export_to = export_to;
        self.audience_changes += 1;
        self.touched(touched)
    }

    fn put_slice(&mut self, key: ObjectKey, facts: Option<SliceFacts>) -> Vec<ResourceName> {
        if self.slices.get(&key) == facts.as_ref() {
            return Vec::new();
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = self.slices.remove(&key) {
            touched.extend(self.endpoints_of(&old.service));
            unlink(&mut self.slices_of, &old.service, &key);
            for pod in old.pods() {
                unlink(&mut self.holders, pod, &key);
            }
        }
        if let Some(new) = facts {
            touched.extend(self.endpoints_of(&new.service));
            link(&mut self.slices_of, &new.service, &key);
            for pod in new.pods() {
                link(&mut self.holders, pod, &key);
            }
            self.slices.insert(key, new);
        }
        self.touched(touched)
    }

    fn put_pod(&mut self, key: ObjectKey, facts: Option<PodFacts>) -> Vec<ResourceName> {
        if self.pods.get(&key) == facts.as_ref() {
            return Vec::new();
        }
        let slices = self.holders.get(&key).into_iter().flatten();
        let services: BTreeSet<_> = slices
            .filter_map(|slice| self.slices.get(slice))
            .map(|slice| &slice.service)
            .collect();
        let touched = services
            .into_iter()
            .flat_map(|service| self.endpoints_of(service))
            .collect();
        match facts {
            Some(facts) => self.pods.insert(key, facts),
            None => self.pods.remove(&key),
        };
        self.touched(touched)
    }

    fn put_split(&mut self, key: ObjectKey, facts: Option<SplitFacts>) -> Vec<ResourceName> {
        let facts = self.overridden(&key, facts);
        let old = self.splits.get(&key).cloned();
        if old.as_deref() == facts.as_ref() {
            return Vec::new();
        }
        let new = facts.map(Arc::new);
        let services: BTreeSet<_> = [&old, &new]
            .into_iter()
            .flatten()
            .flat_map(|split| split.services())
            .collect();
        let before: Vec<_> = services.iter().map(|s| self.split(s).cloned()).collect();
        if let Some(old) = old {
            self.splits.remove(&key);
            for service in old.services() {
                if let Some(splits) = self.splits_of.get_mut(&service) {
                    splits.remove(&old.age());
                    if splits.is_empty() {
                        self.splits_of.remove(&service);
                    }
                }
            }
        }
        if let Some(new) = new {
            for service in new.services() {
                let splits = self.splits_of.entry(service).or_default();
                splits.insert(new.age(), new.clone());
            }
            self.splits.insert(key, new);
        }
        let mut touched = BTreeSet::new();
        for (service, before) in services.iter().zip(before) {
            let after = self.split(service);
            if before.as_ref() == after {
                continue;
            }
            let Some(service) = self.services.get(service) else {
                continue;
            };
            touched.extend(service.weighted_names());
            let same_arms = match (&before, after) {
                (Some(before), Some(after)) => before.selects_as(after),
                _ => false,
            };
            if !same_arms {
                touched.extend(service.endpoints_names());
            }
        }
        self.touched(touched)
    }

    /// A split as its eject leaves it; an eject that is over goes.
    fn overridden(&mut self, key: &ObjectKey, facts: Option<SplitFacts>) -> Option<SplitFacts> {
        let Some(eject) = self.ejects.get(key) else {
            return facts;
        };
        let reach = |facts: &SplitFacts| facts.spec.fence <= eject.fence;
        if facts.as_ref().is_some_and(reach) {
            return facts.map(|facts| SplitFacts {
                ejected: facts.spec.revision == eject.revision,
                ..facts
            });
        }
        self.ejects.remove(key);
        facts
    }

    fn endpoints_of(&self, service: &ObjectKey) -> Vec<ResourceName> {
        let service = self.services.get(service);
        service.map_or_else(Vec::new, |service| service.endpoints_names().collect())
    }

    /// Every change ends here: what was compiled of these names is void.
    fn touched(&mut self, touched: BTreeSet<ResourceName>) -> Vec<ResourceName> {
        self.generation += 1;
        let compiled = self.compiled.get_mut();
        for name in &touched {
            compiled.remove(name);
        }
        touched.into_iter().collect()
    }
}

type Links = HashMap<ObjectKey, BTreeSet<ObjectKey>>;

fn link(links: &mut Links, from: &ObjectKey, to: &ObjectKey) {
    links.entry(from.clone()).or_default().insert(to.clone());
}

fn unlink(links: &mut Links, from: &ObjectKey, to: &ObjectKey) {
    let Some(set) = links.get_mut(from) else {
        return;
    };
    set.remove(to);
    if set.is_empty() {
        links.remove(from);
    }
}
