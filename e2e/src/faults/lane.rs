//! A cluster on which stories are played, one after the other, and what came of each.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::leaks::is_alarm;

use super::{
    history::by_object,
    layer::Write,
    picture,
    plan::{Plan, Point, points, rule},
    scene::Scene,
    stage::{Controller, Stage},
    story::Story,
    witness::Witness,
};

/// After the end nothing may be written for so long, and it must come to that within ten times it.
const QUIET: Duration = Duration::from_millis(1500);
/// What is still to come after a cut has so long: a new process, and a tidying up of the webhooks'
/// lists, which may be ten seconds away.
const LATE: Duration = Duration::from_secs(30);
/// The longest that one story may take.
const LONGEST: Duration = Duration::from_secs(240);

/// What came of a story.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was written about it.
    pub writes: Vec<Write>,
    /// Its namespace.
    pub namespace: String,
    /// Its end state.
    pub picture: Value,
    /// What no story may show.
    pub wrongs: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// A story as it goes without faults.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Its end state.
    pub picture: Value,
    /// What was done to each object.
    pub history: std::collections::BTreeMap<String, Vec<String>>,
    /// Its writes.
    pub points: Vec<Point>,
}

/// A cluster with one controller.
pub struct Lane {
    /// The cluster.
    pub stage: Stage,
    /// Its controller, which is started anew when it dies.
    pub controller: Controller,
}

impl Lane {
    /// Brings everything up.
    ///
    /// # Errors
    /// What is missing, with how to get it.
    pub async fn start() -> Result<Self> {
        let mut stage = Stage::on_a_free_cluster().await?;
        let controller = stage.controller("sluice-controller-0").await?;
        controller.supervise(stage.tasks());
        Ok(Self { stage, controller })
    }

    /// Plays a story twice without faults. What differs between the two is no part of the
    /// reference.
    ///
    /// # Errors
    /// The two do not end alike, or something was wrong already.
    pub async fn learn(&self, story: Story) -> Result<Reference> {
        let first = self.play(story, None).await?;
        let second = self.play(story, None).await?;
        let [one, two] =
            [&first, &second].map(|outcome| by_object(&outcome.namespace, &outcome.writes));
        anyhow::ensure!(
            first.wrongs.is_empty(),
            "{story:?} without faults: {:?}",
            first.wrongs
        );
        anyhow::ensure!(
            one == two && first.picture == second.picture,
            "{story:?} is not the same twice:\n{one:#?}\n{two:#?}\n{:#}\n{:#}",
            first.picture,
            second.picture
        );
        let mut common = points(&first.namespace, &first.writes);
        let others = points(&second.namespace, &second.writes);
        common.retain(|point| others.contains(point));
        Ok(Reference {
            picture: first.picture,
            history: one,
            points: common,
        })
    }

    /// Plays a story with one write cut; what was wrong.
    pub async fn run(&self, plan: &Plan, reference: &Reference) -> (Vec<String>, Duration) {
        let began = Instant::now();
        match self.play(plan.story, Some((plan, reference))).await {
            Ok(outcome) => (outcome.wrongs, outcome.took),
            Err(error) => (vec![format!("{error:#}")], began.elapsed()),
        }
    }

    /// Plays a story in a namespace of its own, with a write cut or without.
    ///
    /// # Errors
    /// It did not come to its end.
    async fn play(&self, story: Story, cut: Option<(&Plan, &Reference)>) -> Result<Outcome> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("faults-{}-{number}", std::process::id());
        let began = Instant::now();
        let layer = &self.controller.layer;
        let logged = self.controller.process.log().len();
        layer.forget();
        layer.heal();
        if let Some((plan, _)) = cut {
            layer.add(rule(plan, &namespace));
        }
        let scene = Scene::new(&self.stage, &namespace).await?;
        let witness = Witness::start(&scene);
        let played = timeout(LONGEST, async {
            let before = story.begin(&scene).await?;
            story.play(&scene).await?;
            let end = self.end(&scene, before.fence, cut).await?;
            witness.has_seen_all(&scene).await?;
            Ok(end)
        });
        let played = played.await.context("the story does not end").flatten();
        let log = self.controller.process.log().split_off(logged);
        let (picture, mut wrongs) = played.with_context(|| {
            let tail: Vec<&str> = log.lines().rev().take(12).collect();
            format!(
                "{namespace}; the controller's last words:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        })?;
        wrongs.extend(witness.verdict());
        let broken = log.lines().filter(|line| is_alarm(line));
        wrongs.extend(broken.map(str::to_owned));
        scene.remove().await;
        Ok(Outcome {
            writes: layer.writes(),
            namespace,
            picture,
            wrongs,
            took: began.elapsed(),
        })
    }

    /// How it has ended, and what of that is wrong: known once it is right and nothing is written
    /// any more, or when nothing that is late can be on its way.
    async fn end(
        &self,
        scene: &Scene,
        first_fence: i64,
        cut: Option<(&Plan, &Reference)>,
    ) -> Result<(Value, Vec<String>)> {
        let began = Instant::now();
        loop {
            self.quiet(&scene.namespace).await?;
            let picture = picture::of(scene, first_fence).await?;
            let Some((plan, reference)) = cut else {
                return Ok((picture, Vec::new()));
            };
            let wrongs = self.wrongs(plan, reference, &scene.namespace, &picture);
            if wrongs.is_empty() || began.elapsed() > LATE {
                return Ok((picture, wrongs));
            }
        }
    }

    fn wrongs(
        &self,
        plan: &Plan,
        reference: &Reference,
        namespace: &str,
        picture: &Value,
    ) -> Vec<String> {
        let mut wrongs = Vec::new();
        let layer = &self.controller.layer;
        // How others stand is told as often as time allows.
        if layer.fired() == 0 && !plan.point.deed.is_figures {
            wrongs.push("the write never came".to_owned());
        }
        if *picture != reference.picture {
            wrongs.push(format!(
                "another end: {}",
                difference(&reference.picture, picture)
            ));
        }
        let history = by_object(namespace, &layer.writes());
        for (object, told) in &reference.history {
            let empty = Vec::new();
            let other = history.get(object).unwrap_or(&empty);
            if other != told {
                wrongs.push(format!("{object} was written {other:?}, not {told:?}"));
            }
        }
        for object in history
            .keys()
            .filter(|object| !reference.history.contains_key(*object))
        {
            wrongs.push(format!("{object} was written"));
        }
        wrongs
    }

    /// Waits until nothing is written about the namespace any more.
    async fn quiet(&self, namespace: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let last = self.controller.layer.last_write(namespace);
            let is_over = |write: &Write| write.at.elapsed() >= QUIET;
            if began.elapsed() >= QUIET && last.as_ref().is_none_or(is_over) {
                return Ok(());
            }
            if began.elapsed() > QUIET * 10 {
                let what = last.map(|write| write.call.to_string()).unwrap_or_default();
                anyhow::bail!("it is written again and again: {what}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Where two pictures differ.
fn difference(wanted: &Value, is: &Value) -> String {
    let (Some(wanted), Some(is)) = (wanted.as_object(), is.as_object()) else {
        return format!("{is} in place of {wanted}");
    };
    let parts: Vec<String> = wanted
        .iter()
        .filter(|(key, value)| is.get(*key) != Some(value))
        .map(|(key, value)| {
            format!(
                "{key}: {}",
                difference(value, is.get(key).unwrap_or(&Value::Null))
            )
        })
        .collect();
    parts.join("; ")
}
