//! What happens to a release, from its commit to its end.

use anyhow::Result;
use serde_json::{Value, json};
use sluice_crds::MeshRolloutStatus;

use super::{scene::Scene, stage::until};

/// What happens to v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Story {
    /// It is good.
    Promotion,
    /// It fails at 50 %; no pod of it is kept.
    Rollback,
    /// It fails at 100 %, where the coin says little; a pod of it is kept for a second.
    LateRollback,
    /// Git goes back to v1 at 50 %.
    Revert,
    /// It fails; v3, which is good, comes while it stands rejected.
    FixForward,
    /// It is good, and so is v1, to which git goes back afterwards.
    Return,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Promotion,
        Self::Rollback,
        Self::LateRollback,
        Self::Revert,
        Self::FixForward,
        Self::Return,
    ];

    fn steps(self) -> Value {
        match self {
            Self::Promotion | Self::Return => json!([{"weight": 50}, {"weight": 100}]),
            // The story goes on by itself, long before the hold ends.
            Self::LateRollback => json!([{"weight": 50}, {"weight": 100, "hold": "60s"}]),
            Self::Rollback | Self::Revert => {
                json!([{"weight": 50, "hold": "60s"}, {"weight": 100}])
            }
            Self::FixForward => json!([{"weight": 50, "hold": "2s"}, {"weight": 100}]),
        }
    }

    fn on_failure(self) -> Value {
        match self {
            Self::LateRollback => json!({"keepCandidatePods": 1, "keepCandidateFor": "1s"}),
            _ => json!({"keepCandidatePods": 0}),
        }
    }

    /// The MeshRollout comes, and settles on v1.
    ///
    /// # Errors
    /// It does not.
    pub async fn begin(self, scene: &Scene) -> Result<MeshRolloutStatus> {
        scene.govern(self.steps(), self.on_failure()).await?;
        scene.settled().await
    }

    /// The release, to its end.
    ///
    /// # Errors
    /// It does not come to this end.
    pub async fn play(self, scene: &Scene) -> Result<()> {
        scene.deploy("v2").await?;
        match self {
            Self::Promotion => promoted(scene, 1).await,
            Self::Return => {
                promoted(scene, 1).await?;
                scene.deploy("v1").await?;
                promoted(scene, 2).await
            }
            Self::Rollback => {
                observing(scene, 0).await?;
                scene.candidate_fails(50);
                rejected(scene).await
            }
            Self::LateRollback => {
                observing(scene, 1).await?;
                scene.candidate_fails(50);
                rejected(scene).await
            }
            Self::Revert => {
                observing(scene, 0).await?;
                scene.deploy("v1").await?;
                reverted(scene).await
            }
            Self::FixForward => {
                observing(scene, 0).await?;
                scene.candidate_fails(50);
                rejected(scene).await?;
                scene.candidate_fails(0);
                scene.deploy("v3").await?;
                promoted(scene, 1).await
            }
        }
    }
}

async fn observing(scene: &Scene, step: i32) -> Result<()> {
    let what = format!("step {step} to be observed");
    let is_so = |status: &MeshRolloutStatus| {
        status.phase.as_deref() == Some("Observing") && status.step == Some(step)
    };
    scene.until_status(&what, is_so).await?;
    Ok(())
}

/// So many have been promoted. The newest template serves, the Deployment is an ordinary one,
/// nothing of ours is left.
async fn promoted(scene: &Scene, times: usize) -> Result<()> {
    scene
        .until_status("the promotion", |status| {
            let ended = status.history.iter();
            let promoted = ended.filter(|ended| ended.outcome == "Promoted").count();
            status.phase.as_deref() == Some("Idle") && promoted == times
        })
        .await?;
    released(scene).await
}

async fn rejected(scene: &Scene) -> Result<()> {
    scene
        .until_status("the rejection", |status| {
            status.phase.as_deref() == Some("Rejected")
        })
        .await?;
    no_candidate(scene).await
}

async fn reverted(scene: &Scene) -> Result<()> {
    scene
        .until_status("the revert", |status| {
            let newest = status.history.first();
            let is_replaced = newest.is_some_and(|ended| ended.outcome == "Replaced");
            status.phase.as_deref() == Some("Idle") && is_replaced
        })
        .await?;
    no_candidate(scene).await?;
    released(scene).await
}

async fn no_candidate(scene: &Scene) -> Result<()> {
    until("the candidate to be gone", async || {
        let sets = scene.sets().await?;
        let ours = sets.iter().any(|set| {
            let owners = set.metadata.owner_references.iter().flatten();
            { owners }.any(|owner| owner.kind == "MeshRollout")
        });
        Ok((!ours).then_some(()))
    })
    .await?;
    scene.followed().await
}

async fn released(scene: &Scene) -> Result<()> {
    until("the Deployment to be an ordinary one", async || {
        let deployment = scene.deployment().await?;
        let paused = deployment
            .spec
            .and_then(|spec| spec.paused)
            .unwrap_or_default();
        Ok((!paused).then_some(()))
    })
    .await?;
    scene.followed().await
}
