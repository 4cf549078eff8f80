//! Whole rollouts as tools see them: the statuses that the controller renders in virtual time, in
//! `golden/statuses.jsonl`, each with what is true at that moment.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    place::Place,
    tools::{verdicts, workspace},
};

/// A status, and what should be made of it.
#[derive(Deserialize)]
struct Moment {
    story: String,
    second: i64,
    kstatus: String,
    argo: String,
    object: Value,
}

fn moments() -> Vec<Moment> {
    let file = workspace().join("e2e/tests/golden/statuses.jsonl");
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Current only once git's revision serves, Failed in the very status that holds the verdict,
/// InProgress while the latest spec is not seen: that is how the histories were written.
#[test]
fn flux_and_argo_cd_say_what_is_true_at_every_moment_of_every_rollout() {
    let moments = moments();
    let objects: Vec<Value> = moments.iter().map(|m| m.object.clone()).collect();
    let answers = verdicts("histories", &objects);
    let mut wrong = Vec::new();
    for (moment, answer) in moments.iter().zip(&answers) {
        let said = (&answer.kstatus.status, &answer.argo.status);
        if said != (&moment.kstatus, &moment.argo) {
            wrong.push(format!(
                "{}, second {}: {said:?} instead of {:?}: {}",
                moment.story,
                moment.second,
                (&moment.kstatus, &moment.argo),
                moment.object["status"]["conditions"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A reader who only knows a word must learn from the message why, and what to do.
#[test]
fn a_failed_rollout_says_why_to_both() {
    let failed: Vec<Moment> = moments()
        .into_iter()
        .filter(|m| m.kstatus == "Failed")
        .collect();
    let objects: Vec<Value> = failed.iter().map(|m| m.object.clone()).collect();
    for answer in verdicts("failed", &objects) {
        assert_eq!(answer.kstatus.message, answer.argo.message);
        let says_why = [
            "failed 300 of 1000 requests",
            "aborted by command",
            "does not exist",
        ];
        let message = &answer.argo.message;
        assert!(
            says_why.iter().any(|why| message.contains(why)),
            "{message}"
        );
    }
}

#[test]
fn the_histories_hold_every_verdict_and_every_way_that_a_rollout_ends() {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for moment in moments() {
        seen.insert((moment.kstatus.clone(), moment.argo));
        last.insert(moment.story, moment.kstatus);
    }
    let pair = |flux: &str, argo: &str| (flux.to_owned(), argo.to_owned());
    assert_eq!(
        seen,
        BTreeSet::from([
            pair("Current", "Healthy"),
            pair("Failed", "Degraded"),
            pair("InProgress", "Progressing"),
            pair("InProgress", "Suspended"),
            pair("Terminating", "Progressing"),
        ])
    );
    let of = |story: &str| last.get(story).map(String::as_str);
    assert_eq!(of("promoted"), Some("Current"));
    assert_eq!(of("rejected, then reverted"), Some("Current"));
    assert_eq!(of("fixed in the middle"), Some("Current"));
    assert_eq!(
        of("condemned with onFailure Pause, then aborted"),
        Some("Failed")
    );
    assert_eq!(of("deleted in the middle"), Some("Terminating"));
    assert!(last.len() >= 12, "{last:?}");
}

#[tokio::test]
async fn what_the_controller_has_not_seen_yet_is_done_for_nobody() {
    let place = Place::new("gitops-unseen").await;
    let yaml = "
apiVersion: sluice.dev/v1alpha1
kind: MeshRollout
metadata: {name: reviews}
spec:
  workload: {name: reviews}
";
    let object = place.apply(yaml).await.unwrap();
    let answer = &verdicts("unseen", &[serde_json::to_value(object).unwrap()])[0];
    assert_eq!(answer.kstatus.status, "InProgress");
    assert_eq!(answer.argo.status, "Progressing");
}
