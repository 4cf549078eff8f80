//! What a namespace sees: the only way from the outside to a resource.

use std::{collections::BTreeSet, sync::Arc};

use sluice_xds::{Kind, Resource, ResourceName, Resources};

use crate::{
    World,
    facts::{Audience, ObjectKey, ServiceFacts},
};

/// A resource that was made, with those who may see it. A change of either makes it void.
#[derive(Debug)]
pub(crate) struct Compiled {
    resource: Arc<Resource>,
    audience: Arc<Audience>,
}

/// A world as the proxies of one namespace see it. A name that is kept from them gets the answer
/// of one that does not exist.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    world: &'a World,
    namespace: &'a str,
}

impl World {
    /// The world as the proxies of this namespace see it.
    #[must_use]
    pub fn sight<'a>(&'a self, namespace: &'a str) -> Sight<'a> {
        Sight {
            world: self,
            namespace,
        }
    }

    /// Grows whenever a Service that was known is seen by others than before.
    #[must_use]
    pub fn audience_changes(&self) -> u64 {
        self.audience_changes
    }
}

impl<'a> Sight<'a> {
    /// Whether a Service (`NAMESPACE/NAME`) is kept from this namespace; not one that does not
    /// exist: it may come to be seen.
    #[must_use]
    pub fn is_denied(&self, service: &str) -> bool {
        let key = service.split_once('/');
        let key = key.map(|(namespace, name)| ObjectKey::new(namespace, name));
        let service = key.and_then(|key| self.world.services.get(&key));
        service.is_some_and(|service| !service.audience.admits(self.namespace))
    }

    /// The Services, as `NAMESPACE/NAME`, whose traffic a proxy with these subscriptions routes.
    #[must_use]
    pub fn services_view<'b>(
        &self,
        subscriptions: impl IntoIterator<Item = (Kind, &'b str)>,
    ) -> BTreeSet<String> {
        subscriptions
            .into_iter()
            .filter(|(kind, _)| matches!(kind, Kind::Listener | Kind::Route))
            .filter_map(|(kind, name)| self.service(kind, name))
            .map(|service| service.key.to_string())
            .collect()
    }

    /// The Service that a name is of, if it may be seen.
    fn service(&self, kind: Kind, name: &str) -> Option<&'a ServiceFacts> {
        let (service, _) = self.world.port_of(kind, name)?;
        service.audience.admits(self.namespace).then_some(service)
    }
}

impl Resources for Sight<'_> {
    fn get(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        let world = self.world;
        let key = ResourceName::new(kind, name);
        if let Some(ready) = world.compiled.lock().get(&key) {
            let is_seen = ready.audience.admits(self.namespace);
            return is_seen.then(|| ready.resource.clone());
        }
        let audience = self.service(kind, name)?.audience.clone();
        let resource = Arc::new(world.resolve(kind, name)?.compile());
        let made = Compiled {
            resource: resource.clone(),
            audience,
        };
        world.compiled.lock().insert(key, made);
        Some(resource)
    }

    fn system_version(&self) -> String {
        self.world.generation.to_string()
    }
}
