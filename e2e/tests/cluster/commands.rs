//! Commands of people: annotations pinned to a revision.

use crate::{
    app::deployment,
    node::wait_until,
    place::{Place, within},
};

const APP: &str = "web";

#[tokio::test]
async fn a_person_pauses_resumes_aborts_retries_and_promotes_a_revision() {
    within("sluice-commands", false, async |place| {
        let stable = place.deploy(APP, "v1", 1).await;
        let revision = place.release(APP, "v2", 1).await;

        place.command(APP, "pause", &revision).await;
        let paused = place
            .until(APP, "Paused", |look| look.phase == "Paused")
            .await;
        assert_eq!((paused.weight, paused.step.as_str()), (10, "1/5"));
        place.command(APP, "resume", &revision).await;
        let resumed = place
            .until(APP, "resumed", |look| look.phase == "Observing")
            .await;
        assert_eq!((resumed.weight, resumed.step.as_str()), (10, "1/5"));

        place.command(APP, "abort", &revision).await;
        let rejected = place
            .until(APP, "Rejected", |look| look.phase == "Rejected")
            .await;
        assert_eq!((rejected.weight, &rejected.stable), (0, &stable));
        let message = place.condition(APP, "Stalled", "True").await;
        assert!(message.contains("aborted by command"), "{message}");

        place.command(APP, "retry", &revision).await;
        place
            .until(APP, "tried again", |look| {
                look.phase == "Observing" && look.weight == 10
            })
            .await;
        place.promote(APP, &revision).await;
    })
    .await;
}

#[tokio::test]
async fn a_command_for_another_revision_does_nothing_and_says_so() {
    within("sluice-old-command", false, async |place| {
        let first = place.deploy(APP, "v1", 1).await;
        let second = place.release(APP, "v2", 1).await;
        place.command(APP, "promote", &first).await;
        refused(place, &format!("`promote@{first}`")).await;
        let look = place.settled_at_first_step().await;
        assert_eq!((look.candidate, look.stable), (second, first));
        // The annotation stands there still; it does not fire when the next revision comes.
        place.apply(&deployment(APP, "v3", 1)).await;
        place
            .until(APP, "v3 at its first step", |look| {
                look.phase == "Observing" && look.candidate != look.stable
            })
            .await;
    })
    .await;
}

impl Place {
    async fn settled_at_first_step(&self) -> sluice_e2e::world::Look {
        self.until(APP, "at its first step", |look| {
            look.phase == "Observing" && look.weight == 10
        })
        .await
    }
}

async fn refused(place: &Place, command: &str) {
    wait_until("the event CommandRefused", async || {
        let events = place.events().await;
        Ok(events.iter().any(|event| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("CommandRefused")
                && note.contains(command)
                && note.contains("it is pinned to another revision")
        }))
    })
    .await;
}
