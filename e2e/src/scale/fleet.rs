//! Many governed Deployments, made as fast as the apiserver takes them.

use std::ops::Range;

use anyhow::{Context, Result};
use futures::{TryStreamExt, stream};
use kube::Client;
use serde_json::json;

use crate::faults::{
    objects::{deployment, rollout, service, within},
    stage::{create, new_namespace},
};

/// MeshRollouts of one namespace.
const PER_NAMESPACE: usize = 25;
/// Of so many Deployments one has a pod; the others are scaled to zero.
const ONE_POD_IN: usize = 10;
/// Writers at one time.
pub const WRITERS: usize = 32;

/// The pods of so many Deployments.
#[must_use]
pub fn pods(rollouts: usize) -> usize {
    rollouts.div_ceil(ONE_POD_IN)
}

fn has_pod(number: usize) -> bool {
    number.is_multiple_of(ONE_POD_IN)
}

/// Makes the Deployments of these numbers, each with its Service and MeshRollout.
///
/// # Errors
/// The apiserver's sentence.
pub async fn grow(client: &Client, numbers: Range<usize>) -> Result<()> {
    let homes = numbers.start.div_ceil(PER_NAMESPACE)..numbers.end.div_ceil(PER_NAMESPACE);
    stream::iter(homes.map(Ok))
        .try_for_each_concurrent(WRITERS, async |number| {
            new_namespace(client, &format!("fleet-{number}")).await
        })
        .await
        .context("making namespaces")?;
    stream::iter(numbers.map(Ok))
        .try_for_each_concurrent(WRITERS, async |number| one(client, number).await)
        .await
        .context("making Deployments with their Services and MeshRollouts")
}

async fn one(client: &Client, number: usize) -> kube::Result<()> {
    let (home, name) = (
        format!("fleet-{}", number / PER_NAMESPACE),
        format!("app-{number}"),
    );
    let replicas = i32::from(has_pod(number));
    let mut service = service(&name);
    // Nobody calls them, and the apiserver gives out a few addresses a second only.
    service["spec"]["clusterIP"] = json!("None");
    let objects = [
        service,
        deployment(&name, "v1", replicas),
        rollout(&name, json!({})),
    ];
    for object in objects {
        create(client, &within(&home, object)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pods_are_asked_for_as_are_told() {
        for rollouts in [0, 1, 10, 11, 995] {
            let asked = (0..rollouts).filter(|number| has_pod(*number)).count();
            assert_eq!(pods(rollouts), asked);
        }
    }
}
