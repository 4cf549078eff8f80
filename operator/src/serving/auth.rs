//! Who calls: a projected token of our own audience, checked by the apiserver.

use std::{collections::HashMap, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sluice_evidence::Identity;
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Status, metadata::MetadataMap};

/// Audience of the tokens; one for another audience proves nothing here.
const AUDIENCE: &str = "sluice.dev";
/// How long an answer of the apiserver is taken without asking again.
const FRESH: Duration = Duration::from_secs(60);
/// How long a token that was refused is refused without asking again.
const REFUSED: Duration = Duration::from_secs(5);
/// Most tokens that are remembered.
const MAX_REMEMBERED: usize = 20_000;
/// Longest token that is looked at, in bytes; the apiserver's have about 1,200.
const MAX_TOKEN: usize = 16 * 1024;
/// Most questions to the apiserver at one time.
const MAX_REVIEWS: usize = 32;
/// The longest that one question may take.
const REVIEW: Duration = Duration::from_secs(5);

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token, or one that proves nothing.
    #[error("{0}")]
    Refused(String),
    /// It cannot be told.
    #[error("the token cannot be checked, because the apiserver does not answer: {0}; try again")]
    Unavailable(String),
}

/// Checks tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Who the bearer of the token is.
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>>;
}

/// Checks the token of a request's metadata.
///
/// # Errors
/// UNAUTHENTICATED, or UNAVAILABLE when it cannot be told, with the reason.
pub(super) async fn prove(
    authenticator: &dyn Authenticator,
    metadata: &MetadataMap,
) -> Result<Identity, Status> {
    let token = metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| {
            Status::unauthenticated(format!(
                "send `authorization: Bearer TOKEN` with a projected token of audience {AUDIENCE}"
            ))
        })?;
    authenticator
        .check(token.trim())
        .await
        .map_err(|error| match error {
            AuthError::Refused(_) => Status::unauthenticated(error.to_string()),
            AuthError::Unavailable(_) => Status::unavailable(error.to_string()),
        })
}

/// Asks the apiserver by TokenReview, and remembers its answers.
pub struct TokenReviewer<A = ApiReviews> {
    reviews: A,
    asking: Semaphore,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
}

#[derive(Clone)]
struct Remembered {
    answer: Result<Identity, String>,
    asked: Instant,
    /// When the token itself ends.
    expires: Instant,
}

/// Where tokens are reviewed.
pub trait Reviews: Send + Sync + 'static {
    /// The status of a TokenReview, or why there is none.
    fn review(&self, token: &str) -> BoxFuture<'_, Result<TokenReviewStatus, String>>;
}

/// The apiserver.
pub struct ApiReviews(Client);

impl TokenReviewer {
    /// Asks this apiserver.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::asking(ApiReviews(client))
    }
}

impl<A: Reviews> TokenReviewer<A> {
    fn asking(reviews: A) -> Self {
        Self {
            reviews,
            asking: Semaphore::new(MAX_REVIEWS),
            remembered: Mutex::default(),
        }
    }

    async fn ask(&self, token: &str) -> Result<Identity, AuthError> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(AuthError::Refused("this is no token".to_owned()));
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.remembered.lock().get(&key).cloned();
        if let Some(known) = &known
            && known.is_fresh()
        {
            return known.answer.clone().map_err(AuthError::Refused);
        }
        let reviewed = match self.asking.acquire().await {
            Ok(_permit) => tokio::time::timeout(REVIEW, self.reviews.review(token))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {REVIEW:?}"))),
            Err(_) => Err("stopping".to_owned()),
        };
        let status = match (reviewed, known) {
            (Ok(status), _) => status,
            // With the apiserver away, what it said of this very token holds until its end.
            (
                Err(_),
                Some(Remembered {
                    answer: Ok(identity),
                    expires,
                    ..
                }),
            ) if Instant::now() < expires => {
                return Ok(identity);
            }
            (Err(why), _) => return Err(AuthError::Unavailable(why)),
        };
        let answer = identity(status);
        self.remember(key, token, answer.clone());
        answer.map_err(AuthError::Refused)
    }

    fn remember(&self, key: [u8; 32], token: &str, answer: Result<Identity, String>) {
        let now = Instant::now();
        let expires = now + life(token, Timestamp::now().as_second());
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, one| one.is_fresh());
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(
                key,
                Remembered {
                    answer,
                    asked: now,
                    expires,
                },
            );
        }
    }
}

impl<A: Reviews> Authenticator for TokenReviewer<A> {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        self.ask(token).boxed()
    }
}

impl Remembered {
    fn is_fresh(&self) -> bool {
        let now = Instant::now();
        let keep = if self.answer.is_ok() { FRESH } else { REFUSED };
        now < self.asked + keep && (self.answer.is_err() || now < self.expires)
    }
}

impl Reviews for ApiReviews {
    fn review(&self, token: &str) -> BoxFuture<'_, Result<TokenReviewStatus, String>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        async move {
            let api = Api::<TokenReview>::all(self.0.clone());
            let review = api.create(&PostParams::default(), &review).await;
            let review = review.map_err(|error| error.to_string())?;
            review
                .status
                .ok_or_else(|| "the TokenReview came back without a status".to_owned())
        }
        .boxed()
    }
}

/// The identity that the apiserver vouches for.
fn identity(status: TokenReviewStatus) -> Result<Identity, String> {
    if status.authenticated != Some(true) {
        let why = status.error.unwrap_or_default();
        return Err(format!("the apiserver does not accept the token: {why}"));
    }
    // An apiserver that does not know audiences would answer without them.
    if !status
        .audiences
        .iter()
        .flatten()
        .any(|audience| audience == AUDIENCE)
    {
        return Err(format!("the token is not for audience {AUDIENCE}"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|name| name.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err(format!("{name} is no service account"));
    };
    let extra = |key: &str| {
        let values = user
            .extra
            .as_ref()?
            .get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().filter(|value| !value.is_empty()).cloned()
    };
    let (Some(pod), Some(pod_uid)) = (extra("pod-name"), extra("pod-uid")) else {
        return Err("the token is not bound to a pod: use a projected one".to_owned());
    };
    Ok(Identity {
        pod_uid,
        namespace: namespace.to_owned(),
        pod,
        service_account: account.to_owned(),
    })
}

/// How long a token that the apiserver has accepted is still valid by its own `exp` claim; an
/// unreadable one counts for as long as an answer is fresh.
fn life(token: &str, now: i64) -> Duration {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = token.split('.').nth(1).and_then(|part| {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Claims>(&json).ok()
    });
    let Some(Claims { exp }) = claims else {
        return FRESH;
    };
    // A day at most: also what the apiserver issues when told nothing.
    let seconds = exp.saturating_sub(now).clamp(0, 86_400);
    Duration::from_secs(seconds.unsigned_abs())
}

#[cfg(test)]
mod tests;
