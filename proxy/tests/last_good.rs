//! A proxy without its control plane: what it starts with, and what it keeps for that.
#![allow(clippy::unwrap_used)]

mod support;

use std::{net::SocketAddr, path::PathBuf};

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use sluice_evidence::v1::{AppliedSplit, ProxyReport};
use sluice_proxy::{
    config::Lookup,
    last_good::{self, KEPT, Saved, now_ms},
    lease::TERM,
};
use sluice_xds::{Kind, unpack};
use support::{
    CANDIDATE, LISTENER, Proxy, ROUTE, STABLE, Split,
    client::{Client, get},
    local,
    plane::{Plane, Talk},
    server, until, xds,
};
use tempfile::TempDir;

/// A control plane, and the file of the proxy that comes and goes.
struct World {
    plane: Plane,
    folder: TempDir,
}

impl World {
    fn with(split: &Split) -> Self {
        let plane = Plane::start();
        plane.set(split.resources());
        let folder = TempDir::new().unwrap();
        Self { plane, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("last-good")
    }

    fn start(&self) -> (Proxy, Talk) {
        let proxy = Proxy::new();
        let talk = self.plane.connect(&proxy.shared, Some(self.path()));
        (proxy, talk)
    }

    /// A proxy that has used the Service and ended; the control plane has ended before it.
    async fn served_and_away(split: &Split) -> Self {
        let mut world = Self::with(split);
        let (proxy, talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.status, 200);
        world.plane.stop();
        talk.leave().await;
        world
    }

    fn saved(&self) -> Option<Saved> {
        last_good::read(&self.path()).unwrap()
    }

    /// Changes what the former process kept.
    fn edit(&self, edit: impl FnOnce(&mut Saved)) {
        let mut saved = self.saved().unwrap();
        edit(&mut saved);
        last_good::write(&self.path(), &saved).unwrap();
    }

    /// Waits until all of the Service is kept, as of this split.
    async fn keeps(&self, split: &Split) {
        let wanted = split.resources();
        let route: RouteConfiguration = unpack(&wanted[1].2).unwrap();
        until("all of it is kept", || {
            let kept = self.saved().unwrap_or_default().resources;
            let mut bodies = kept.iter().filter_map(|one| one.resource.as_ref());
            kept.len() == wanted.len()
                && bodies
                    .any(|body| unpack(body).is_ok_and(|body: RouteConfiguration| body == route))
        })
        .await;
    }
}

fn leased(stable: SocketAddr, candidate: SocketAddr) -> Split {
    Split {
        stable: vec![stable],
        candidate: vec![candidate],
        weight: 50,
        leased: true,
        ..Split::default()
    }
}

fn to(stable: SocketAddr) -> Split {
    Split {
        stable: vec![stable],
        ..Split::default()
    }
}

fn applies(fence: i64) -> impl Fn(&ProxyReport) -> bool {
    let applied = AppliedSplit {
        service: "shop/cart".to_owned(),
        fence,
    };
    move |report| report.applied.contains(&applied)
}

fn weight(proxy: &Proxy) -> Option<u32> {
    match proxy.shared.snapshot.load().lookup(LISTENER) {
        Lookup::Found(listener) => Some(listener.http()?.branches[1].weight),
        Lookup::Absent | Lookup::Unknown => None,
    }
}

#[tokio::test]
async fn a_proxy_that_restarts_while_its_control_plane_is_away_serves_what_it_served() {
    local(async {
        let server = server::named("v1").await;
        let mut world = World::served_and_away(&to(server.address)).await;
        let (proxy, _talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        let text = proxy.shared.metrics.text();
        let written = world.saved().unwrap().written_ms / 1000;
        assert!(text.contains(&format!("sluice_last_good_timestamp_seconds {written}\n")));

        world.plane.set(
            Split {
                fence: 2,
                ..to(server.address)
            }
            .resources(),
        );
        world.plane.restart();
        world.plane.report(applies(2)).await;
        assert_eq!(proxy.shared.last_good(), None);
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_is_killed_serves_what_it_served_a_moment_before() {
    local(async {
        let (old, new) = (server::named("v1").await, server::named("v2").await);
        let mut world = World::with(&to(old.address));
        let (proxy, talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        let second = Split {
            weight: 100,
            fence: 2,
            candidate: vec![new.address],
            ..to(old.address)
        };
        world.plane.set(second.resources());
        world.keeps(&second).await;
        world.plane.stop();
        talk.die().await;
        let (proxy, _talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v2");
    })
    .await;
}

#[tokio::test]
async fn a_restarted_proxy_is_another_process_and_is_sent_only_what_is_different() {
    local(async {
        let server = server::named("v1").await;
        let mut world = World::served_and_away(&to(server.address)).await;
        world.plane.restart();
        let before = world.plane.sent();
        let (proxy, _talk) = world.start();
        let report = world.plane.report(applies(1)).await;
        // The last reports of the former process may still be on their way.
        let second = Split {
            fence: 2,
            ..to(server.address)
        };
        let mut route = second.resources();
        route.retain(|(kind, ..)| *kind == Kind::Route);
        world.plane.set(route);
        let later = world.plane.report(applies(2)).await;
        assert!(later.process_start_ms >= report.process_start_ms);
        assert_eq!(later.process_start_ms, proxy.shared.started_ms);
        assert_eq!(world.plane.sent() - before, 1, "the route alone");
    })
    .await;
}

#[tokio::test]
async fn after_a_minute_without_contact_a_restarted_proxy_sends_nothing_to_an_unpromoted_arm() {
    local(async {
        let (stable, candidate) = (server::named("v1").await, server::named("v2").await);
        let world = World::served_and_away(&leased(stable.address, candidate.address)).await;
        let second = 1000;
        let minute = u64::try_from(TERM.as_millis()).unwrap();
        let answers = async |silent_ms: i64| {
            let contact = i64::try_from(now_ms()).unwrap() - silent_ms;
            world.edit(|saved| saved.contact_ms = u64::try_from(contact).unwrap());
            let (proxy, talk) = world.start();
            candidate.requests.set(0);
            let mut client = Client::http1(proxy.gateway()).await;
            for _ in 0..100 {
                assert_eq!(client.get("/").await.status, 200);
            }
            talk.die().await;
            candidate.requests.get()
        };
        let minute = i64::try_from(minute).unwrap();
        let half = answers(minute / 2).await;
        assert!((20..=80).contains(&half), "{half} of 100 while it lasts");
        assert_eq!(answers(minute).await, 0);
        assert_eq!(
            answers(-3600 * second).await,
            0,
            "a clock that was set back"
        );

        let (proxy, talk) = world.start();
        talk.leave().await;
        assert!(proxy.shared.lease.lapsed());
        let saved = world.saved().unwrap();
        assert!(
            saved.written_ms - saved.contact_ms >= TERM.as_millis() as u64,
            "a restart is no contact: {saved:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_name_unused_for_a_day_is_not_in_the_file() {
    local(async {
        let server = server::named("v1").await;
        let world = World::served_and_away(&to(server.address)).await;
        let day = u64::try_from(KEPT.as_millis()).unwrap();
        let kept = async |ago_ms: u64| {
            world.edit(|saved| saved.destinations[0].used_ms = now_ms() - ago_ms);
            let (proxy, talk) = world.start();
            talk.leave().await;
            let saved = world.saved().unwrap();
            (
                weight(&proxy).is_some(),
                saved.destinations.len(),
                saved.resources.len(),
            )
        };
        assert_eq!(kept(day - 60_000).await, (true, 1, 6));
        assert_eq!(kept(day + 1000).await, (false, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_used_without_a_change_of_configuration_is_kept_as_used() {
    local(async {
        let server = server::named("v1").await;
        let world = World::served_and_away(&to(server.address)).await;
        let used_ms = now_ms() - 1_000_000;
        world.edit(|saved| saved.destinations[0].used_ms = used_ms);
        let (_, talk) = world.start();
        talk.leave().await;
        assert_eq!(world.saved().unwrap().destinations[0].used_ms, used_ms);
        let (proxy, talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.status, 200);
        talk.leave().await;
        assert!(world.saved().unwrap().destinations[0].used_ms > used_ms);
    })
    .await;
}

#[tokio::test]
async fn a_damaged_file_is_not_used_and_a_good_one_takes_its_place() {
    local(async {
        let server = server::named("v1").await;
        let mut world = World::served_and_away(&to(server.address)).await;
        let mut bytes = std::fs::read(world.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(world.path(), bytes).unwrap();
        let (proxy, talk) = world.start();
        assert_eq!(weight(&proxy), None);
        assert_eq!(proxy.shared.last_good(), None);
        world.plane.restart();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        talk.leave().await;
        world.keeps(&to(server.address)).await;
    })
    .await;
}

#[tokio::test]
async fn what_never_became_complete_is_not_kept_in_place_of_what_serves() {
    local(async {
        let server = server::named("v1").await;
        let mut world = World::with(&to(server.address));
        let (proxy, talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        world.keeps(&to(server.address)).await;
        let other = "outbound|80|candidate|other.shop.svc.cluster.local";
        let facts = Split {
            fence: 2,
            ..Split::default()
        }
        .facts();
        let route = xds::route(&[(STABLE, 1), (other, 99)], Some(&facts));
        world.plane.set(vec![(Kind::Route, ROUTE, route)]);
        until("the route waits", || {
            !proxy.shared.status.load().warming.is_empty()
        })
        .await;
        world.plane.stop();
        talk.leave().await;
        let (proxy, _talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
    })
    .await;
}

#[tokio::test]
async fn a_file_that_has_vanished_is_made_whole_again() {
    local(async {
        let server = server::named("v1").await;
        let world = World::with(&to(server.address));
        let (proxy, _talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        world.keeps(&to(server.address)).await;
        std::fs::remove_file(world.path()).unwrap();
        let second = Split {
            fence: 2,
            ..to(server.address)
        };
        world.plane.set(second.resources());
        world.keeps(&second).await;
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_cannot_write_its_file_serves_on_and_counts() {
    local(async {
        let server = server::named("v1").await;
        let world = World::with(&to(server.address));
        std::fs::create_dir(world.path()).unwrap();
        let (proxy, _talk) = world.start();
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        let failed = &proxy.shared.metrics.failed_saves;
        until("a write fails", || failed.get() > 0).await;
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
    })
    .await;
}

#[tokio::test]
async fn neither_the_token_nor_the_root_is_in_the_file() {
    local(async {
        let server = server::named("v1").await;
        let world = World::served_and_away(&to(server.address)).await;
        let bytes = std::fs::read(world.path()).unwrap();
        let has = |text: &str| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert!(has(CANDIDATE), "what is sought would be found");
        for secret in ["let-me-in", "BEGIN CERTIFICATE"] {
            assert!(!has(secret), "{secret}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_comes_in_parts_is_kept_whole_without_asking_twice() {
    local(async {
        let server = server::named("v1").await;
        let split = to(server.address);
        let mut world = World::with(&split);
        let mut parts = split.resources();
        let last = parts.pop().unwrap();
        world.plane.clear();
        world.plane.set(parts);
        let (proxy, talk) = world.start();
        proxy.shared.demand(LISTENER);
        let saves = &proxy.shared.metrics.saves;
        until("a write without it", || saves.get() > 0).await;
        assert!(world.saved().unwrap().destinations.is_empty());
        world.plane.set(vec![last]);
        assert_eq!(get(proxy.gateway()).await.text(), "v1");
        world.plane.stop();
        talk.leave().await;
        world.keeps(&split).await;
        assert_eq!(world.plane.sent(), split.resources().len());
    })
    .await;
}

#[tokio::test]
async fn lapsed_weights_come_back_only_when_the_control_plane_has_said_what_they_are_now() {
    local(async {
        let (stable, candidate) = (server::named("v1").await, server::named("v2").await);
        let split = leased(stable.address, candidate.address);
        let mut world = World::served_and_away(&split).await;
        world.edit(|saved| saved.contact_ms -= 2 * TERM.as_millis() as u64);
        world.plane.mute(true);
        world.plane.restart();
        let (proxy, _talk) = world.start();
        let lease = &proxy.shared.lease;
        let heard = || lease.silence() < TERM;
        until("evidence is taken", heard).await;
        assert!(lease.lapsed());
        candidate.requests.set(0);
        let mut client = Client::http1(proxy.gateway()).await;
        for _ in 0..50 {
            assert_eq!(client.get("/").await.text(), "v1");
        }
        world.plane.mute(false);
        until("the lease holds again", || !lease.lapsed()).await;
        until("the candidate has its share", || {
            candidate.requests.get() > 0 || {
                let address = proxy.gateway();
                tokio::task::spawn_local(async move { get(address).await });
                false
            }
        })
        .await;
    })
    .await;
}
