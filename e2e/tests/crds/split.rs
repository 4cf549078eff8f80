//! The kinds besides MeshRollout: TrafficSplit and Mesh.

use serde_json::json;
use sluice_crds::TrafficSplit;

use crate::{place::Place, refused};

fn split(fence: i64, stable: i32, candidate: i32) -> String {
    format!(
        "
apiVersion: sluice.dev/v1alpha1
kind: TrafficSplit
metadata: {{name: reviews}}
spec:
  fence: {fence}
  services: [reviews]
  revision: 0123456789abcdef
  leased: true
  arms:
  - {{name: stable, weight: {stable}}}
  - {{name: candidate, weight: {candidate}, podLabelValues: [sluice-0123456789], includeGated: true}}
"
    )
}

/// One of 90 and 10 whose candidate excludes these pods.
fn excluding(fence: i64, pods: &str) -> String {
    let arm = format!("includeGated: true, excludedPods: [{pods}]");
    split(fence, 90, 10).replace("includeGated: true", &arm)
}

#[tokio::test]
async fn a_smaller_fence_is_refused_and_so_is_another_content_under_the_same() {
    let place = Place::new("crds-fence").await;
    let older = "spec.fence went down: a newer decision has been written; read the object again";
    let same = "spec changed under the same fence: a newer decision has been written";
    place.apply(&split(5, 90, 10)).await.unwrap();
    assert!(
        place.apply(&split(5, 90, 10)).await.is_ok(),
        "the same again is no change"
    );
    let other = split(5, 90, 10).replace("0123456789abcdef", "fedcba9876543210");
    let hung = format!("{}  hungAfterMs: 5000\n", split(5, 90, 10));
    let bad = [
        (split(4, 90, 10), older),
        (split(4, 75, 25), older),
        (split(5, 75, 25), same),
        (other, same),
        (hung, same),
        (excluding(5, "reviews-1"), same),
    ];
    refused(&place, bad).await;
    let newer = place.apply(&split(6, 75, 25)).await.unwrap();
    let newer: TrafficSplit =
        serde_json::from_value(serde_json::to_value(&newer).unwrap()).unwrap();
    assert_eq!(newer.spec.candidate_weight(), 25);
}

#[tokio::test]
async fn the_arms_of_a_split_are_known_stand_once_and_sum_to_100() {
    let place = Place::new("crds-arms").await;
    let sum = "the weights of spec.arms must sum to 100";
    let only_stable = "
apiVersion: sluice.dev/v1alpha1
kind: TrafficSplit
metadata: {name: reviews}
spec: {fence: 0, services: [reviews], arms: [{name: stable, weight: 100}]}
";
    place.try_out(only_stable).await.unwrap();
    let bad = [
        (split(1, 90, 9), sum),
        (split(1, 100, 100), sum),
        (split(1, 0, 0), sum),
        (only_stable.replace("weight: 100", "weight: 99"), sum),
        (
            only_stable.replace("arms: [{name: stable, weight: 100}]", "arms: []"),
            "should have at least 1 items",
        ),
        (split(1, 110, -10), "should be less than or equal to 100"),
        (
            split(1, 50, 50).replace("name: candidate", "name: stable"),
            "each arm of spec.arms may stand there only once",
        ),
        (
            split(1, 50, 50).replace("name: candidate", "name: canary"),
            "supported values: \"stable\", \"candidate\"",
        ),
        (split(-1, 50, 50), "should be greater than or equal to 0"),
        (
            excluding(1, "a, b, c, d, e, f, g, h, i, j, k"),
            "must have at most 10 items",
        ),
        (
            excluding(1, "a, b, a"),
            "excludedPods may name each of them only once",
        ),
    ];
    refused(&place, bad).await;
    place.try_out(&excluding(1, "a, b")).await.unwrap();
}

/// The Mesh has no namespace, so one test holds all that is said of it.
#[tokio::test]
async fn there_is_one_mesh_its_name_is_default_and_its_defaults_are_filled_in() {
    let place = Place::new("mesh").await;
    let mesh = |name: &str, spec: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let bad = [
        (
            mesh("mine", "{}"),
            "there is one Mesh, and its name is default: set metadata.name to default",
        ),
        (
            mesh("default", "{trustDomain: example.org}"),
            "a spec.trustDomain other than cluster.local is not in force yet: leave it out",
        ),
        (
            mesh("default", "{proxy: {resources: {memoryRequest: lots}}}"),
            "spec.proxy.resources.memoryRequest must be a quantity: write it like 10m or 32Mi",
        ),
        (
            mesh("default", "{defaultServiceExportTo: []}"),
            "should have at least 1 items",
        ),
        (
            mesh("default", "{defaultServiceExportTo: ['.', team_b]}"),
            "spec.defaultServiceExportTo takes names of namespaces, '.' (the Service's own), '*' (all) and '~' (none)",
        ),
        (
            mesh("default", "{defaultServiceExportTo: ['~', team-b]}"),
            "'~' in spec.defaultServiceExportTo means that no namespace sees the Service: write it alone",
        ),
    ];
    refused(&place, bad).await;
    let object = place.apply(&mesh("default", "{}")).await.unwrap();
    assert_eq!(
        object.data["spec"],
        json!({"trustDomain": "cluster.local", "defaultServiceExportTo": ["*"], "proxy": {}})
    );
    let full = "{defaultServiceExportTo: ['.', istio-ingress], proxy: {image: 'registry.example.com/sluice/proxy:0.2.0', resources: {cpuRequest: 10m, memoryRequest: 32Mi, memoryLimit: 64Mi}}}";
    let first = place.apply(&mesh("default", full)).await.unwrap();
    let second = place.apply(&mesh("default", full)).await.unwrap();
    assert_eq!(
        first.metadata.resource_version,
        second.metadata.resource_version
    );
}
