//! How many proxies route by a split.

use crate::Table;
use crate::life::{Life, Seat};
use crate::table::signed;

/// A proxy that was silent for longer is away.
pub const AWAY_AFTER_MS: i64 = 10_000;
/// Most laggards that are named.
const MAX_LAGGARDS: usize = 10;

/// The proxies that hold a service in their view, by how they stand to a fence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// All of them: applied, behind and away.
    pub expected: u32,
    /// In contact, and routing by the fence or a later one.
    pub applied: u32,
    /// In contact, and not yet.
    pub behind: u32,
    /// Not heard of for [`AWAY_AFTER_MS`].
    pub away: u32,
    /// At most 10 of those that are behind or away, as `NAMESPACE/POD` and why.
    pub laggards: Vec<String>,
    /// What one of them refuses that the service needs.
    pub refusal: Option<String>,
}

impl Table {
    /// How the proxies stand to `fence` of `service` (`NAMESPACE/NAME`).
    #[must_use]
    pub fn standing(&self, service: &str, fence: i64, now_ms: u64) -> Standing {
        let now = signed(now_ms);
        let needle = fqdn(service);
        let mut standing = Standing::default();
        let mut absent = Vec::new();
        for (life, seat) in self.current(now) {
            if !seat.views.contains(service) && !seat.applied.contains_key(service) {
                continue;
            }
            standing.expected += 1;
            let who = || format!("{}/{}", life.identity.namespace, life.identity.pod);
            let silent = now.saturating_sub(seat.contact_ms);
            if silent > AWAY_AFTER_MS {
                standing.away += 1;
                if absent.len() < MAX_LAGGARDS {
                    absent.push(format!("{}: not heard of for {} s", who(), silent / 1000));
                }
                continue;
            }
            let refusal = refusal(seat, &needle);
            if standing.refusal.is_none() {
                standing.refusal = refusal.as_ref().map(|what| format!("{} {what}", who()));
            }
            let has = seat.applied.get(service);
            if has.is_some_and(|&has| has >= fence) {
                standing.applied += 1;
                continue;
            }
            standing.behind += 1;
            if standing.laggards.len() < MAX_LAGGARDS {
                let why = refusal.unwrap_or_else(|| match has {
                    Some(has) => format!("routes by fence {has}"),
                    None => "has no route of it yet".to_owned(),
                });
                standing.laggards.push(format!("{}: {why}", who()));
            }
        }
        let room = MAX_LAGGARDS - standing.laggards.len();
        standing.laggards.extend(absent.into_iter().take(room));
        standing
    }

    /// One life a pod that is not gone: the youngest that is in contact, else the youngest.
    /// A process that was replaced is not waited for.
    fn current(&self, now: i64) -> impl Iterator<Item = (&Life, &Seat)> {
        let mut lives = self.lives.iter().peekable();
        std::iter::from_fn(move || {
            let ((pod_uid, _), first) = lives.next()?;
            let mut best = first;
            while let Some((_, life)) = lives.next_if(|((uid, _), _)| uid == pod_uid) {
                let in_contact =
                    |life: &Life| now.saturating_sub(life.contact_ms()) <= AWAY_AFTER_MS;
                if in_contact(life) || !in_contact(best) {
                    best = life;
                }
            }
            Some(best)
        })
        .filter(|life| !life.is_gone())
        .filter_map(|life| Some((life, life.latest()?)))
    }
}

/// `NAME.NAMESPACE.svc.`: part of the names of all resources of a service.
fn fqdn(service: &str) -> String {
    let (namespace, name) = service.split_once('/').unwrap_or(("", service));
    format!("{name}.{namespace}.svc.")
}

/// The first refused resource whose name is about the service.
fn refusal(seat: &Seat, needle: &str) -> Option<String> {
    let is_about = |name: &str| {
        name.match_indices(needle).any(|(at, _)| {
            let before = name[..at].chars().next_back();
            before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-' && c != '.')
        })
    };
    let rejection = seat.rejections.iter().find(|r| is_about(&r.name))?;
    Some(format!("refuses {}: {}", rejection.name, rejection.reason))
}
