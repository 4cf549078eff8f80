//! Services whose `networking.istio.io/exportTo` says nothing clear. A Service has no status of
//! ours, and most have no MeshRollout: an event on it says what is wrong, and a condition on the
//! MeshRollouts that split it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sluice_mesh::WrongExportTo;
use tokio::time::MissedTickBehavior;

use super::{
    Controller,
    facts::ServiceFacts,
    status::Fact,
    watches::{Namespace, World},
};

/// How often they are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// What was told of each, by uid.
type Told = HashMap<String, WrongExportTo>;

impl Controller {
    /// Tells of each wrong value once; a new leader tells it again.
    pub(super) async fn tell_wrong_exports(self: Arc<Self>) {
        self.world.synced().await;
        let mut told = Told::new();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.leadership.leads() {
                told.clear();
                continue;
            }
            for (service, wrong) in news(&self.world, &mut told) {
                let note = wrong.to_string();
                self.events.tell(
                    service.meta.reference("v1", "Service"),
                    true,
                    "WrongExportTo",
                    &note,
                );
            }
        }
    }
}

/// The wrong values that were not told yet; those that are over are forgotten.
fn news(world: &World, told: &mut Told) -> Vec<(Arc<ServiceFacts>, WrongExportTo)> {
    let mut news = Vec::new();
    let mut now = Told::new();
    for service in world.services.such(|s| s.wrong_export_to.is_some()) {
        let Some(wrong) = service.wrong_export_to.clone() else {
            continue;
        };
        now.insert(service.meta.uid.clone(), wrong.clone());
        if told.get(&service.meta.uid) != Some(&wrong) {
            news.push((service, wrong));
        }
    }
    *told = now;
    news
}

/// The condition of a MeshRollout over these Services.
pub(super) fn fact(namespace: &Namespace, services: &[String]) -> Option<Fact> {
    let mut wrong = namespace.services.iter().filter_map(|service| {
        let wrong = service.wrong_export_to.as_ref()?;
        let name = &service.meta.name;
        services
            .contains(name)
            .then(|| format!("Service {name}: {wrong}"))
    });
    Some(Fact {
        kind: "WrongExportTo",
        status: "True",
        reason: "NotReadable",
        message: wrong.next()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn service(export_to: Option<&str>) -> ServiceFacts {
        let annotations: Value = match export_to {
            Some(value) => json!({"networking.istio.io/exportTo": value}),
            None => json!({}),
        };
        let object = json!({"metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "annotations": annotations,
        }});
        ServiceFacts::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_wrong_value_is_told_once_and_again_when_another_takes_its_place() {
        let (world, mut told) = (World::default(), Told::new());
        let mut look = |export_to| {
            world.services.put(service(export_to));
            let news = news(&world, &mut told);
            news.into_iter()
                .map(|(service, wrong)| format!("{}: {wrong}", service.meta.name))
                .collect::<Vec<_>>()
        };
        assert!(look(None).is_empty() && look(Some("a,.")).is_empty());
        let first = look(Some("team_a"));
        assert!(
            first[0].starts_with("web: ") && first[0].contains("`team_a`"),
            "{first:?}"
        );
        assert!(look(Some("team_a")).is_empty());
        assert_eq!(look(Some("team_b")).len(), 1);
        assert!(look(Some("b")).is_empty());
        assert_eq!(look(Some("team_b")).len(), 1, "it was right in between");
    }

    #[test]
    fn the_rollout_that_splits_such_a_service_says_so_and_no_other() {
        let namespace = Namespace {
            services: vec![Arc::new(service(Some("team_a")))],
            ..Namespace::default()
        };
        let told = fact(&namespace, &["web".to_owned()]).unwrap();
        assert_eq!((told.kind, told.status), ("WrongExportTo", "True"));
        assert!(told.message.starts_with("Service web: ") && told.message.contains("`team_a`"));
        assert_eq!(fact(&namespace, &["api".to_owned()]), None);
    }
}
