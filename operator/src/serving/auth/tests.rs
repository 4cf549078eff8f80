#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;

/// An apiserver that counts questions and can be away.
#[derive(Default)]
struct Fake {
    asked: AtomicUsize,
    away: Mutex<bool>,
}

impl Reviews for Fake {
    fn review(&self, token: &str) -> BoxFuture<'_, Result<TokenReviewStatus, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = match (*self.away.lock(), token.starts_with("bad")) {
            (true, _) => Err("connection refused".to_owned()),
            (_, true) => Ok(status(json!({"authenticated": false, "error": "expired"}))),
            (_, false) => Ok(accepted()),
        };
        futures::future::ready(answer).boxed()
    }
}

fn status(value: serde_json::Value) -> TokenReviewStatus {
    serde_json::from_value(value).unwrap()
}

fn accepted() -> TokenReviewStatus {
    status(json!({
        "authenticated": true,
        "audiences": ["sluice.dev"],
        "user": {
            "username": "system:serviceaccount:bookinfo:reviews",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["reviews-1"],
                "authentication.kubernetes.io/pod-uid": ["uid-1"],
            },
        },
    }))
}

/// A token that ends so many seconds from now.
fn token(seconds: i64) -> String {
    let exp = Timestamp::now().as_second() + seconds;
    format!(
        "e30.{}.sig",
        URL_SAFE_NO_PAD.encode(json!({"exp": exp}).to_string())
    )
}

fn asked(reviewer: &TokenReviewer<Fake>) -> usize {
    reviewer.reviews.asked.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn an_accepted_token_is_asked_about_once_a_minute() {
    let (reviewer, token) = (TokenReviewer::asking(Fake::default()), token(3600));
    for _ in 0..10 {
        let identity = reviewer.ask(&token).await.unwrap();
        assert_eq!(
            (identity.namespace.as_str(), identity.pod.as_str()),
            ("bookinfo", "reviews-1")
        );
        assert_eq!(
            (identity.service_account.as_str(), identity.pod_uid.as_str()),
            ("reviews", "uid-1")
        );
    }
    assert_eq!(asked(&reviewer), 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    reviewer.ask(&token).await.unwrap();
    assert_eq!(asked(&reviewer), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_taken_from_memory_beyond_its_own_end() {
    let (reviewer, token) = (TokenReviewer::asking(Fake::default()), token(10));
    reviewer.ask(&token).await.unwrap();
    tokio::time::advance(Duration::from_secs(11)).await;
    *reviewer.reviews.away.lock() = true;
    assert!(matches!(
        reviewer.ask(&token).await,
        Err(AuthError::Unavailable(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn with_the_apiserver_away_a_known_token_still_counts_and_an_unknown_one_does_not() {
    let (reviewer, token) = (TokenReviewer::asking(Fake::default()), token(3600));
    reviewer.ask(&token).await.unwrap();
    tokio::time::advance(Duration::from_secs(600)).await;
    *reviewer.reviews.away.lock() = true;
    assert!(reviewer.ask(&token).await.is_ok());
    assert!(matches!(
        reviewer.ask("unknown").await,
        Err(AuthError::Unavailable(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_refused_with_the_apiservers_reason_and_asked_about_again_later() {
    let reviewer = TokenReviewer::asking(Fake::default());
    for _ in 0..10 {
        let AuthError::Refused(why) = reviewer.ask("bad").await.unwrap_err() else {
            panic!("must be refused")
        };
        assert!(why.contains("expired"), "{why}");
    }
    assert_eq!(asked(&reviewer), 1);
    tokio::time::advance(REFUSED).await;
    assert!(reviewer.ask("bad").await.is_err());
    assert_eq!(asked(&reviewer), 2);
}

#[test]
fn what_is_no_pods_token_of_our_audience_is_refused() {
    assert!(identity(accepted()).is_ok());
    let mut other = accepted();
    other.audiences = Some(vec!["https://kubernetes.default.svc".into()]);
    assert!(identity(other).unwrap_err().contains("audience"));
    let mut user = accepted();
    user.user.as_mut().unwrap().username = Some("admin".into());
    assert!(identity(user).unwrap_err().contains("service account"));
    let mut unbound = accepted();
    unbound.user.as_mut().unwrap().extra = None;
    assert!(
        identity(unbound)
            .unwrap_err()
            .contains("not bound to a pod")
    );
    assert!(identity(TokenReviewStatus::default()).is_err());
}

#[tokio::test]
async fn a_request_without_a_bearer_token_is_told_what_to_send() {
    let reviewer = TokenReviewer::asking(Fake::default());
    let status = prove(&reviewer, &MetadataMap::new()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("sluice.dev"));
    assert_eq!(asked(&reviewer), 0);
    assert!(reviewer.ask(&"x".repeat(MAX_TOKEN + 1)).await.is_err());
    assert_eq!(asked(&reviewer), 0);
}
