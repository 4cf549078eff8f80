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
        let outcome = match self.play(plan.story, Some(plan)).await {
            Ok(outcome) => outcome,
            Err(error) => return (vec![format!("{error:#}")], began.elapsed()),
        };
        let mut wrongs = outcome.wrongs;
        // How others stand is told as often as time allows.
        if self.controller.layer.fired() == 0 && !plan.point.deed.is_figures {
            wrongs.push("the write never came".to_owned());
        }
        if outcome.picture != reference.picture {
            wrongs.push(format!(
                "another end: {}",
                difference(&reference.picture, &outcome.picture)
            ));
        }
        let history = by_object(&outcome.namespace, &outcome.writes);
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
        (wrongs, outcome.took)
    }

    /// Plays a story in a namespace of its own.
    ///
    /// # Errors
    /// It did not come to its end.
    pub async fn play(&self, story: Story, plan: Option<&Plan>) -> Result<Outcome> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("faults-{}-{number}", std::process::id());
        let began = Instant::now();
        let layer = &self.controller.layer;
        let logged = self.controller.process.log().len();
        layer.forget();
        layer.heal();
        if let Some(plan) = plan {
            layer.add(rule(plan, &namespace));
        }
        let scene = Scene::new(&self.stage, &namespace).await?;
        let witness = Witness::start(&scene);
        let played = timeout(LONGEST, async {
            let before = story.begin(&scene).await?;
            story.play(&scene).await?;
            self.quiet(&namespace).await?;
            picture::of(&scene, before.fence).await
        });
        let played = played.await.context("the story does not end").flatten();
        let log = self.controller.process.log().split_off(logged);
        let picture = played.with_context(|| {
            let tail: Vec<&str> = log.lines().rev().take(12).collect();
            format!(
                "{namespace}; the controller's last words:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        })?;
        let mut wrongs = witness.verdict();
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

    /// Waits until nothing is written about the namespace any more.
    async fn quiet(&self, namespace: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let last = self.controller.layer.last_write(namespace);
            if last
                .as_ref()
                .is_none_or(|write| write.at.elapsed() >= QUIET)
            {
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
