//! What the operator asks of the apiserver, counted in its audit log.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    audit::Event,
    bench::{Row, median, most, sorted},
};

/// How many calls, by what is called.
type Counts = BTreeMap<String, usize>;

/// Steps of a rollout where the MeshRollout says nothing.
pub const STEPS: usize = 5;
/// Writes of the split after the last step: the promotion, and what is stable then.
const AFTER_THE_STEPS: usize = 2;

/// Calls of Sluice's accounts in so many minutes in which nothing was asked of it. Renewals of
/// the Lease, and watches that end and begin anew, are told apart.
#[must_use]
pub fn idle(events: &[Event], minutes: f64) -> Row {
    let (mut calls, mut leases, mut watches) = (Counts::new(), 0, 0);
    for event in events.iter().filter(|event| event.is_ours()) {
        if event.what == "leases" {
            leases += 1;
        } else if event.verb == "watch" {
            watches += 1;
        } else {
            let account = event.who.rsplit(':').next().unwrap_or_default();
            let call = format!("{account}: {} {}", event.verb, event.what);
            *calls.entry(call).or_default() += 1;
        }
    }
    let all: usize = calls.values().sum();
    let per_minute = |count: usize| count as f64 / minutes;
    Row::of(per_minute(all), "calls/min", 1)
        .against(0.0)
        .with(json!({
            "minutes": minutes, "calls": calls,
            "left out: lease calls a minute": per_minute(leases),
            "left out: watches begun anew, a minute": per_minute(watches),
        }))
}

/// Writes of Sluice's accounts for each step of the rollouts in these namespaces, one in each;
/// `goal` is the most that it may be.
#[must_use]
pub fn steps(events: &[Event], namespaces: &[String], goal: f64) -> Row {
    let mut steps = Vec::new();
    let (mut before, mut after, mut unread) = (Counts::new(), Counts::new(), 0);
    for namespace in namespaces {
        let writes = events.iter();
        let writes = writes.filter(|e| e.is_ours() && e.is_write() && e.namespace == *namespace);
        let mut writes: Vec<&Event> = writes.collect();
        writes.sort_by_key(|event| event.at);
        let Some(parts) = parts(&writes) else {
            unread += 1;
            continue;
        };
        count(parts[0], &mut before);
        count(parts[STEPS + 1], &mut after);
        steps.extend(parts[1..=STEPS].iter().map(|part| part.to_vec()));
    }
    let sizes = sorted(steps.iter().map(|step| step.len() as f64).collect());
    let mut by_object = Counts::new();
    steps.iter().for_each(|step| count(step, &mut by_object));
    let rollouts = namespaces.len() - unread;
    let each = |counts: &Counts, of: usize| -> BTreeMap<String, Value> {
        let share = |count: usize| (100.0 * count as f64 / of.max(1) as f64).round() / 100.0;
        counts
            .iter()
            .map(|(what, n)| (what.clone(), json!(share(*n))))
            .collect()
    };
    Row::of(median(&sizes), "writes", steps.len())
        .against(goal)
        .with(json!({
            "max": most(&sizes),
            "a step, by object": each(&by_object, steps.len()),
            "a rollout, before its first step": each(&before, rollouts),
            "a rollout, after its last step": each(&after, rollouts),
            "rollouts whose steps could not be told apart": unread,
        }))
}

/// The writes of one rollout: before its first step, each step, after its last. A step begins
/// with the write of its weight.
fn parts<'w, 'e>(writes: &'w [&'e Event]) -> Option<Vec<&'w [&'e Event]>> {
    let of_split = |(_, event): &(usize, &&Event)| event.what == "trafficsplits";
    let weights: Vec<usize> = writes
        .iter()
        .enumerate()
        .filter(of_split)
        .map(|(at, _)| at)
        .collect();
    let first = weights.len().checked_sub(STEPS + AFTER_THE_STEPS)?;
    let cuts = &weights[first..=first + STEPS];
    let mut parts = vec![&writes[..cuts[0]]];
    parts.extend(cuts.windows(2).map(|pair| &writes[pair[0]..pair[1]]));
    parts.push(&writes[cuts[STEPS]..]);
    Some(parts)
}

fn count(writes: &[&Event], counts: &mut Counts) {
    for write in writes {
        *counts.entry(write.what.clone()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn event(verb: &str, what: &str, second: i64) -> Event {
        Event {
            who: "system:serviceaccount:sluice-system:sluice-controller".to_owned(),
            verb: verb.to_owned(),
            what: what.to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            at: Timestamp::from_second(second).unwrap_or_default(),
            is_dry_run: false,
            code: 200,
        }
    }

    #[test]
    fn leases_and_watches_are_no_idle_calls() {
        let mut stranger = event("update", "pods", 0);
        stranger.who = "git".to_owned();
        let events = [
            event("update", "leases", 0),
            event("watch", "pods", 0),
            event("get", "secrets", 0),
            stranger,
        ];
        let row = idle(&events, 2.0);
        assert_eq!(row.ours, 0.5);
    }

    #[test]
    fn writes_are_counted_to_the_step_whose_weight_was_written_before_them() {
        let mut events = vec![
            event("create", "trafficsplits", 0),
            event("update", "meshrollouts/status", 1),
        ];
        for step in 0..5 {
            events.push(event("update", "trafficsplits", 10 * step + 10));
            events.push(event("update", "meshrollouts/status", 10 * step + 11));
            events.push(event("get", "deployments", 10 * step + 12));
        }
        events.extend([
            event("update", "trafficsplits", 60),
            event("update", "trafficsplits", 61),
        ]);
        let row = steps(&events, &["shop".to_owned()], 6.0);
        assert_eq!((row.ours, row.runs), (2.0, 5));
        let detail = row.detail.unwrap_or_default();
        assert_eq!(detail["max"], 2.0);
        assert_eq!(
            detail["a rollout, after its last step"]["trafficsplits"],
            2.0
        );
        assert_eq!(
            detail["a rollout, before its first step"]["trafficsplits"],
            1.0
        );
    }
}
