//! Who leads: the holder of the Lease `sluice-controller`.
//!
//! ```text
//!  GET Lease ─▶ Election::judge ─▶ Take | Renew ─▶ PUT (resourceVersion) ─▶ Leadership{until}
//!                              └─▶ Wait
//! ```
//!
//! **Invariants**
//! - A leader counts from the moment it *sent* its last renewal and stops [`MARGIN`] before the
//!   Lease ends; a rival counts from the moment it *saw* that renewal. So two never lead at once,
//!   whatever the wall clocks say.
//! - Every write carries the resourceVersion that was judged.
//! - What a leader does late all the same is refused by fences and resourceVersions.
//! - A leader whose term has lapsed, because the apiserver did not answer, writes nothing. As long
//!   as it has seen no other holder it may still tell proxies to take weight away.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Name of the Lease in the operator's namespace.
pub const NAME: &str = "sluice-controller";
/// Annotation with the leader's relay, `IP:PORT`.
pub const RELAY_ADDRESS: &str = "sluice.dev/relay-address";
/// How long a renewal holds.
pub const DURATION: Duration = Duration::from_secs(6);
/// How often the leader renews.
pub const RENEW: Duration = Duration::from_secs(2);
/// How often anybody else looks.
pub const RETRY: Duration = Duration::from_millis(500);
/// How long before the end of the Lease its holder stops acting.
pub const MARGIN: Duration = Duration::from_secs(1);
/// The longest that one request may take.
const REQUEST: Duration = Duration::from_millis(1500);

/// Whether this process leads; cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

/// An unbroken time of leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Grows with each change of the holder.
    pub number: i32,
    /// When it ends unless it is renewed; on the monotonic clock.
    pub until: Instant,
}

impl Leadership {
    /// The number of the term in force now; none when somebody else leads, or nobody does.
    #[must_use]
    pub fn term(&self) -> Option<i32> {
        let term = (*self.0.borrow())?;
        (Instant::now() < term.until).then_some(term.number)
    }

    /// Whether this process leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.term().is_some()
    }

    /// The number of the term that has ended because it could not be renewed; none while this
    /// process leads, and once it knows that somebody else does, or has given the Lease back.
    #[must_use]
    pub fn lapsed(&self) -> Option<i32> {
        let term = (*self.0.borrow())?;
        (Instant::now() >= term.until).then_some(term.number)
    }

    /// Returns when leadership began, was renewed, lapsed or ended since the last call; never
    /// returns once the elector is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Leads for ever: for tests of what leaders do.
    #[cfg(test)]
    #[must_use]
    pub fn always() -> Self {
        Self::until(Instant::now() + Duration::from_secs(3600 * 24 * 365))
    }

    /// Leads until then, and lapses.
    #[cfg(test)]
    #[must_use]
    pub fn until(until: Instant) -> Self {
        Self(watch::channel(Some(Term { number: 1, until })).1)
    }
}

/// Why a write of the Lease did not happen.
#[derive(Debug)]
enum Refusal {
    /// Somebody wrote in between.
    Conflict,
    /// The apiserver said no, or nothing.
    Failed(String),
}

/// Where the Lease is kept.
trait Store: Send {
    fn get(&mut self) -> impl Future<Output = Result<Option<Lease>, Refusal>> + Send;
    fn put(&mut self, lease: Lease) -> impl Future<Output = Result<Lease, Refusal>> + Send;
}

/// Takes part in the election until it is told to release.
pub struct Elector {
    store: ApiStore,
    candidate: Candidate,
    publish: watch::Sender<Option<Term>>,
}

impl Elector {
    /// An elector for this pod, and what it will say. `relay` is the address at which this
    /// process takes tables when it leads.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: &str, relay: &str) -> (Self, Leadership) {
        let (publish, receiver) = watch::channel(None);
        let elector = Self {
            store: ApiStore(Api::namespaced(client, namespace)),
            candidate: Candidate {
                identity: identity.to_owned(),
                relay: relay.to_owned(),
            },
            publish,
        };
        (elector, Leadership(receiver))
    }

    /// Runs until `release` is cancelled; then gives the Lease back, if it holds it, so that
    /// another takes over within [`RETRY`].
    pub async fn run(mut self, release: CancellationToken) {
        campaign(&mut self.store, &self.candidate, &self.publish, release).await;
    }
}

async fn campaign(
    store: &mut impl Store,
    candidate: &Candidate,
    publish: &watch::Sender<Option<Term>>,
    release: CancellationToken,
) {
    let mut election = Election::default();
    // Whether it was told that the term has lapsed.
    let mut told = false;
    while !release.is_cancelled() {
        let sent = Instant::now();
        let term_end = running(publish).map(|term| term.until);
        let patience = term_end.map_or(sent + REQUEST, |end| end.min(sent + REQUEST));
        let attempt = tokio::time::timeout_at(patience, round(store, candidate, &mut election));
        let outcome = attempt.await.unwrap_or_else(|_| {
            Err(Refusal::Failed(
                "the apiserver did not answer in time".to_owned(),
            ))
        });
        let mut wake = sent + RETRY;
        match outcome {
            Ok(Some(number)) => {
                announce(
                    publish,
                    Some(Term {
                        number,
                        until: sent + DURATION - MARGIN,
                    }),
                );
                wake = sent + RENEW;
                if std::mem::take(&mut told) {
                    info!(
                        term = number,
                        "the Lease {NAME} is renewed: this process leads again"
                    );
                }
            }
            Ok(None) => announce(publish, None),
            Err(Refusal::Conflict) => {}
            Err(Refusal::Failed(error)) => {
                warn!(error, "Lease {NAME} could not be read or renewed");
            }
        }
        let term = publish.borrow().filter(|_| !told);
        if let Some(term) = term {
            wake = wake.min(term.until);
        }
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            () = release.cancelled() => {}
        }
        // A term that ended by the clock is told at once, not with the next answer.
        if term.is_some_and(|term| Instant::now() >= term.until) {
            warn!("the Lease {NAME} could not be renewed: nothing is written until it is");
            told = true;
            publish.send_modify(|_| ());
        }
    }
    if publish.borrow().is_some() {
        announce(publish, None);
        resign(store, candidate).await;
    }
}

/// One look, and one write where it is due. The number of the term when the Lease is ours.
async fn round(
    store: &mut impl Store,
    candidate: &Candidate,
    election: &mut Election,
) -> Result<Option<i32>, Refusal> {
    let lease = store.get().await?;
    let step = election.judge(lease.as_ref(), &candidate.identity, Instant::now());
    if step == Step::Wait {
        return Ok(None);
    }
    let written = store.put(candidate.claim(lease, Timestamp::now())).await?;
    Ok(Some(transitions(&written)))
}

async fn resign(store: &mut impl Store, candidate: &Candidate) {
    let released = tokio::time::timeout(REQUEST, async {
        let Some(lease) = store.get().await? else {
            return Ok(());
        };
        if holder(&lease) != candidate.identity {
            return Ok(());
        }
        store
            .put(candidate.resignation(lease, Timestamp::now()))
            .await
            .map(|_| ())
    });
    match released.await {
        Ok(Ok(())) => info!("Lease {NAME} released"),
        Ok(Err(_)) | Err(_) => warn!("Lease {NAME} could not be released; it ends by itself"),
    }
}

/// The term in force.
fn running(publish: &watch::Sender<Option<Term>>) -> Option<Term> {
    (*publish.borrow()).filter(|term| Instant::now() < term.until)
}

fn announce(publish: &watch::Sender<Option<Term>>, next: Option<Term>) {
    let before = publish.send_replace(next);
    match (before.map(|term| term.number), next.map(|term| term.number)) {
        (None, Some(number)) => info!(term = number, "this process leads"),
        (Some(number), None) => info!(term = number, "this process does not lead any more"),
        _ => {}
    }
}

/// What one look at the Lease says to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Wait,
}

/// What is remembered between looks: the rival's last sign of life.
#[derive(Debug, Default)]
struct Election {
    rival: Option<(String, Instant)>,
}

impl Election {
    fn judge(&mut self, lease: Option<&Lease>, identity: &str, now: Instant) -> Step {
        let Some(lease) = lease else {
            return Step::Take;
        };
        let holder = holder(lease);
        if holder == identity {
            self.rival = None;
            return Step::Renew;
        }
        if holder.is_empty() {
            return Step::Take;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let seen = match self.rival.take() {
            Some((known, seen)) if known == version => seen,
            _ => now,
        };
        self.rival = Some((version, seen));
        if now.duration_since(seen) >= duration(lease) {
            Step::Take
        } else {
            Step::Wait
        }
    }
}

/// This process, as it stands in the Lease.
struct Candidate {
    identity: String,
    relay: String,
}

impl Candidate {
    /// The Lease as this process writes it to take or renew it.
    fn claim(&self, lease: Option<Lease>, now: Timestamp) -> Lease {
        let mut lease = lease.unwrap_or_default();
        lease.metadata.name = Some(NAME.to_owned());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(RELAY_ADDRESS.to_owned(), self.relay.clone());
        let ours = holder(&lease) == self.identity;
        let number = transitions(&lease);
        let spec = lease.spec.get_or_insert_default();
        if !ours {
            spec.acquire_time = Some(MicroTime(now));
            spec.lease_transitions = Some(number.saturating_add(1));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(seconds(DURATION));
        spec.renew_time = Some(MicroTime(now));
        lease
    }

    /// The Lease as this process gives it back.
    fn resignation(&self, mut lease: Lease, now: Timestamp) -> Lease {
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.remove(RELAY_ADDRESS);
        }
        let number = transitions(&lease);
        lease.spec = Some(LeaseSpec {
            lease_duration_seconds: Some(1),
            lease_transitions: Some(number),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        });
        lease
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn transitions(lease: &Lease) -> i32 {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or_default()
}

fn duration(lease: &Lease) -> Duration {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds);
    seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs)
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// The Lease in the cluster.
struct ApiStore(Api<Lease>);

impl Store for ApiStore {
    async fn get(&mut self) -> Result<Option<Lease>, Refusal> {
        self.0.get_opt(NAME).await.map_err(refusal)
    }

    async fn put(&mut self, lease: Lease) -> Result<Lease, Refusal> {
        let params = PostParams::default();
        let written = if lease.metadata.resource_version.is_some() {
            self.0.replace(NAME, &params, &lease).await
        } else {
            self.0.create(&params, &lease).await
        };
        written.map_err(refusal)
    }
}

fn refusal(error: kube::Error) -> Refusal {
    match error {
        kube::Error::Api(status) if status.code == 409 => Refusal::Conflict,
        other => Refusal::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
